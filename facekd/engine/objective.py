"""Binding a recipe's losses to what a step produces."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn
from torch.nn import functional

from facekd.errors import RecipeError
from facekd.losses import LOSSES
from facekd.models.heads import FrozenClassifier, MarginClassifier, VarianceHead
from facekd.recipe.loss_options import Loss, MarginSoftmax, Pad

RESIDUAL_MEMORY = 0.9  # share of the old value kept by the running mean squared residual


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
    """

    student: Tensor
    teacher: Tensor | None
    labels: Tensor
    class_weights: Tensor | None
    teacher_class_weights: Tensor | None
    log_variance: Tensor | None


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


class Variance(nn.Module):
    """The log variance that PAD weighs by: constant during warm-up, then the head's answer.

    One constant variance makes the term a rescaled L2, so its weight means the same before and after the switch, at
    which the head is set to the residual of each dimension that the warm-up measured.

    Args:
        options: The recipe's PAD term.
        embedding_size: Width of the embeddings.
        steps_per_epoch: To turn the warm-up into steps.
    """

    residual: Tensor

    def __init__(self, options: Pad, embedding_size: int, steps_per_epoch: int) -> None:
        super().__init__()
        self.head = VarianceHead(embedding_size, 1 if options.variance == "scalar" else embedding_size)
        self.start = round(options.warmup_epochs * steps_per_epoch)
        self.detached = options.detach_variance
        self.register_buffer("residual", torch.zeros(embedding_size))

    def forward(self, student: Tensor, teacher: Tensor, step: int) -> Tensor:
        """Log sigma squared of the teacher about the student, ``(batch, 1)`` or ``(batch, dim)``.

        Args:
            student: Raw student embeddings, ``(batch, dim)``.
            teacher: Raw teacher embeddings, ``(batch, dim)``.
            step: 0-based step.
        """
        if step < self.start or step == 0:
            self._measure(student.detach(), teacher, first=step == 0)
        if step < self.start:
            return self.residual.mean().log().expand(len(student), 1)
        if step == self.start:
            self.head.initialise(self.residual)
        answer: Tensor = self.head(student.detach() if self.detached else student)
        return answer

    @torch.no_grad()
    def _measure(self, student: Tensor, teacher: Tensor, first: bool) -> None:
        apart = functional.normalize(teacher.float()) - functional.normalize(student.float())
        now = apart.square().mean(0)
        self.residual.copy_(now if first else self.residual * RESIDUAL_MEMORY + now * (1 - RESIDUAL_MEMORY))


class Objective(nn.Module):
    """The weighted terms of a recipe, and the modules they train or hold beside the student.

    The inherited classifier is a buffer: it is saved with the run, and no optimizer ever sees it.

    Args:
        losses: The recipe's losses.
        classes: Identities in the training data.
        embedding_size: Width of the student's embedding.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``, where a term needs it.
        steps_per_epoch: To turn a warm-up in epochs into steps.

    Raises:
        RecipeError: A term needs something this run does not have.
    """

    def __init__(
        self,
        losses: Sequence[Loss],
        *,
        classes: int,
        embedding_size: int,
        teacher_class_weights: Tensor | None,
        steps_per_epoch: int,
    ) -> None:
        super().__init__()
        self.losses = tuple(losses)
        self.own: MarginClassifier | None = None
        self.inherited: FrozenClassifier | None = None
        self.variance: Variance | None = None
        margin = next((loss for loss in self.losses if isinstance(loss, MarginSoftmax)), None)
        if margin is not None and margin.class_weights == "own":
            self.own = MarginClassifier(classes, embedding_size)
        if teacher_class_weights is not None:
            self.inherited = FrozenClassifier(teacher_class_weights)
        pad = next((loss for loss in self.losses if isinstance(loss, Pad)), None)
        if pad is not None:
            self.variance = Variance(pad, embedding_size, steps_per_epoch)
        self._check(embedding_size)

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
        """The weighted value of every term, by loss name; their sum is what is minimised.

        Args:
            student: Raw student embeddings, float32 ``(batch, dim)``.
            teacher: Raw teacher embeddings, or None where no term needs them.
            labels: Classes, ``(batch,)``; a negative one says the image has no label: terms that take labels skip it.
            step: 0-based step, which decides the phase of a warm-up.
        """
        inherited = None if self.inherited is None else self.inherited.class_weights
        own = inherited if self.own is None else self.own.class_weights
        variance = None
        if self.variance is not None and teacher is not None:
            variance = self.variance(student, teacher, step)
        outputs = StepOutputs(student, teacher, labels, own, inherited, variance)
        labelled = labels >= 0
        terms: dict[str, Tensor] = {}
        for loss in self.losses:
            names = loss_inputs(loss.name)
            inputs = [getattr(outputs, name) for name in names]
            if "labels" in names:
                inputs = [
                    value[labelled] if name in PER_IMAGE else value for name, value in zip(names, inputs, strict=True)
                ]
            terms[loss.name] = loss.weight * LOSSES[loss.name](*inputs, **loss.loss_options())
        return terms
