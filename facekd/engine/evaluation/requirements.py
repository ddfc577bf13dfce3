"""Demands on an evaluation: ``tpr@1e-3>=0.95``, ``accuracy>=0.99``, ``auc>=0.999``, ``eer<=0.01``, ``rank@1>=0.9``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facekd.engine.evaluation.resolution_modes import describe_resolution
from facekd.errors import RequirementError, UsageError

NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
AT = rf"(tpr|tpir)\s*@\s*({NUMBER})|(rank)\s*@\s*([1-9][0-9]{{0,3}})|(accuracy|auc|eer)"
PATTERN = re.compile(rf"\s*(?:{AT})\s*(>=|<=)\s*({NUMBER})\s*")
FORMS = "'tpr@1e-3>=0.95', 'accuracy>=0.99', 'auc>=0.999', 'eer<=0.01', 'rank@1>=0.9' or 'tpir@1e-2>=0.8'"


@dataclass(frozen=True)
class Requirement:
    """A figure and the limit it must keep: at most for eer, at least for all others.

    Attributes:
        measure: ``tpr``, ``accuracy``, ``auc`` or ``eer``; of searches ``rank`` or ``tpir``, galleries apart.
        fpr: The operating point: the FPR of ``tpr``, the FPIR of ``tpir``, else None.
        limit: In [0, 1].
        text: As it was written.
        rank: The k of ``rank``, else None.
    """

    measure: str
    fpr: float | None
    limit: float
    text: str
    rank: int | None = None


def parse_requirement(text: str) -> Requirement:
    """Read one demand.

    Raises:
        UsageError: Another form, another direction, or a number out of range.

    Example:
        >>> parse_requirement("tpr@1e-3>=0.95")
        Requirement(measure='tpr', fpr=0.001, limit=0.95, text='tpr@1e-3>=0.95', rank=None)
        >>> parse_requirement("eer>=0.1")
        Traceback (most recent call last):
        facekd.errors.UsageError: eer>=0.1: eer takes <= (a limit from above)
    """
    found = PATTERN.fullmatch(text)
    if found is None:
        raise UsageError(text, "not a requirement", f"write {FORMS}")
    at_rate, fpr, at_rank, rank, other, sign, limit = found.groups()
    measure = at_rate or at_rank or other
    wanted, side = ("<=", "above") if measure == "eer" else (">=", "below")
    if sign != wanted:
        raise UsageError(text, f"{measure} takes {wanted}", f"a limit from {side}")
    if fpr is not None and not 0 < float(fpr) < 1:
        raise UsageError(
            text, f"{'FPR' if measure == 'tpr' else 'FPIR'} {fpr} is not between 0 and 1", f"write {FORMS}"
        )
    if float(limit) > 1:
        raise UsageError(text, f"limit {limit} is above 1", "write fractions, not percent")
    rate, place = None if fpr is None else float(fpr), None if rank is None else int(rank)
    return Requirement(measure, rate, float(limit), text.strip(), place)


def require(results: Sequence[Mapping[str, Any]], requirements: Sequence[Requirement]) -> None:
    """Hold every result against every demand.

    Args:
        results: What the evaluator gave, as in the JSON file.
        requirements: The demands; the FPRs they name must have been evaluated.

    Raises:
        RequirementError: A demand is missed, or the set cannot show the figure; names all of them.

    Example:
        >>> require([{"model": "m", "set": "s", "auc": 0.9}], [parse_requirement("auc>=0.95")])
        Traceback (most recent call last):
        facekd.errors.RequirementError: m on s: auc>=0.95 not met: auc is 0.9
    """
    missed = []
    for result in results:
        for requirement in requirements:
            value, reason = _figure(result, requirement)
            if value is None or (
                value > requirement.limit if requirement.measure == "eer" else value < requirement.limit
            ):
                where = f"{result['model']} on {result['set']}"
                if result.get("resolution"):
                    where += f" ({describe_resolution(result['resolution'])})"
                if result.get("group"):
                    where += f" ({result['group']['column']} {result['group']['value']})"
                missed.append((where, f"{requirement.text} not met: {reason}"))
    if missed:
        rest = [f"{where}: {what}" for where, what in missed[1:]]
        raise RequirementError(missed[0][0], "; ".join([missed[0][1], *rest]))


def _figure(result: Mapping[str, Any], requirement: Requirement) -> tuple[float | None, str]:
    """The figure and a phrase that tells it, or None and why there is none."""
    measure, searched = requirement.measure, "rank" in result
    if searched != (measure in ("rank", "tpir")):
        return None, f"protocol {result['protocol']} gives no {measure} here"
    if measure in ("tpr", "tpir"):
        return _at_rate(result, requirement)
    if measure == "rank":
        value = result["rank"].get(str(requirement.rank))
        return value, f"only ranks {', '.join(result['rank'])} are told" if value is None else f"it is {value:.6g}"
    found = result[measure]
    if found is None:
        return None, f"protocol {result['protocol']} gives no {measure} here"
    value = found if measure == "auc" else found["mean" if measure == "accuracy" else "value"]
    return value, f"{measure} is {value:.6g}"


def _at_rate(result: Mapping[str, Any], requirement: Requirement) -> tuple[float | None, str]:
    """A TPR at its FPR, or a TPIR at its FPIR with galleries apart."""
    measure, rate = requirement.measure, "fpr" if requirement.measure == "tpr" else "fpir"
    told = [entry for entry in result[f"{measure}_at_{rate}"] if entry.get("definition", "nist") == "nist"]
    for point in told:
        if point[rate] == requirement.fpr:
            return point[measure], f"{measure} is {point[measure]:.6g}"
    for entry in result["refused"]:
        if entry[rate] == requirement.fpr and entry.get("definition", "nist") == "nist":
            if entry.get("failed"):
                return None, f"{entry['failed']:,} failed comparisons are more than it allows to be accepted"
            has, who = ("impostors", "impostor pairs") if rate == "fpr" else ("nonmated", "probes without a mate")
            return None, f"needs {entry['needed']:,} {who}, the set has {entry[has]:,}"
    return None, f"that {rate.upper()} was not evaluated"
