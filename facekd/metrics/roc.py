"""Operating points, area under the curve and equal error rate of genuine and impostor scores, exact under ties.

One rule everywhere: a pair is accepted when its score >= threshold, so equal scores are accepted or rejected together.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from facekd.metrics.allowed import allowed_accepts, enough_to_allow, needed_impostors
from facekd.metrics.scores import Scores, Stretch, above, both_sides, given_precision, rank


@dataclass(frozen=True)
class OperatingPoint:
    """The largest TPR whose FPR does not exceed ``fpr``, and what it rests on.

    Attributes:
        fpr: The FPR asked for.
        tpr: Share of genuine scores >= threshold.
        threshold: The lowest accepted score; the next number above every score when nothing can be accepted.
        attained_fpr: Share of impostor scores >= threshold, failed ones none of them; never above ``fpr``.
        false_accepts: Impostor scores >= threshold; comparisons that failed are none.
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
        failed: Impostor comparisons that failed, where those are more than the FPR allows to be accepted.

    Example:
        >>> operating_points([1.0], [0.0, 0.1], [0.25])[1]
        [Refused(fpr=0.25, impostors=2, needed=12, failed=0)]
    """

    fpr: float
    impostors: int
    needed: int
    failed: int = 0


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


def operating_points(
    genuine: Scores, impostor: Scores, fprs: Sequence[float], *, failed: int = 0
) -> tuple[list[OperatingPoint], list[Refused]]:
    """The largest TPR at each FPR, or a refusal where the impostors are too few to say.

    Args:
        genuine: (g,) scores of pairs of one person.
        impostor: (i,) scores of pairs of two persons.
        fprs: Wanted FPRs, each in (0, 1).
        failed: How many of the impostor scores stand for comparisons that failed: the highest. Thresholds are chosen
            as if these were accepted by each; see :mod:`facekd.metrics.failures`.

    Returns:
        A point for each FPR of at least 3 / i, and a :class:`Refused` for each below, both in the order asked. An FPR
        that allows fewer than ``failed`` false accepts is refused as well.

    Raises:
        ValueError: An empty, non-finite or not one-dimensional side, or an FPR outside (0, 1).

    Example:
        >>> genuine, impostor = [0.9, 0.8, 0.5, 0.5], [0.7, 0.5, 0.4, 0.3, 0.2, 0.1]
        >>> points, refused = operating_points(genuine, impostor, [0.5, 0.1])
        >>> points[0].tpr, points[0].threshold, points[0].false_accepts  # 0.7, 0.5 and 0.4 are let in
        (1.0, 0.4, 3)
        >>> refused
        [Refused(fpr=0.1, impostors=6, needed=30, failed=0)]
    """
    precision = given_precision(genuine, impostor)
    genuine, impostor = both_sides(genuine, impostor)
    whole = Stretch(impostor, 0, impostor.numel())
    shown, refused = showable(fprs, whole.total, failed)
    return [point_within(genuine, whole, fpr, precision, failed) for fpr in shown], refused


def showable(fprs: Sequence[float], impostors: int, failed: int = 0) -> tuple[list[float], list[Refused]]:
    """The FPRs that so many impostor comparisons can show, and a refusal for each of the others.

    Args:
        fprs: Wanted FPRs.
        impostors: Impostor comparisons in all.
        failed: How many of them failed.

    Raises:
        ValueError: An FPR outside (0, 1).

    Example:
        >>> showable([0.1, 0.01], 50)
        ([0.1], [Refused(fpr=0.01, impostors=50, needed=300, failed=0)])
        >>> showable([0.1], 50, failed=6)
        ([], [Refused(fpr=0.1, impostors=50, needed=60, failed=6)])
    """
    wrong = [fpr for fpr in fprs if not 0 < fpr < 1]
    if wrong:
        raise ValueError(f"FPR {wrong[0]} is not between 0 and 1")
    shown, refused = [], []
    for fpr in fprs:
        if fpr < 3 / impostors:
            refused.append(Refused(fpr, impostors, needed_impostors(fpr)))
        elif allowed_accepts(fpr, impostors) < failed:
            refused.append(Refused(fpr, impostors, enough_to_allow(failed, fpr), failed))
        else:
            shown.append(fpr)
    return shown, refused


def point_within(
    genuine: Tensor, impostor: Stretch, fpr: float, precision: torch.dtype, failed: int = 0
) -> OperatingPoint:
    """One operating point, from the stretch of impostor scores in which the decision falls.

    Args:
        genuine: (g,) ascending scores.
        impostor: Holds the highest score that must be rejected and, where there are such, one above and one below it.
        fpr: In (0, 1).
        precision: In which the scores came.
        failed: How many impostor scores, the highest, stand for failed comparisons; no more than the FPR allows.

    Example:
        >>> whole = Stretch(torch.tensor([0.1, 0.2, 0.3, 0.4]), 0, 4)
        >>> point_within(torch.tensor([0.35, 0.5]), whole, 0.5, torch.float32).false_accepts
        2
    """
    total = impostor.total
    rejected = impostor.at(total - allowed_accepts(fpr, total) - 1)  # with it, too many would be accepted
    first_genuine, first_impostor = rank(genuine, rejected, right=True), impostor.rank(rejected, right=True)
    lowest = [genuine[first_genuine].item()] if first_genuine < genuine.numel() else []
    lowest += [impostor.at(first_impostor).item()] if first_impostor < total else []
    threshold = min(lowest) if lowest else above(rejected, precision).item()
    tpr = (genuine.numel() - first_genuine) / genuine.numel()
    false_accepts = total - first_impostor
    block = impostor.rank(rejected)
    beyond = (genuine.numel() - rank(genuine, impostor.at(block - 1), right=True)) / genuine.numel() if block else 1.0
    nearest = tpr if fpr - false_accepts / total < (total - block) / total - fpr else beyond
    told = false_accepts - failed
    return OperatingPoint(fpr, tpr, threshold, told / total, told, total, nearest, supported=fpr >= 30 / total)


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
    genuine, impostor = both_sides(genuine, impostor)
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
    precision = given_precision(genuine, impostor)
    genuine, impostor = both_sides(genuine, impostor)
    return eer_within(genuine, Stretch(impostor, 0, impostor.numel()), precision)


def eer_within(genuine: Tensor, impostor: Stretch, precision: torch.dtype) -> Eer:
    """The equal error rate, from the stretch of impostor scores in which the two rates cross.

    Args:
        genuine: (g,) ascending scores.
        impostor: At its first score no more may be missed than falsely accepted and at its last no less, unless it
            begins or ends with the whole list.
        precision: In which the scores came.

    Example:
        >>> eer_within(torch.tensor([0.3, 0.9]), Stretch(torch.tensor([0.1, 0.5]), 0, 2), torch.float32).value
        0.5
    """

    def errors(threshold: Tensor) -> tuple[int, int]:
        return rank(genuine, threshold), impostor.total - impostor.rank(threshold)

    def excess(scores: Tensor, at: int) -> int:
        missed, accepted = errors(scores[at])
        return missed * impostor.total - accepted * genuine.numel()

    first_inside = rank(genuine, impostor.values[0]) if impostor.below else 0
    last_inside = genuine.numel() if impostor.ends else rank(genuine, impostor.values[-1], right=True)
    last: list[Tensor] = []
    first = [above(torch.maximum(genuine[-1], impostor.values[-1]), precision)] if impostor.ends else []
    for scores in (genuine[first_inside:last_inside], impostor.values):
        places = range(scores.numel())
        last += scores[: bisect_right(places, 0, key=partial(excess, scores))][-1:]
        first += scores[bisect_left(places, 0, key=partial(excess, scores)) :][:1]
    sides = []
    for threshold in (max(last), min(first)):
        missed, accepted = errors(threshold)
        rates = missed / genuine.numel(), accepted / impostor.total
        sides.append((sum(rates), threshold.item(), min(rates), max(rates)))
    _, chosen, low, high = min(sides)
    return Eer((low + high) / 2, low, high, chosen)
