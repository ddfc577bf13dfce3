"""Distillation on virtual samples: mixtures of two training images that the teacher sees as the student does.

``stkd`` has nine parameters because six are what a step produces and three are keys of a recipe.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from facekd.losses.classifier import cosine_logits
from facekd.losses.common import check_classifier, check_embeddings, check_positive, on_the_machine
from facekd.losses.logits import divergence


def stkd(
    virtual_student: Tensor,
    virtual_teacher: Tensor,
    virtual_labels: Tensor,
    virtual_shares: Tensor,
    class_weights: Tensor,
    teacher_class_weights: Tensor,
    *,
    scale: float = 64.0,
    temperature: float = 4.0,
    label_weight: float = 1.0,
) -> Tensor:
    """Match the teacher's class probabilities on mixtures of two images, and the mixture of their labels.

    Zhao et al., "Similarity Transfer for Knowledge Distillation", 2021, arXiv 2103.10047, in our reading: the paper's
    body was not at hand. With ``y = share onehot(first) + (1 - share) onehot(second)`` and logits ``scale cos``,

        label_weight CE(student, y) + T^2 KL(teacher || student at temperature T).

    No margin is put on a virtual sample: a mixture belongs to two classes, and the weighted sum of two margin losses
    is not the cross-entropy of the mixed label. In training the mixtures are as many as the labelled images of a step;
    where these do not divide among several processes, the last few mixtures are left out.

    Args:
        virtual_student: Raw student embeddings of the mixtures, ``(virtual, dim)``.
        virtual_teacher: Raw teacher embeddings of the same pixels, ``(virtual, teacher_dim)``. Receives no gradient.
        virtual_labels: The classes of the two images of each, integers ``(virtual, 2)``.
        virtual_shares: Share of the first image, in [0, 1], ``(virtual,)``.
        class_weights: The student's classifier, ``(classes, dim)``.
        teacher_class_weights: The teacher's classifier, ``(classes, teacher_dim)``. Receives no gradient.
        scale: Factor from cosine to logit, greater than 0, for both.
        temperature: Divides the logits of the divergence, greater than 0; its square keeps gradients of one size.
        label_weight: Factor of the cross-entropy, 0 or more.

    Returns:
        The weighted sum in nats, mean over the virtual samples, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, a label or share is out of range, or a hyper-parameter is.

    Example:
        Half of each of two classes, at 45 degrees to both, for teacher and student alike: ln 2 of cross-entropy.

        >>> middle, classes = torch.ones(1, 2), torch.eye(2)
        >>> half, both = torch.tensor([0.5]), torch.tensor([[0, 1]])
        >>> round(float(stkd(middle, 3 * middle, both, half, classes, classes)), 4)
        0.6931
    """
    check_positive("scale", scale)
    check_positive("temperature", temperature)
    if not label_weight >= 0:
        raise ValueError(f"label_weight is {label_weight}, expected 0 or more")
    check_classifier("virtual_student", virtual_student, "class_weights", class_weights)
    check_classifier("virtual_teacher", virtual_teacher, "teacher_class_weights", teacher_class_weights)
    _check_mixtures(virtual_labels, virtual_shares, len(virtual_student), len(class_weights))
    cosines = cosine_logits(virtual_student, class_weights)
    others = cosine_logits(virtual_teacher.detach(), teacher_class_weights.detach())
    apart = temperature**2 * divergence(scale / temperature * cosines, scale / temperature * others)
    return (
        apart if label_weight == 0 else label_weight * _entropy(scale * cosines, virtual_labels, virtual_shares) + apart
    )


def stkd_similarity(
    student: Tensor, teacher: Tensor, virtual_student: Tensor, virtual_teacher: Tensor, *, temperature: float = 0.1
) -> Tensor:
    """Match how alike each mixture of two images is to every image of the batch, as the teacher sees it.

    Zhao et al., "Similarity Transfer for Knowledge Distillation", 2021, arXiv 2103.10047: our reading for faces, where
    the classes are the images of the batch. For a virtual sample ``v`` the teacher's similarities are
    ``q_k = softmax_k(cos(t_v, t_k) / T)``, the student's ``p_k`` likewise; the value is the mean of ``KL(q || p)``.
    No label and no classifier is needed, and the widths may differ. Among several processes the mixtures are shared
    out as for :func:`stkd`.

    Args:
        student: Raw student embeddings of the batch, ``(batch, dim)``.
        teacher: Raw teacher embeddings of the same images, ``(batch, teacher_dim)``. Receives no gradient.
        virtual_student: Raw student embeddings of the mixtures, ``(virtual, dim)``.
        virtual_teacher: Raw teacher embeddings of the same pixels, ``(virtual, teacher_dim)``. Receives no gradient.
        temperature: In units of cosine, greater than 0; the smaller, the fewer images count.

    Returns:
        Divergence in nats, mean over the virtual samples, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, the batch holds one image, or ``temperature`` is not positive.

    Example:
        >>> batch, mixed = torch.eye(3), torch.tensor([[0.7, 0.3, 0.0]])
        >>> float(stkd_similarity(batch, 2 * batch, mixed, 3 * mixed))
        0.0
    """
    check_positive("temperature", temperature)
    for name, rows in (("student", student), ("teacher", teacher)):
        check_embeddings(name, rows)
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(f"student has {len(student)} rows, teacher {len(teacher)}; the same number, 2 or more")
    check_classifier("virtual_student", virtual_student, "student", student)
    check_classifier("virtual_teacher", virtual_teacher, "teacher", teacher)
    one = cosine_logits(virtual_student, student)
    other = cosine_logits(virtual_teacher.detach(), teacher.detach())
    return divergence(one / temperature, other / temperature)


def _entropy(logits: Tensor, labels: Tensor, shares: Tensor) -> Tensor:
    """Mean cross-entropy against mixtures of two labels."""
    with torch.autocast(logits.device.type, enabled=False):
        first, second = (F.cross_entropy(logits, column, reduction="none") for column in labels.long().T)
        shares = shares.to(first)
        return (shares * first + (1.0 - shares) * second).mean()


def _check_mixtures(labels: Tensor, shares: Tensor, count: int, classes: int) -> None:
    if labels.shape != (count, 2) or labels.is_floating_point() or labels.dtype == torch.bool:
        shape = tuple(labels.shape)
        raise ValueError(f"virtual_labels are {labels.dtype} of shape {shape}, expected integers ({count}, 2)")
    if shares.shape != (count,):
        raise ValueError(f"virtual_shares have shape {tuple(shares.shape)}, expected ({count},)")
    if not on_the_machine(labels):
        return
    lowest, highest = (int(extreme) for extreme in labels.aminmax())
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"virtual_labels hold {wrong}, expected 0 to {classes - 1}")
    if not bool(((shares >= 0) & (shares <= 1)).all()):
        raise ValueError("virtual_shares hold a value outside [0, 1]")
