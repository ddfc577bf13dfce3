"""Losses that look at the embedding through a classifier: margin softmax, and distillation of its logits.

``margin_softmax`` has twelve parameters because each is a field of the step or a key of a recipe, under the same name.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import torch
from torch import Tensor

from facekd.losses.candidates import Neighbours, own_and_candidates
from facekd.losses.class_blocks import ClassShare, entropy_against, own_and_others
from facekd.losses.common import check_classifier, check_positive, on_the_machine, sine_of, unit_rows, widen

KINDS = ("arcface", "cosface", "combined")
PAST_PI = ("linear", "easy", "none")
MARGIN_GRADIENTS = ("exact", "passthrough")


def cosine_logits(embeddings: Tensor, class_weights: Tensor) -> Tensor:
    """Cosine of every embedding to every class.

    Autocast is switched off inside: float32 embeddings stay float32, whatever the caller's precision.

    Args:
        embeddings: Raw embeddings, ``(batch, dim)``.
        class_weights: One row per class, ``(classes, dim)``, of any length and any floating type.

    Returns:
        Cosines, ``(batch, classes)``, float32 or wider. Rounding may put them a little outside [-1, 1].

    Raises:
        ValueError: If the dimensions differ; the message names both.

    Example:
        >>> cosine_logits(torch.tensor([[0.0, 3.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])).tolist()
        [[0.0, 1.0]]
    """
    check_classifier("embeddings", embeddings, "class_weights", class_weights)
    with torch.autocast(embeddings.device.type, enabled=False):
        embeddings, class_weights = widen(embeddings, class_weights)
        return unit_rows(embeddings) @ unit_rows(class_weights).T


def apply_margin(
    cosine: Tensor,
    *,
    margin: float = 0.5,
    kind: str = "arcface",
    past_pi: str = "linear",
    margin_cosine: float = 0.0,
    margin_multiplier: float = 1.0,
) -> Tensor:
    """Make the cosine to an image's own class harder to satisfy.

    With theta the angle, m the margin, k the multiplier, c the margin on the cosine, and theta_b = (pi - m) / k the
    angle past which the enlarged angle exceeds pi:

    ========== =======================
    kind       cosine becomes
    ========== =======================
    arcface    cos(theta + m)
    cosface    cos(theta) - m
    combined   cos(k theta + m) - c
    ========== =======================

    ``past_pi`` says what ``arcface`` and ``combined`` do where the enlarged angle would turn the cosine up again:

    * ``linear``: where theta >= theta_b, cos(theta) - d sin(theta_b) - c, with d = pi - theta_b. For arcface that is
      cos(theta) - m sin(pi - m). Falls with theta everywhere; steps down at theta_b, by 0.117 for m = 0.5.
    * ``easy``: where cos(theta) <= 0, cos(theta) itself, no margin at all.
    * ``none``: the formula of the table everywhere, so that the worst images see their penalty shrink.

    The angle is enlarged as cos(theta) cos(m) - sin(theta) sin(m), without an arccosine, and sin(theta) has gradient
    0 at cosine 1 and -1, and beyond them where rounding can put a cosine: value and gradient are finite everywhere.

    Args:
        cosine: Cosines of the images to their own classes, any shape.
        margin: In radians, 0 <= margin < pi / 2; for ``cosface`` in units of cosine, 0 <= margin < 2.
        kind: ``arcface``, ``cosface`` or ``combined``.
        past_pi: ``linear``, ``easy`` or ``none``; ``cosface`` has no angle to enlarge and takes only the default.
        margin_cosine: Subtracted from the cosine, 0 <= margin_cosine < 2; ``combined`` only.
        margin_multiplier: Factor on the angle, at least 1; ``combined`` only.

    Returns:
        Cosines after the margin, shape of ``cosine``.

    Raises:
        ValueError: If an option is out of its range, would be ignored by ``kind``, or ``linear`` would not fall.

    Example:
        At a right angle, arcface gives cos(pi / 2 + 0.5) = -sin(0.5), cosface gives -0.5.

        >>> right_angle = torch.zeros(1)
        >>> round(float(apply_margin(right_angle)), 4)
        -0.4794
        >>> float(apply_margin(right_angle, kind="cosface"))
        -0.5
    """
    _check_choice("kind", kind, KINDS)
    _check_choice("past_pi", past_pi, PAST_PI)
    (cosine,) = widen(cosine)
    if kind != "combined" and (margin_cosine != 0.0 or margin_multiplier != 1.0):
        raise ValueError(f"margin_cosine and margin_multiplier have no effect with kind {kind}; use kind combined")
    if kind == "cosface":
        _check_range("margin", margin, 0.0, 2.0, "a cosine")
        if past_pi != "linear":
            raise ValueError(f"past_pi {past_pi} has no effect with kind cosface; leave it out")
        return cosine - margin
    _check_range("margin", margin, 0.0, math.pi / 2, "radians")
    _check_range("margin_cosine", margin_cosine, 0.0, 2.0, "a cosine")
    _check_range("margin_multiplier", margin_multiplier, 1.0, math.inf, "a factor on the angle")
    enlarged = _enlarge_angle(cosine, margin, margin_multiplier) - margin_cosine
    if past_pi == "none":
        return enlarged
    if past_pi == "easy":
        return torch.where(cosine > 0.0, enlarged, cosine)
    boundary = (math.pi - margin) / margin_multiplier
    drop = (math.pi - boundary) * math.sin(boundary)
    if math.cos(boundary) - drop > -1.0 + 1e-12:
        raise ValueError(
            f"margin_multiplier {margin_multiplier} with margin {margin} makes past_pi linear step up at "
            f"{boundary:.3f} radians; lower one of them, or use past_pi none"
        )
    return torch.where(cosine > math.cos(boundary), enlarged, cosine - drop - margin_cosine)


def margin_softmax(
    student: Tensor,
    class_weights: Tensor,
    labels: Tensor,
    neighbours: Neighbours | None = None,
    class_share: ClassShare | None = None,
    *,
    margin: float = 0.5,
    scale: float = 64.0,
    kind: str = "arcface",
    past_pi: str = "linear",
    margin_gradient: str = "exact",
    margin_cosine: float = 0.0,
    margin_multiplier: float = 1.0,
) -> Tensor:
    """Classify identities by cosine, with a margin the right class has to win by.

    Deng et al., "ArcFace", CVPR 2019, arXiv 1801.07698; Wang et al., "CosFace", CVPR 2018, arXiv 1801.09414.
    With the teacher's own classifier as ``class_weights``, kept fixed, it is our reading of Shi et al., "ProxylessKD",
    arXiv 2011.00265, whose body was not at hand: labels only, no distance to the teacher. See :func:`apply_margin` for
    the kinds and ``past_pi``. Logits are never held: see :mod:`facekd.losses.class_blocks`. It can be differentiated
    once.

    ``margin_gradient`` says what the right class's logit passes back. ``exact`` is the derivative of the formula.
    ``passthrough`` keeps the value and passes back the gradient of the plain cosine, leaving out the factor
    sin(theta + m) / sin(theta): many public ArcFace teachers were trained that way, by changing logits in place.

    Args:
        student: Raw student embeddings, ``(batch, dim)``.
        class_weights: One row per class, ``(classes, dim)``. Receives a gradient if it asks for one. They may be a
            sample of all classes, which biases the loss: see :mod:`facekd.losses.sampling`.
        labels: Index of each image's class, ``(batch,)``, integers in [0, classes); see :func:`check_labels`.
        neighbours: The candidates of each class of a frozen classifier; the softmax is taken among them and the own
            class alone. See :mod:`facekd.losses.candidates` for what that leaves out.
        class_share: The classes this process sums over, where others do the rest; has no effect on candidates.
        margin: In radians, 0 <= margin < pi / 2; for ``cosface`` in units of cosine, 0 <= margin < 2.
        scale: Factor from cosine to logit, greater than 0.
        kind: ``arcface``, ``cosface`` or ``combined``.
        past_pi: ``linear``, ``easy`` or ``none``; ``cosface`` takes only the default.
        margin_gradient: ``exact`` or ``passthrough``; ``cosface``, where they are one, takes only the default.
        margin_cosine: Subtracted from the cosine, 0 <= margin_cosine < 2; ``combined`` only.
        margin_multiplier: Factor on the angle, at least 1; ``combined`` only.

    Returns:
        Mean cross-entropy over the batch in nats, shape ``()``, float32 or wider.

    Raises:
        ValueError: If sizes do not agree, a label is out of range, or an option is out of range or would be ignored.

    Example:
        Each image sits on its own class, at a right angle to the other: logits 1 and 0, so ln(1 + 1 / e). A cosine
        margin of 0.5 makes that ln(1 + e^-0.5).

        >>> corners, labels = torch.eye(2), torch.tensor([0, 1])
        >>> round(float(margin_softmax(corners, corners, labels, margin=0.0, scale=1.0)), 4)
        0.3133
        >>> round(float(margin_softmax(corners, corners, labels, scale=1.0, kind="cosface")), 4)
        0.4741
    """
    check_positive("scale", scale)
    _check_choice("margin_gradient", margin_gradient, MARGIN_GRADIENTS)
    if kind == "cosface" and margin_gradient != "exact":
        raise ValueError(f"margin_gradient {margin_gradient} has no effect with kind cosface; leave it out")
    in_all = None if class_share is None else class_share.classes
    if in_all is None or len(class_weights):  # of a sample of all classes, a process may hold none
        check_classifier("student", student, "class_weights", class_weights)
    check_labels(labels, len(student), len(class_weights) if in_all is None else in_all)
    if neighbours is None:
        own, others = own_and_others(student, class_weights, labels, scale=scale, share=class_share)
    else:
        own, others = own_and_candidates(student, class_weights, labels, neighbours, scale=scale)
    target = apply_margin(
        own,
        margin=margin,
        kind=kind,
        past_pi=past_pi,
        margin_cosine=margin_cosine,
        margin_multiplier=margin_multiplier,
    )
    if margin_gradient == "passthrough":
        target = target.detach() + (own - own.detach())
    return entropy_against(others, scale * target)


def _enlarge_angle(cosine: Tensor, margin: float, multiplier: float) -> Tensor:
    sine = sine_of(cosine)
    if multiplier != 1.0:
        angle = multiplier * torch.atan2(sine, cosine)
        cosine, sine = angle.cos(), angle.sin()
    return cosine * math.cos(margin) - sine * math.sin(margin)


def _check_choice(name: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise ValueError(f"{name} is {value!r}, expected one of {', '.join(choices)}")


def _check_range(name: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value < high:
        raise ValueError(f"{name} is {value}, expected {low:g} <= {name} < {high:.6g} ({unit})")


def check_labels(labels: Tensor, batch: int, classes: int) -> None:
    """Refuse labels that are not one class an image.

    Values on an accelerator are not looked at, for that would wait for it; it stops at one out of range by itself.

    Args:
        labels: To be integers ``(batch,)`` in [0, classes).
        batch: Images.
        classes: Rows of the classifier.

    Raises:
        ValueError: If they are of another type or shape, or one is out of range.

    Example:
        >>> check_labels(torch.tensor([0, 5]), 2, 3)
        Traceback (most recent call last):
        ValueError: label 5 is outside the 3 classes of class_weights
    """
    if labels.dim() != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels are {labels.dtype} of shape {tuple(labels.shape)}, expected integers (batch,)")
    if labels.shape[0] != batch:
        raise ValueError(f"student has {batch} rows, labels {labels.shape[0]}; one label per image")
    if not on_the_machine(labels):
        return
    lowest, highest = (int(extreme) for extreme in labels.aminmax())
    if lowest < 0 or highest >= classes:
        wrong = lowest if lowest < 0 else highest
        raise ValueError(f"label {wrong} is outside the {classes} classes of class_weights")
