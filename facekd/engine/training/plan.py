"""What a recipe will cost, before it costs anything."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from facekd.data.embedding_cache import cache_bytes
from facekd.data.identities import IdentitySource
from facekd.engine.fitting import training_reader
from facekd.engine.training.inheritance import classifier_place
from facekd.engine.training.series import open_last, teacher_place
from facekd.errors import RecipeError, UsageError
from facekd.models.architecture import Architecture, Part
from facekd.models.embedder import Embedder, load_embedder
from facekd.models.macs import count_macs, count_parameters
from facekd.models.residual import ResidualPair
from facekd.recipe import Recipe
from facekd.recipe.loss_options import Loss, MarginSoftmax, any_needs, in_teacher_space, sampled_rate
from facekd.recipe.sections import Resolutions, Student, Teacher


@dataclass(frozen=True)
class Plan:
    """The resolved size of a run.

    Attributes:
        images: Training images.
        identities: Training identities.
        steps_per_epoch: Full batches in an epoch.
        total_steps: Steps in the run.
        student_parameters: Trainable values of the student, its assistant with it.
        student_macs: Multiply-accumulates of one image through the student, its assistant with it.
        teacher_parameters: Values of the teacher, 0 without one.
        classifier_bytes: Class weights with the optimizer's and the gradient's copies where they are trained, and the
            candidates of each class; in one process.
        cache_bytes: Disk for the teacher's embeddings of every view of every image, 0 where none are kept.
        assistant_parameters: Those of the student's that are its assistant's.
        assistant_macs: Likewise.
        student_step_images: Images the student embeds in a step: the batch, and its virtual samples.
        teacher_step_images: Images the teacher embeds in a step, live.
        projector: What becomes of a projector to the teacher's width, or ``none``.
        teachers: Models the student learns from, whose parameters, classifiers and caches are counted together.
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
    assistant_parameters: int = 0
    assistant_macs: int = 0
    student_step_images: int = 0
    teacher_step_images: int = 0
    projector: str = "none"
    teachers: int = 0

    def as_dict(self) -> dict[str, int | str]:
        """The figures by name."""
        return asdict(self)

    @property
    def epochs_begun(self) -> int:
        """Epochs of which the run takes at least a step.

        Example:
            >>> Plan(1, 1, 10, 21, 0, 0, 0, 0, 0).epochs_begun
            3
        """
        return math.ceil(self.total_steps / self.steps_per_epoch)


def architecture_of(student: Student, teacher: Embedder | None = None) -> Architecture:
    """What a recipe's student is made of, where it learns from that teacher."""
    other = student.assistant
    assistant = None if other is None else Part(other.backbone, other.options)
    projected = teacher.embedding_size if teacher is not None and student.projector == "keep" else None
    return Architecture(
        student.backbone, student.embedding_size, student.input_size, student.options, assistant, projected
    )


def open_teacher(teacher: Teacher, device: str) -> Embedder:
    """The teacher of a recipe, ready to embed; of snapshots, the last."""
    if teacher.snapshots is not None:
        return open_last(teacher, device)
    return load_embedder(Path(teacher.weights), color=teacher.color, normalize=teacher.normalize, device=device)


def cached_views(recipe: Recipe) -> int:
    """Teacher embeddings kept of each training image for the steps: 0 where the teacher runs live or not at all."""
    teacher = recipe.teacher
    if teacher is None or teacher.snapshots or not any_needs(recipe.losses, "teacher_embeddings"):
        return 0
    return 2 if teacher.view == "clean" else recipe.data.versions or 0


def clean_views(recipe: Recipe, teacher: Embedder) -> int:
    """Teacher embeddings kept of each image and its mirror, for the steps, class means or superclasses."""
    clean = recipe.teacher is not None and recipe.teacher.view == "clean" and cached_views(recipe)
    return 2 if clean or recipe.train.superclasses or needs_class_means(recipe, teacher) else 0


def needs_class_means(recipe: Recipe, teacher: Embedder) -> bool:
    """Whether the teacher's classifier will be the class means of its embeddings."""
    section = recipe.teacher
    if section is None or not any_needs(recipe.losses, "teacher_classifier"):
        return False
    return classifier_of(section, teacher) is None


def classifier_of(section: Teacher, teacher: Embedder) -> Path | None:
    """Where the class weights of a recipe's teacher lie; None where class means stand in."""
    if section.classifier == "class_means":
        return None
    given = None if section.class_weights is None else Path(section.class_weights)
    return classifier_place(teacher_place(section), teacher.metadata, given)


def make_plan(recipe: Recipe, source: IdentitySource, teacher: Embedder | None) -> Plan:
    """Size a run, refusing what could only fail later.

    Args:
        recipe: The recipe.
        source: Its training images.
        teacher: Its teacher, where it has one.

    Raises:
        UsageError: More images or identities in a batch than in the data, a resolution above the images' own, or a
            backbone that does not exist.
        DataError: The first image shows another cut of the face than the student is to see.
        RecipeError: Student and teacher embeddings of different width under a loss that compares them, or a projector
            between equal ones.
    """
    count, batch = len(source), recipe.train.batch_size
    if batch > count:
        raise UsageError("train.batch_size", f"{batch}, but there are {count} training images", f"at most {count}")
    identities = batch // (recipe.train.images_per_identity or batch)
    if identities > len(source.names):
        what = f"a batch takes {identities} identities, the data has {len(source.names)}"
        raise UsageError("train.images_per_identity", what, "lower train.batch_size, or raise it")
    height, width = training_reader(recipe, source)(0).shape[:2]
    _refuse_higher_resolution(recipe.data.resolutions, height, width)
    student = recipe.student
    _refuse_widths(recipe, teacher)
    architecture = architecture_of(student, teacher)
    backbone = architecture.build()
    assistant = backbone.assistant if isinstance(backbone, ResidualPair) else None
    per_epoch = count // batch
    steps = per_epoch * recipe.train.epochs
    if recipe.train.max_steps is not None:
        steps = min(steps, recipe.train.max_steps)
    trained = any_needs(recipe.losses, "own_classifier")
    held = any_needs(recipe.losses, "teacher_classifier")
    copies = trained_copies(recipe.losses, 2 if recipe.optimizer.name == "adamw" else 1)
    matrix = 4 * len(source.names)
    virtual = batch * any_needs(recipe.losses, "virtual_samples")
    return Plan(
        images=count,
        identities=len(source.names),
        steps_per_epoch=per_epoch,
        total_steps=steps,
        student_parameters=count_parameters(backbone),
        student_macs=count_macs(backbone, student.input_size),
        teacher_parameters=0 if teacher is None else teacher.parameters,
        classifier_bytes=round(matrix * architecture.width * copies * trained)
        + (matrix * teacher.embedding_size if held and teacher is not None else 0)
        + candidate_bytes(recipe.losses, len(source.names)),
        cache_bytes=0 if teacher is None else cache_bytes(count, kept_views(recipe, teacher), teacher.embedding_size),
        assistant_parameters=0 if assistant is None else count_parameters(assistant),
        assistant_macs=0 if assistant is None else count_macs(assistant, student.input_size),
        student_step_images=batch + virtual,
        teacher_step_images=batch * runs_live(recipe) + virtual,
        projector=_fate(student, teacher),
        teachers=int(teacher is not None),
    )


def _refuse_higher_resolution(section: Resolutions, height: int, width: int) -> None:
    if section.sides and max(section.sides) > max(height, width):
        what = f"{max(section.sides)}, but the images are {width}x{height}"
        raise UsageError("data.resolutions.sides", what, f"at most {max(height, width)}")


def _refuse_widths(recipe: Recipe, teacher: Embedder | None) -> None:
    if teacher is None:
        return
    student, wide = recipe.student, teacher.embedding_size
    if student.embedding_size == wide and student.projector != "none":
        what = f"{student.projector}, but the teacher's embedding has {wide} values as the student's (write none)"
        raise RecipeError([f"student.projector: {what}"])
    if student.embedding_size != wide and student.projector == "none" and in_teacher_space(recipe.losses):
        fix = "set it to the same, or student.projector to drop or keep"
        raise RecipeError([f"student.embedding_size: {student.embedding_size}, the teacher's is {wide} ({fix})"])


def _fate(student: Student, teacher: Embedder | None) -> str:
    if teacher is None or student.projector == "none":
        return "none"
    fate = "part of the student" if student.projector == "keep" else "left out of the student"
    return f"{student.embedding_size} to {teacher.embedding_size}, {fate}"


def pair_sizes(plan: Plan) -> dict[str, dict[str, int]]:
    """Parameters and multiply-accumulates of a student, of its assistant, and of both, which is what is deployed.

    Example:
        >>> plan = Plan(1, 1, 10, 100, 50, 900, 0, 0, 0, assistant_parameters=20, assistant_macs=300)
        >>> pair_sizes(plan)["student"], pair_sizes(plan)["together"]
        ({'parameters': 30, 'macs': 600}, {'parameters': 50, 'macs': 900})
    """
    whole, part = (plan.student_parameters, plan.student_macs), (plan.assistant_parameters, plan.assistant_macs)
    first = (whole[0] - part[0], whole[1] - part[1])
    named = {"student": first, "assistant": part, "together": whole}
    return {name: {"parameters": parameters, "macs": macs} for name, (parameters, macs) in named.items()}


def trained_copies(losses: Iterable[Loss], remembered: int) -> float:
    """How many times over a classifier in training is held at the height of a step, its sampled rows counted as such.

    Args:
        losses: Of the recipe.
        remembered: Numbers its optimizer keeps for each of it.

    Example:
        With its gradient and its momentum; or, of a tenth of the rows, a copy of each of the three.

        >>> own = MarginSoftmax(name="margin_softmax")
        >>> trained_copies([own], 1), round(trained_copies([own.model_copy(update={"sample_rate": 0.1})], 1), 3)
        (3, 2.3)
    """
    rate = sampled_rate(losses)
    return 1 + remembered + (rate * (2 + remembered) if rate < 1 else 1)


def candidate_bytes(losses: Iterable[Loss], classes: int) -> int:
    """Memory for the nearest classes of each, 0 where no loss is taken among them.

    Example:
        >>> near = MarginSoftmax(name="margin_softmax", class_weights="teacher", candidates=100)
        >>> candidate_bytes([near], 1000), candidate_bytes([near], 11)
        (404000, 484)
    """
    counts = [loss.candidates for loss in losses if isinstance(loss, MarginSoftmax) and loss.candidates]
    return sum(4 * classes * (min(count, classes - 1) + 1) for count in counts)


def runs_live(recipe: Recipe) -> bool:
    """Whether the teacher embeds the batch of each step itself, which no cache then holds."""
    asked = recipe.teacher is not None and any_needs(recipe.losses, "teacher_embeddings")
    return asked and cached_views(recipe) == 0


def kept_views(recipe: Recipe, teacher: Embedder) -> int:
    """Views in all caches of a run: those of the steps, and the clean ones where they are others."""
    shared = recipe.teacher is not None and recipe.teacher.view == "clean"
    steps, clean = cached_views(recipe), clean_views(recipe, teacher)
    return max(steps, clean) if shared else steps + clean


def checkpoint_steps(plan: Plan, every_epochs: float) -> int:
    """Steps between two checkpoints or evaluations that are ``every_epochs`` apart, at least one.

    Example:
        >>> checkpoint_steps(Plan(1, 1, 10, 100, 0, 0, 0, 0, 0), 0.5)
        5
    """
    return max(1, math.floor(every_epochs * plan.steps_per_epoch))
