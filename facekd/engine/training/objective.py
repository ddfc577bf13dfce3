"""Binding a recipe's losses to what a step produces."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from facekd.engine.training.outputs import FIELDS, OF_STUDENT, PER_IMAGE, Sizes, StepOutputs
from facekd.engine.training.parts import Candidates, Sample, Uncertainty, Variance, part_of
from facekd.errors import RecipeError
from facekd.losses import LOSSES, ClassShare
from facekd.models.heads import FrozenClassifier, MarginClassifier, VarianceHead, linear_projector
from facekd.recipe.loss_options import Loss, any_needs, in_teacher_space


def loss_inputs(name: str) -> list[str]:
    """The step outputs a loss takes, in order.

    Example:
        >>> loss_inputs("l2")
        ['student', 'teacher']
    """
    parameters = inspect.signature(LOSSES[name]).parameters.values()
    return [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]


OWN = "own.class_weights"
"""The classifier in training, as the state of an objective names it."""


def _labelled(outputs: StepOutputs, name: str) -> Any:
    """A field with the labelled images only, where it has a row per image."""
    value = getattr(outputs, name)
    if name == "subsets":
        return tuple(one._replace(teacher=outputs.of_labelled(one.teacher)) for one in value)
    return outputs.of_labelled(value) if name in PER_IMAGE else value


def shared_classes(losses: Sequence[Loss], sizes: Sizes) -> ClassShare | None:
    """The classes that a process holds of the classifier some losses stand on; None where it holds all of them.

    That is the classifier in training where there is one, and else the inherited one. It is held in parts by several
    processes unless a loss asks for the rows or the logits of all classes, or there are fewer of these than processes.

    Args:
        losses: Of the recipe.
        sizes: What they are for; the process is said there.
    """
    names = {"class_weights"}
    if not any_needs(losses, "own_classifier"):
        names.add("teacher_class_weights")
    asking = [loss for loss in losses if not names.isdisjoint(loss_inputs(loss.name))]
    shared = all("class_share" in loss_inputs(loss.name) and not getattr(loss, "candidates", None) for loss in asking)
    share = sizes.class_share
    if share is None or not asking or not shared or sizes.classes < share.size:
        return None
    return share._replace(classes=sizes.classes)


class Objective(nn.Module):
    """The weighted terms of a recipe, and the modules they train or hold beside the student.

    The inherited classifier is a buffer that no optimizer ever sees. Where a projector to
    the teacher's width will not be part of the student, it is held here: losses that compare with the teacher's
    embedding or use its classifier see the student through it, all others see the student as it will be used.

    Args:
        losses: The recipe's losses.
        sizes: What they are for.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``, where a term needs it.

    Attributes:
        notes: What a user should know of how the losses were set up.
        share: Of the classifier the losses stand on, the classes this process holds; None where it holds all.

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
        self.projector = linear_projector(sizes.embedding_size, sizes.teacher_size) if sizes.projected else None
        self.projected = in_teacher_space(self.losses) if sizes.projected else frozenset()
        self.share = shared_classes(self.losses, sizes)
        self.parts = nn.ModuleDict()
        held = None if self.share is None else self.share.of(sizes.classes)
        if any_needs(self.losses, "own_classifier"):
            self.own = MarginClassifier(sizes.classes, sizes.embedding_size, held)
        if teacher_class_weights is not None:
            self.inherited = FrozenClassifier(teacher_class_weights)
            if held is not None and self.own is None:
                self.inherited.keep(held)
        wide = replace(sizes, embedding_size=sizes.teacher_size)
        for loss in self.losses:
            part = part_of(loss, wide if loss.name in self.projected else sizes)
            if part is not None:
                self.parts[loss.name] = part
                self.notes += getattr(part, "notes", [])
        self._check(sizes.teacher_size if sizes.projected else sizes.embedding_size)

    @property
    def head(self) -> VarianceHead | None:
        """The head that says how sure the student is, where a term trains one on the embedding that is deployed."""
        read = {name: part for name, part in self.parts.items() if name not in self.projected}
        heads = [part.head for part in read.values() if isinstance(part, Variance | Uncertainty)]
        return heads[0] if heads else None

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

    @property
    def split(self) -> str | None:
        """The tensor of its state that each process has its own part of, where there is one."""
        return OWN if self.share is not None and self.own is not None else None

    def gradients(self) -> dict[str, Tensor]:
        """The gradients there are, by the names of the state; of a sample of the classes that of its rows."""
        found = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
        sample = self._sample
        return found if sample is None or sample.gradient is None else found | {OWN: sample.gradient}

    def among_learning(self, optimizer: Optimizer) -> AbstractContextManager[None]:
        """A block for the step of the optimizer, which sees of a sample of the classes the rows of these alone."""
        if self.own is None or self._sample is None:
            return nullcontext()
        return self._sample.among_drawn(optimizer, self.own.class_weights)

    @property
    def _sample(self) -> Sample | None:
        return next((part for part in self.parts.values() if isinstance(part, Sample)), None)

    def told(self) -> dict[str, dict[str, float]]:
        """What parts have measured beside the losses, by loss name."""
        parts = {name: part.told() for name, part in self.parts.items() if isinstance(part, Candidates)}
        return {name: told for name, told in parts.items() if told}

    def begun(self, step: int) -> list[Loss]:
        """The losses that have begun by a 0-based step; one whose own weight is 0 is watched all along."""
        epoch = step / self.steps_per_epoch
        return [loss for loss in self.losses if loss.weight == 0 or loss.weight_at(epoch) > 0]

    def _views(self, outputs: StepOutputs, step: int) -> dict[str, StepOutputs]:
        """What each loss is given, by its name: the student as it should see it, and the fields of its part."""
        wide = outputs
        if self.projector is not None:
            given = {name: getattr(outputs, name) for name in OF_STUDENT}
            wide = replace(outputs, **{name: self.projector(x) for name, x in given.items() if x is not None})
        views = {loss.name: wide if loss.name in self.projected else outputs for loss in self.losses}
        return {
            name: replace(seen, **self.parts[name](seen, step)) if name in self.parts else seen
            for name, seen in views.items()
        }

    def forward(self, outputs: StepOutputs, step: int) -> dict[str, Tensor]:
        """The weighted value of every term that has begun, by loss name; their sum is what is minimised.

        Args:
            outputs: What the step's networks gave; class weights and the fields of the parts are added here.
            step: 0-based step, which decides the phase of a warm-up.
        """
        inherited = None if self.inherited is None else self.inherited.class_weights
        own = inherited if self.own is None else self.own.class_weights
        share = outputs.class_share if self.own is None and self.share is None else self.share
        outputs = replace(outputs, class_weights=own, teacher_class_weights=inherited, class_share=share)
        views = self._views(outputs, step)
        terms: dict[str, Tensor] = {}
        for loss in self.begun(step):
            seen = views[loss.name]
            weight = loss.weight_at(step / self.steps_per_epoch)
            names = loss_inputs(loss.name)
            inputs = [_labelled(seen, name) if "labels" in names else getattr(seen, name) for name in names]
            terms[loss.name] = weight * LOSSES[loss.name](*inputs, **loss.loss_options())
        return terms
