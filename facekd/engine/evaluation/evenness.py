"""How evenly one model serves several groups of people: mean, spread and skewed error ratio, as for RFW's four.

Papers: Wang et al., "Racial Faces in the Wild: Reducing Racial Bias by Information Maximization Adaptation Network",
ICCV 2019; Wang and Deng, "Mitigating Bias in Face Recognition Using Skewness-Aware Reinforcement Learning", CVPR 2020
(standard deviation and skewed error ratio).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any


def evenness(rates: Sequence[float], errors: Sequence[float]) -> dict[str, float | None]:
    """How far apart the figures of two groups or more lie.

    Args:
        rates: One a group.
        errors: The share that each group is served wrongly; of an error rate, the same.

    Returns:
        ``mean``; ``std``, divided by the number less one; ``spread``, the largest less the smallest; and
        ``skewed_error_ratio``, the largest error over the smallest: 1 where all fare alike, None where a group has no
        error.

    Example:
        >>> found = evenness([0.875, 0.75], [0.125, 0.25])
        >>> found["mean"], found["spread"], found["skewed_error_ratio"]
        (0.8125, 0.125, 2.0)
    """
    least = min(errors)
    return {
        "mean": mean(rates),
        "std": stdev(rates),
        "spread": max(rates) - min(rates),
        "skewed_error_ratio": max(errors) / least if least > 0 else None,
    }


def tpr_evenness(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The same of the TPRs at each FPR that every group can show, each at its own threshold.

    Args:
        results: One a group, entries of ``results`` in the JSON of ``facekd eval``.

    Returns:
        For each FPR what :func:`evenness` gives, with ``fpr`` and whether all groups are ``supported``.

    Example:
        >>> points = [{"fpr": 0.1, "tpr": tpr, "supported": True} for tpr in (0.5, 0.75)]
        >>> (found,) = tpr_evenness([{"tpr_at_fpr": [point]} for point in points])
        >>> found["fpr"], found["spread"], found["skewed_error_ratio"], found["supported"]
        (0.1, 0.25, 2.0, True)
    """
    by_fpr = [{point["fpr"]: point for point in result["tpr_at_fpr"]} for result in results]
    found = []
    for fpr in by_fpr[0]:
        points = [own[fpr] for own in by_fpr if fpr in own]
        if len(points) == len(results):
            tprs = [point["tpr"] for point in points]
            supported = all(point["supported"] for point in points)
            found.append({"fpr": fpr, **evenness(tprs, [1 - tpr for tpr in tprs]), "supported": supported})
    return found


def told(even: Mapping[str, Any], what: str) -> str:
    """What :func:`evenness` gives, in words.

    Args:
        even: The figures.
        what: ``set`` or ``group``.

    Example:
        >>> told(evenness([0.875, 0.75], [0.125, 0.25]), "group")
        '0.8125 +- 0.0884, spread 0.1250, largest error 2.00 times the smallest'
    """
    ratio = even["skewed_error_ratio"]
    errors = f"one {what} without an error" if ratio is None else f"largest error {ratio:.2f} times the smallest"
    return f"{even['mean']:.4f} +- {even['std']:.4f}, spread {even['spread']:.4f}, {errors}"


def told_tprs(head: str, points: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    """What :func:`tpr_evenness` gives, a line an FPR.

    Args:
        head: Of which model, of what.
        points: The figures.
        what: ``set`` or ``group``.

    Example:
        >>> told_tprs("m", [{"fpr": 1e-3, "supported": False, **evenness([0.5, 0.5], [0.5, 0.5])}], "set")
        ['m, TPR @ 0.001*: 0.5000 +- 0.0000, spread 0.0000, largest error 1.00 times the smallest']
    """
    stars = ["" if point["supported"] else "*" for point in points]
    rates = [f"{point['fpr']:g}".replace("e-0", "e-") for point in points]
    return [f"{head}, TPR @ {r}{s}: {told(p, what)}" for r, s, p in zip(rates, stars, points, strict=True)]
