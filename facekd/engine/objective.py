"""Binding a recipe's losses to what a step produces."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields

from torch import Tensor, nn

from facekd.engine.parts import Centres, Thresholds, Variance
from facekd.errors import RecipeError
from facekd.losses import LOSSES
from facekd.models.heads import FrozenClassifier, MarginClassifier
from facekd.recipe.loss_options import AdaDistill, Ekd, Loss, MarginSoftmax, Pad


@dataclass(frozen=True)
class Sizes:
    """What the objective of a run is built for.

    Attributes:
        classes: Identities in the training data.
        embedding_size: Width of the student's embedding.
        teacher_size: Width of the teacher's; that of the student where there is no teacher.
        batch_size: Images in a step.
        steps_per_epoch: To turn a warm-up in epochs into steps.
    """

    classes: int
    embedding_size: int
    teacher_size: int
    batch_size: int
    steps_per_epoch: int


@dataclass(frozen=True)
class StepOutputs:
    """The inputs a loss may name as its positional parameters.

    Attributes:
        student: Raw student embeddings, float32 ``(batch, dim)``.
        teacher: Raw teacher embeddings of the same images, ``(batch, teacher_dim)``.
        labels: Classes, int64 ``(batch,)``.
        class_weights: The classifier the student is trained on, ``(classes, dim)``.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``.
        log_variance: Log sigma squared of the teacher embedding about the student's.
        student_thresholds: The student's cosine thresholds at EKD's false-positive rates, ``(anchors,)``.
        teacher_thresholds: The teacher's.
        centres: AdaDistill's class centres, ``(classes, dim)``.
    """

    student: Tensor
    teacher: Tensor | None
    labels: Tensor
    class_weights: Tensor | None
    teacher_class_weights: Tensor | None
    log_variance: Tensor | None = None
    student_thresholds: Tensor | None = None
    teacher_thresholds: Tensor | None = None
    centres: Tensor | None = None


FIELDS = tuple(field.name for field in fields(StepOutputs))
PER_IMAGE = ("student", "teacher", "labels", "log_variance")


def loss_inputs(name: str) -> list[str]:
    """The step outputs a loss takes, in order.

    Example:
        >>> loss_inputs("l2")
        ['student', 'teacher']
    """
    parameters = inspect.signature(LOSSES[name]).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


class Objective(nn.Module):
    """The weighted terms of a recipe, and the modules they train or hold beside the student.

    The inherited classifier is a buffer: it is saved with the run, and no optimizer ever sees it.

    Args:
        losses: The recipe's losses.
        sizes: What they are for.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``, where a term needs it.

    Attributes:
        notes: What a user should know of how the losses were set up.

    Raises:
        RecipeError: A term needs something this run does not have.
    """

    def __init__(self, losses: Sequence[Loss], sizes: Sizes, teacher_class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.losses = tuple(losses)
        self.notes: list[str] = []
        self.steps_per_epoch = sizes.steps_per_epoch
        self.own: MarginClassifier | None = None
        self.inherited: FrozenClassifier | None = None
        self.parts = nn.ModuleDict()
        margin = next((loss for loss in self.losses if isinstance(loss, MarginSoftmax)), None)
        if margin is not None and margin.class_weights == "own":
            self.own = MarginClassifier(sizes.classes, sizes.embedding_size)
        if teacher_class_weights is not None:
            self.inherited = FrozenClassifier(teacher_class_weights)
        for loss in self.losses:
            self._add_part(loss, sizes)
        self._check(sizes.embedding_size)

    def _add_part(self, loss: Loss, sizes: Sizes) -> None:
        if isinstance(loss, Pad):
            self.parts["variance"] = Variance(loss, sizes.embedding_size, sizes.steps_per_epoch)
        elif isinstance(loss, AdaDistill):
            self.parts["centres"] = Centres(loss, sizes.classes, sizes.embedding_size)
        elif isinstance(loss, Ekd):
            ranks = Thresholds(loss, sizes.embedding_size, sizes.teacher_size, sizes.batch_size)
            self.parts["thresholds"] = ranks
            if ranks.dropped:
                rates = ", ".join(f"{fpr:g}" for fpr in ranks.dropped)
                self.notes.append(f"ekd: {ranks.pairs:,} pairs a step are too few for FPR {rates}; left out")

    def _check(self, embedding_size: int) -> None:
        """Refuse before the first step what could only fail in it."""
        problems = []
        missing = [] if self.inherited is not None else ["teacher_class_weights"]
        if self.own is None and self.inherited is None:
            missing.append("class_weights")
        for loss in self.losses:
            for name in loss_inputs(loss.name):
                if name not in FIELDS or name in missing:
                    problems.append(f"losses.{loss.name}: needs {name}, which this run does not have")
        if self.inherited is not None and self.own is None:
            width = self.inherited.class_weights.shape[1]
            if width != embedding_size:
                problems.append(
                    f"student.embedding_size: {embedding_size}, but the inherited classifier has {width} columns "
                    f"(set student.embedding_size to {width})"
                )
        if problems:
            raise RecipeError(problems)

    def forward(self, student: Tensor, teacher: Tensor | None, labels: Tensor, step: int) -> dict[str, Tensor]:
        """The weighted value of every term that has begun, by loss name; their sum is what is minimised.

        Args:
            student: Raw student embeddings, float32 ``(batch, dim)``.
            teacher: Raw teacher embeddings, or None where no term needs them.
            labels: Classes, ``(batch,)``; a negative one says the image has no label: terms that take labels skip it.
            step: 0-based step, which decides the phase of a warm-up.
        """
        inherited = None if self.inherited is None else self.inherited.class_weights
        own = inherited if self.own is None else self.own.class_weights
        kept: dict[str, Tensor] = {}
        for part in self.parts.values():
            kept |= part(student, teacher, labels, step)
        outputs = StepOutputs(student, teacher, labels, own, inherited, **kept)
        labelled = labels >= 0
        terms: dict[str, Tensor] = {}
        for loss in self.losses:
            weight = loss.weight_at(step / self.steps_per_epoch)
            if weight == 0 and loss.weight != 0:
                continue
            names = loss_inputs(loss.name)
            inputs = [getattr(outputs, name) for name in names]
            if "labels" in names:
                inputs = [
                    value[labelled] if name in PER_IMAGE else value for name, value in zip(names, inputs, strict=True)
                ]
            terms[loss.name] = weight * LOSSES[loss.name](*inputs, **loss.loss_options())
        return terms
