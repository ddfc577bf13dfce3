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
    Pkt,
    Residual,
    Rkd,
    SharedHeadKD,
    Sp,
    Stkd,
    StkdSimilarity,
)
from facekd.recipe.subset_sections import SubsetKD, SubsetL2
from facekd.recipe.uncertainty_sections import Dul, DulRegression, Pad, PadLogit, PadRelation, Pfe

__all__ = [
    "SubsetKD",
    "SubsetL2",
    "classifies_subsets",
    "uses_subsets",
    "AdaDistill",
    "Cckd",
    "Cosine",
    "Dul",
    "DulRegression",
    "Ekd",
    "L2",
    "LOSS_OPTIONS",
    "LogitKD",
    "Loss",
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
    "chosen_classifier",
    "asks_about_images",
    "compares_elements",
    "learns_variance",
    "in_teacher_space",
    "takes_labels",
    "trains_assistant",
    "trains_classifier",
    "uses_teacher",
    "uses_teacher_classifier",
    "uses_teacher_embeddings",
    "uses_virtual_samples",
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


def uses_teacher_classifier(loss: Loss) -> bool:
    """Whether a loss needs the teacher's class weights.

    Example:
        >>> uses_teacher_classifier(LogitKD(name="logit_kd")), uses_teacher_classifier(L2(name="l2"))
        (True, False)
    """
    return "teacher_classifier" in loss.needs()


def uses_teacher_embeddings(loss: Loss) -> bool:
    """Whether a loss needs the teacher's embedding of each image.

    Example:
        >>> uses_teacher_embeddings(L2(name="l2"))
        True
        >>> uses_teacher_embeddings(MarginSoftmax(name="margin_softmax", class_weights="teacher"))
        False
    """
    return "teacher_embeddings" in loss.needs()


def trains_classifier(loss: Loss) -> bool:
    """Whether a loss needs a classifier that is trained beside the student.

    Example:
        >>> trains_classifier(MarginSoftmax(name="margin_softmax")), trains_classifier(L2(name="l2"))
        (True, False)
    """
    return "own_classifier" in loss.needs()


def chosen_classifier(loss: Loss) -> str | None:
    """``own`` or ``teacher`` for a loss that has that choice.

    Example:
        >>> chosen_classifier(MarginSoftmax(name="margin_softmax")), chosen_classifier(L2(name="l2"))
        ('own', None)
    """
    return getattr(loss, "class_weights", None)


def learns_variance(loss: Loss) -> bool:
    """Whether a loss trains a head that says how sure the student is.

    Example:
        >>> learns_variance(Pad(name="pad")), learns_variance(L2(name="l2"))
        (True, False)
    """
    return "variance_head" in loss.needs()


def compares_elements(loss: Loss) -> bool:
    """Whether a loss sets each element of the student's embedding against the teacher's, so that widths must agree.

    Example:
        >>> compares_elements(L2(name="l2")), compares_elements(Rkd(name="rkd"))
        (True, False)
    """
    return "equal_widths" in loss.needs()


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
    own = any(trains_classifier(loss) for loss in losses)
    return frozenset(
        loss.name
        for loss in losses
        if compares_elements(loss) or (not own and (uses_teacher_classifier(loss) or "any_classifier" in loss.needs()))
    )


def takes_labels(loss: Loss) -> bool:
    """Whether a loss looks at the identities of the images, and so skips blends of two people.

    Example:
        >>> takes_labels(Ekd(name="ekd")), takes_labels(L2(name="l2"))
        (True, False)
    """
    return "labels" in loss.needs()


def trains_assistant(loss: Loss) -> bool:
    """Whether a loss is about the student's assistant.

    Example:
        >>> trains_assistant(Residual(name="residual")), trains_assistant(L2(name="l2"))
        (True, False)
    """
    return "assistant" in loss.needs()


def uses_virtual_samples(loss: Loss) -> bool:
    """Whether a loss looks at mixtures of a step's images, which the student and the live teacher must embed.

    Example:
        >>> uses_virtual_samples(Stkd(name="stkd")), uses_virtual_samples(L2(name="l2"))
        (True, False)
    """
    return "virtual_samples" in loss.needs()


def asks_about_images(loss: Loss) -> bool:
    """Whether a loss needs the teacher's embeddings, of images or of mixtures of them.

    Example:
        >>> asks_about_images(Stkd(name="stkd")), asks_about_images(MarginSoftmax(name="margin_softmax"))
        (True, False)
    """
    return uses_teacher_embeddings(loss) or uses_virtual_samples(loss)


def uses_subsets(loss: Loss) -> bool:
    """Whether a loss asks the teachers of subsets.

    Example:
        >>> uses_subsets(SubsetL2(name="subset_l2")), uses_subsets(L2(name="l2"))
        (True, False)
    """
    return "subset_teachers" in loss.needs()


def classifies_subsets(loss: Loss) -> bool:
    """Whether a loss needs the class weights of the teachers of subsets.

    Example:
        >>> classifies_subsets(SubsetKD(name="subset_kd")), classifies_subsets(SubsetL2(name="subset_l2"))
        (True, False)
    """
    return "subset_classifiers" in loss.needs()
