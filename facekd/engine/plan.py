"""What a recipe will cost, before it costs anything."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

from facekd.data.embedding_cache import cache_bytes
from facekd.data.identities import IdentitySource
from facekd.engine.objective import uses_teacher_embeddings
from facekd.errors import RecipeError, UsageError
from facekd.models.backbone import build_backbone
from facekd.models.embedder import Embedder, load_embedder
from facekd.models.macs import count_macs, count_parameters
from facekd.recipe.loss_options import uses_teacher_classifier
from facekd.recipe.schema import Recipe, Teacher


@dataclass(frozen=True)
class Plan:
    """The resolved size of a run.

    Attributes:
        images: Training images.
        identities: Training identities.
        steps_per_epoch: Full batches in an epoch.
        total_steps: Steps in the run.
        student_parameters: Trainable values of the backbone.
        student_macs: Multiply-accumulates of one student forward pass.
        teacher_parameters: Values of the teacher, 0 without one.
        classifier_bytes: Class weights with the optimizer's and the gradient's copies where they are trained.
        cache_bytes: Disk for the teacher's embeddings of every image and its mirror, 0 where none are kept.
    """

    images: int
    identities: int
    steps_per_epoch: int
    total_steps: int
    student_parameters: int
    student_macs: int
    teacher_parameters: int
    classifier_bytes: int
    cache_bytes: int

    def as_dict(self) -> dict[str, int]:
        """The figures by name."""
        return asdict(self)


def open_teacher(teacher: Teacher, device: str) -> Embedder:
    """The teacher of a recipe, ready to embed."""
    return load_embedder(Path(teacher.weights), color=teacher.color, normalize=teacher.normalize, device=device)


def caches_teacher(recipe: Recipe) -> bool:
    """Whether the run computes the teacher's embedding of every training image once and keeps it."""
    teacher = recipe.teacher
    if teacher is None:
        return False
    return (teacher.view == "clean" and uses_teacher_embeddings(recipe.losses)) or needs_class_means(recipe)


def needs_class_means(recipe: Recipe) -> bool:
    """Whether the teacher's classifier will be the class means of its embeddings."""
    teacher = recipe.teacher
    if teacher is None or not any(uses_teacher_classifier(loss) for loss in recipe.losses):
        return False
    stored = (Path(teacher.weights) / "classifier.safetensors").is_file()
    return teacher.classifier == "class_means" or (teacher.classifier == "auto" and not stored)


def make_plan(recipe: Recipe, source: IdentitySource, teacher: Embedder | None) -> Plan:
    """Size a run, refusing what could only fail later.

    Args:
        recipe: The recipe.
        source: Its training images.
        teacher: Its teacher, where it has one.

    Raises:
        UsageError: More images in a batch than in the data, or a backbone that does not exist.
        RecipeError: Student and teacher embeddings of different width under a loss that compares them.
    """
    count, batch = len(source), recipe.train.batch_size
    if batch > count:
        raise UsageError("train.batch_size", f"{batch}, but there are {count} training images", f"at most {count}")
    student = recipe.student
    width = student.embedding_size
    compares = uses_teacher_embeddings(recipe.losses) and not all(loss.name == "logit_kd" for loss in recipe.losses)
    if teacher is not None and compares and teacher.embedding_size != width:
        raise RecipeError(
            [f"student.embedding_size: {width}, the teacher's is {teacher.embedding_size} (set it to the same)"]
        )
    backbone = build_backbone(
        student.backbone, embedding_size=width, input_size=student.input_size, options=student.options
    )
    per_epoch = count // batch
    steps = per_epoch * recipe.train.epochs
    if recipe.train.max_steps is not None:
        steps = min(steps, recipe.train.max_steps)
    trained = any(loss.name == "margin_softmax" and loss.class_weights == "own" for loss in recipe.losses)
    held = any(uses_teacher_classifier(loss) for loss in recipe.losses)
    copies = 2 + (2 if recipe.optimizer.name == "adamw" else 1)
    matrix = 4 * len(source.names)
    return Plan(
        images=count,
        identities=len(source.names),
        steps_per_epoch=per_epoch,
        total_steps=steps,
        student_parameters=count_parameters(backbone),
        student_macs=count_macs(backbone, student.input_size),
        teacher_parameters=0 if teacher is None else teacher.parameters,
        classifier_bytes=matrix * width * copies * trained
        + (matrix * teacher.embedding_size if held and teacher is not None else 0),
        cache_bytes=cache_bytes(count, teacher.embedding_size) if teacher is not None and caches_teacher(recipe) else 0,
    )


def checkpoint_steps(plan: Plan, every_epochs: float) -> int:
    """Steps between two checkpoints or evaluations that are ``every_epochs`` apart, at least one.

    Example:
        >>> checkpoint_steps(Plan(1, 1, 10, 100, 0, 0, 0, 0, 0), 0.5)
        5
    """
    return max(1, math.floor(every_epochs * plan.steps_per_epoch))
