"""Operating points, area under the curve and equal error rate of genuine and impostor scores, exact under ties.

One rule everywhere: a pair is accepted when its score >= threshold, so equal scores are accepted or rejected together.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

Scores: TypeAlias = Tensor | np.ndarray | Sequence[float]
"""One score per pair: a 1-D tensor or array, or plain numbers (read as float64)."""


@dataclass(frozen=True)
class OperatingPoint:
    """The largest TPR whose FPR does not exceed ``fpr``, and what it rests on.

    Attributes:
        fpr: The FPR asked for.
        tpr: Share of genuine scores >= threshold.
        threshold: The lowest accepted score; the next number above every score when nothing can be accepted.
        attained_fpr: Share of impostor scores >= threshold, never above ``fpr``.
        false_accepts: Impostor scores >= threshold.
        impostors: Impostor scores in all.
        nearest_fpr_tpr: TPR where the FPR is nearest to ``fpr``, above it or not: for comparison with other tools.
        supported: Whether at least 30 false accepts may stand behind the threshold (``fpr >= 30 / impostors``).

    Example:
        >>> (point,), _ = operating_points([0.9, 0.8, 0.2, 0.1], [0.7, 0.6, 0.5, 0.4, 0.3], [0.6])
        >>> point.tpr, point.threshold, point.attained_fpr, point.false_accepts, point.supported
        (0.5, 0.5, 0.6, 3, False)
    """

    fpr: float
    tpr: float
    threshold: float
    attained_fpr: float
    false_accepts: int
    impostors: int
    nearest_fpr_tpr: float
    supported: bool


@dataclass(frozen=True)
class Refused:
    """An FPR that is too small for the comparisons there are.

    Attributes:
        fpr: The FPR asked for.
        impostors: Impostor scores in all.
        needed: Impostor scores that could show it.

    Example:
        >>> operating_points([1.0], [0.0, 0.1], [0.25])[1]
        [Refused(fpr=0.25, impostors=2, needed=12)]
    """

    fpr: float
    impostors: int
    needed: int


@dataclass(frozen=True)
class Eer:
    """The equal error rate, as a bracket.

    Attributes:
        value: The middle of the bracket.
        low: The smaller error rate at ``threshold``.
        high: The larger error rate at ``threshold``.
        threshold: Where the two rates are nearest.

    Example:
        >>> eer([0.9, 0.3], [0.5, 0.1]).value
        0.5
    """

    value: float
    low: float
    high: float
    threshold: float


def ascending(scores: Scores, name: str = "scores") -> Tensor:
    """The scores, checked and sorted; already sorted scores cost one pass.

    Args:
        scores: (n,) finite scores; half precision is widened to float32, which is exact.
        name: What to call them in an error.

    Raises:
        ValueError: None at all, not one-dimensional, or NaN or infinite.

    Example:
        >>> ascending([0.5, -1.0, 0.25]).tolist()
        [-1.0, 0.25, 0.5]
    """
    tensor = scores if isinstance(scores, Tensor) else torch.from_numpy(np.array(scores, dtype=_float_type(scores)))
    tensor = tensor.detach()
    if tensor.ndim != 1 or tensor.numel() == 0:
        raise ValueError(f"{name}: shape {tuple(tensor.shape)} where at least one score in one dimension is needed")
    if tensor.dtype not in (torch.float32, torch.float64):
        tensor = tensor.to(torch.float32 if tensor.is_floating_point() else torch.float64)
    bad = int((~torch.isfinite(tensor)).sum())
    if bad:
        raise ValueError(f"{name}: {bad} of {tensor.numel()} are NaN or infinite")
    return tensor if bool((tensor[1:] >= tensor[:-1]).all()) else tensor.sort().values


def allowed_accepts(fpr: float, impostors: int) -> int:
    """The largest count whose share of all impostors does not exceed an FPR, decided in float64.

    Args:
        fpr: In (0, 1).
        impostors: Impostor comparisons in all, or their weight.

    Example:
        >>> allowed_accepts(1e-3, 3000), allowed_accepts(1e-3, 2999)
        (3, 2)
    """
    count = math.floor(fpr * impostors)
    if count / impostors > fpr:
        return count - 1
    return count + 1 if (count + 1) / impostors <= fpr else count


def needed_impostors(fpr: float) -> int:
    """Impostor comparisons without which ``fpr`` cannot be shown: 3 / fpr.

    With no false accept among n comparisons the 95 % upper bound of the FPR is 3 / n.

    Args:
        fpr: In (0, 1).

    Example:
        >>> needed_impostors(1e-6)
        3000000
    """
    count = math.ceil(3 / fpr)
    return count - 1 if count > 1 and 3 / (count - 1) <= fpr else count


def operating_points(
    genuine: Scores, impostor: Scores, fprs: Sequence[float]
) -> tuple[list[OperatingPoint], list[Refused]]:
    """The largest TPR at each FPR, or a refusal where the impostors are too few to say.

    Args:
        genuine: (g,) scores of pairs of one person.
        impostor: (i,) scores of pairs of two persons.
        fprs: Wanted FPRs, each in (0, 1).

    Returns:
        A point for each FPR of at least 3 / i, and a :class:`Refused` for each below, both in the order asked.

    Raises:
        ValueError: An empty, non-finite or not one-dimensional side, or an FPR outside (0, 1).

    Example:
        >>> genuine, impostor = [0.9, 0.8, 0.5, 0.5], [0.7, 0.5, 0.4, 0.3, 0.2, 0.1]
        >>> points, refused = operating_points(genuine, impostor, [0.5, 0.1])
        >>> points[0].tpr, points[0].threshold, points[0].false_accepts  # 0.7, 0.5 and 0.4 are let in
        (1.0, 0.4, 3)
        >>> refused
        [Refused(fpr=0.1, impostors=6, needed=30)]
    """
    wrong = [fpr for fpr in fprs if not 0 < fpr < 1]
    if wrong:
        raise ValueError(f"FPR {wrong[0]} is not between 0 and 1")
    dtype = _common_type(genuine, impostor)
    genuine, impostor = _both(genuine, impostor)
    points, refused = [], []
    for fpr in fprs:
        if fpr < 3 / impostor.numel():
            refused.append(Refused(fpr, impostor.numel(), needed_impostors(fpr)))
        else:
            points.append(_point(genuine, impostor, fpr, dtype))
    return points, refused


def auc(genuine: Scores, impostor: Scores) -> float:
    """The chance that a genuine score beats an impostor score, a tie counting half: the area under the ROC curve.

    Args:
        genuine: (g,) scores.
        impostor: (i,) scores.

    Raises:
        ValueError: An empty, non-finite or not one-dimensional side.

    Example:
        >>> auc([0.9, 0.5], [0.5, 0.1])  # three wins and a draw of four
        0.875
    """
    genuine, impostor = _both(genuine, impostor)
    below = torch.searchsorted(impostor, genuine).sum().item()
    not_above = torch.searchsorted(impostor, genuine, right=True).sum().item()
    return (below + not_above) / (2 * genuine.numel() * impostor.numel())


def eer(genuine: Scores, impostor: Scores) -> Eer:
    """The error rate where misses equal false accepts, as the bracket finite data allow.

    No threshold may make the two rates equal. Of the last threshold with misses <= false accepts and the first with
    misses >= false accepts, the one with the smaller sum is reported.

    Args:
        genuine: (g,) scores.
        impostor: (i,) scores.

    Raises:
        ValueError: An empty, non-finite or not one-dimensional side.

    Example:
        >>> eer([0.9, 0.8, 0.7, 0.3], [0.6, 0.2, 0.1, 0.0])
        Eer(value=0.25, low=0.25, high=0.25, threshold=0.6)
        >>> eer([0.9, 0.4], [0.6, 0.2, 0.1])  # none missed, a third falsely accepted
        Eer(value=0.16666666666666666, low=0.0, high=0.3333333333333333, threshold=0.4)
    """
    dtype = _common_type(genuine, impostor)
    genuine, impostor = _both(genuine, impostor)

    def errors(threshold: Tensor) -> tuple[int, int]:
        return _rank(genuine, threshold, False), impostor.numel() - _rank(impostor, threshold, False)

    def excess(scores: Tensor, at: int) -> int:
        missed, accepted = errors(scores[at])
        return missed * impostor.numel() - accepted * genuine.numel()

    last: list[Tensor] = []
    first = [_above(torch.maximum(genuine[-1], impostor[-1]), dtype)]
    for scores in (genuine, impostor):
        places = range(scores.numel())
        last += scores[: bisect_right(places, 0, key=partial(excess, scores))][-1:]
        first += scores[bisect_left(places, 0, key=partial(excess, scores)) :][:1]
    sides = []
    for threshold in (max(last), min(first)):
        missed, accepted = errors(threshold)
        rates = missed / genuine.numel(), accepted / impostor.numel()
        sides.append((sum(rates), threshold.item(), min(rates), max(rates)))
    _, chosen, low, high = min(sides)
    return Eer((low + high) / 2, low, high, chosen)


def _point(genuine: Tensor, impostor: Tensor, fpr: float, dtype: torch.dtype) -> OperatingPoint:
    """One operating point of two ascending tensors; ``dtype`` is the precision the scores came in."""
    total = impostor.numel()
    rejected = impostor[total - allowed_accepts(fpr, total) - 1]  # with it, too many would be accepted
    first_genuine, first_impostor = _rank(genuine, rejected, True), _rank(impostor, rejected, True)
    lowest = [scores[at] for scores, at in ((genuine, first_genuine), (impostor, first_impostor)) if at < len(scores)]
    threshold = min(score.item() for score in lowest) if lowest else _above(rejected, dtype).item()
    tpr = (genuine.numel() - first_genuine) / genuine.numel()
    false_accepts = total - first_impostor
    block = _rank(impostor, rejected, False)
    beyond = (genuine.numel() - _rank(genuine, impostor[block - 1], True)) / genuine.numel() if block else 1.0
    nearest = tpr if fpr - false_accepts / total < (total - block) / total - fpr else beyond
    return OperatingPoint(
        fpr, tpr, threshold, false_accepts / total, false_accepts, total, nearest, supported=fpr >= 30 / total
    )


def _rank(scores: Tensor, value: Tensor, right: bool) -> int:
    return int(torch.searchsorted(scores, value, right=right))


def _above(score: Tensor, dtype: torch.dtype) -> Tensor:
    """The next number above ``score`` in the precision ``dtype``, in the precision of ``score``."""
    infinity = torch.tensor(math.inf, dtype=dtype, device=score.device)
    return torch.nextafter(score.to(dtype), infinity).to(score.dtype)


def _both(genuine: Scores, impostor: Scores) -> tuple[Tensor, Tensor]:
    left, right = ascending(genuine, "genuine scores"), ascending(impostor, "impostor scores")
    wider = torch.promote_types(left.dtype, right.dtype)
    return left.to(wider), right.to(wider)


def _float_type(scores: np.ndarray | Sequence[float]) -> np.dtype:
    given = np.asarray(scores).dtype
    return given if given in (np.float16, np.float32) else np.dtype(np.float64)


def _common_type(genuine: Scores, impostor: Scores) -> torch.dtype:
    """The precision the scores came in, before any widening."""
    given = []
    for scores in (genuine, impostor):
        dtype = scores.dtype if isinstance(scores, Tensor) else torch.from_numpy(np.empty(0, _float_type(scores))).dtype
        given.append(dtype if dtype.is_floating_point else torch.float64)
    return torch.promote_types(*given)
