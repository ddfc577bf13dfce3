"""The losses a recipe may name, and what each needs of a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, get_args

from pydantic import Field

from facekd.recipe.loss_sections import (
    L2,
    AdaDistill,
    Cckd,
    Cosine,
    Ekd,
    LogitKD,
    MarginDistillation,
    MarginSoftmax,
    Need,
    Pkt,
    Residual,
    Rkd,
    SharedHeadKD,
    Sp,
)
from facekd.recipe.mixup_sections import Stkd, StkdSimilarity
from facekd.recipe.subset_sections import SubsetKD, SubsetL2
from facekd.recipe.uncertainty_sections import Dul, DulRegression, Pad, PadLogit, PadRelation, Pfe

__all__ = [
    "AdaDistill",
    "Cckd",
    "Cosine",
    "Dul",
    "DulRegression",
    "Ekd",
    "L2",
    "LogitKD",
    "Loss",
    "LOSS_OPTIONS",
    "LossOptions",
    "MarginDistillation",
    "MarginSoftmax",
    "Pad",
    "PadLogit",
    "PadRelation",
    "Pfe",
    "Pkt",
    "Residual",
    "Rkd",
    "SharedHeadKD",
    "Sp",
    "Stkd",
    "StkdSimilarity",
    "SubsetKD",
    "SubsetL2",
    "any_needs",
    "asks_about_images",
    "chosen_classifier",
    "in_teacher_space",
    "sampled_rate",
    "sees_own_classifier",
    "uses_teacher",
]

Loss = (
    MarginSoftmax
    | L2
    | Cosine
    | LogitKD
    | Pad
    | Cckd
    | Rkd
    | Pkt
    | Sp
    | Ekd
    | AdaDistill
    | MarginDistillation
    | SharedHeadKD
    | Residual
    | Stkd
    | StkdSimilarity
    | PadLogit
    | PadRelation
    | Dul
    | DulRegression
    | Pfe
    | SubsetKD
    | SubsetL2
)

LossOptions = Annotated[Loss, Field(discriminator="name")]

LOSS_OPTIONS: tuple[type[Loss], ...] = get_args(Loss)


def uses_teacher(loss: Loss) -> bool:
    """Whether a loss needs a teacher at all.

    Example:
        >>> uses_teacher(L2(name="l2")), uses_teacher(MarginSoftmax(name="margin_softmax"))
        (True, False)
    """
    return not loss.needs().isdisjoint({"teacher_embeddings", "teacher_classifier", "virtual_samples"})


def any_needs(losses: Iterable[Loss], need: Need) -> bool:
    """Whether some loss asks for this of a run.

    Example:
        >>> losses = [LogitKD(name="logit_kd"), L2(name="l2")]
        >>> any_needs(losses, "teacher_classifier"), any_needs(losses, "labels")
        (True, False)
    """
    return any(need in loss.needs() for loss in losses)


def chosen_classifier(loss: Loss) -> str | None:
    """``own`` or ``teacher`` for a loss that has that choice.

    Example:
        >>> chosen_classifier(MarginSoftmax(name="margin_softmax")), chosen_classifier(L2(name="l2"))
        ('own', None)
    """
    return getattr(loss, "class_weights", None)


def sampled_rate(losses: Iterable[Loss]) -> float:
    """The share of its classes that a softmax among some losses runs over in a step.

    Example:
        >>> sampled_rate([L2(name="l2")]), sampled_rate([MarginSoftmax(name="margin_softmax", sample_rate=0.1)])
        (1.0, 0.1)
    """
    return min((loss.sample_rate for loss in losses if isinstance(loss, MarginSoftmax)), default=1.0)


def sees_own_classifier(loss: Loss) -> bool:
    """Whether a loss looks at the classifier in training, in a run that has one.

    Example:
        >>> sees_own_classifier(LogitKD(name="logit_kd")), sees_own_classifier(SharedHeadKD(name="shared_head_kd"))
        (True, False)
    """
    needs = loss.needs()
    both = "teacher_classifier" in needs and "equal_widths" not in needs
    return both or not needs.isdisjoint({"own_classifier", "any_classifier"})


def in_teacher_space(losses: Iterable[Loss]) -> frozenset[str]:
    """Names of the losses that need the student's embedding in the space of the teacher's.

    These compare it with the teacher's embedding or put the teacher's classifier on it. All others look at the
    student's embedding as it will be used: relations between images, and the student's own classifier.

    Args:
        losses: All losses of a recipe.

    Example:
        >>> own, teacher = (MarginSoftmax(name="margin_softmax", class_weights=whose) for whose in ("own", "teacher"))
        >>> sorted(in_teacher_space([own, LogitKD(name="logit_kd"), L2(name="l2")]))
        ['l2']
        >>> sorted(in_teacher_space([teacher, LogitKD(name="logit_kd"), Rkd(name="rkd")]))
        ['logit_kd', 'margin_softmax']
    """
    losses = tuple(losses)
    own = any_needs(losses, "own_classifier")
    return frozenset(
        loss.name
        for loss in losses
        if "equal_widths" in loss.needs()
        or (not own and ("teacher_classifier" in loss.needs() or "any_classifier" in loss.needs()))
    )


def asks_about_images(loss: Loss) -> bool:
    """Whether a loss needs the teacher's embeddings, of images or of mixtures of them.

    Example:
        >>> asks_about_images(Stkd(name="stkd")), asks_about_images(MarginSoftmax(name="margin_softmax"))
        (True, False)
    """
    return "teacher_embeddings" in loss.needs() or "virtual_samples" in loss.needs()
