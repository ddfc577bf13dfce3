"""The 95 % intervals that have no column of their own in the tables of ``facekd eval``, and why some are missing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def interval_lines(results: Iterable[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """A line for each result with intervals beside those of its TPRs, and one for each reason that some have none.

    Args:
        results: What each is of, in words, and its entry in the JSON.

    Example:
        >>> found = {"accuracy": None, "auc_ci95": [0.5, 0.75], "eer": {"ci95": [0.25, 0.5]}}
        >>> list(interval_lines([("m on s", found)]))
        ['m on s, 95 %: AUC 0.50000-0.75000, EER 0.2500-0.5000']
    """
    reasons: dict[tuple[str, str], None] = {}
    for head, result in results:
        told = [f"{what} {low:.{digits}f}-{high:.{digits}f}" for what, digits, (low, high) in _intervals(result)]
        if told:
            yield f"{head}, 95 %: {', '.join(told)}"
        if "no_interval" in result:
            reasons.setdefault((result["set"], result["no_interval"]), None)
    for name, reason in reasons:
        yield f"no 95 % interval on {name} where none is told: {reason}"


def _intervals(result: Mapping[str, Any]) -> Iterator[tuple[str, int, list[float]]]:
    """What each interval is of, in words, to how many digits it is told, and the interval."""
    found = [("accuracy", 4, (result["accuracy"] or {}).get("ci95")), ("AUC", 5, result.get("auc_ci95"))]
    found += [("EER", 4, (result["eer"] or {}).get("ci95"))]
    for key, name in (("rank_ci95", "rank"), ("rank_merged_ci95", "merged rank")):
        found += [(f"{name} {rank}", 4, interval) for rank, interval in (result.get(key) or {}).items()]
    for point in result.get("tpir_at_fpir", ()):
        rate = f"{point['fpir']:g}".replace("e-0", "e-")
        found += [(f"TPIR ({point['definition']}) @ {rate}", 4, point["ci95"])]
    yield from ((what, digits, interval) for what, digits, interval in found if interval)
