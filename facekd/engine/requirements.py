"""Demands on an evaluation: ``tpr@1e-3>=0.95``, ``accuracy>=0.99``, ``auc>=0.999``, ``eer<=0.01``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from facekd.engine.resolution_modes import describe_resolution
from facekd.errors import RequirementError, UsageError

NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
PATTERN = re.compile(rf"\s*(?:(tpr)\s*@\s*({NUMBER})|(accuracy|auc|eer))\s*(>=|<=)\s*({NUMBER})\s*")
FORMS = "'tpr@1e-3>=0.95', 'accuracy>=0.99', 'auc>=0.999' or 'eer<=0.01'"


@dataclass(frozen=True)
class Requirement:
    """A figure and the limit it must keep: at least for tpr, accuracy and auc, at most for eer.

    Attributes:
        measure: ``tpr``, ``accuracy``, ``auc`` or ``eer``.
        fpr: The operating point of ``tpr``, else None.
        limit: In [0, 1].
        text: As it was written.
    """

    measure: str
    fpr: float | None
    limit: float
    text: str


def parse_requirement(text: str) -> Requirement:
    """Read one demand.

    Raises:
        UsageError: Another form, another direction, or a number out of range.

    Example:
        >>> parse_requirement("tpr@1e-3>=0.95")
        Requirement(measure='tpr', fpr=0.001, limit=0.95, text='tpr@1e-3>=0.95')
        >>> parse_requirement("eer>=0.1")
        Traceback (most recent call last):
        facekd.errors.UsageError: eer>=0.1: eer takes <= (a limit from above)
    """
    found = PATTERN.fullmatch(text)
    if found is None:
        raise UsageError(text, "not a requirement", f"write {FORMS}")
    tpr, fpr, other, sign, limit = found.groups()
    measure = tpr or other
    wanted, side = ("<=", "above") if measure == "eer" else (">=", "below")
    if sign != wanted:
        raise UsageError(text, f"{measure} takes {wanted}", f"a limit from {side}")
    if fpr is not None and not 0 < float(fpr) < 1:
        raise UsageError(text, f"FPR {fpr} is not between 0 and 1", f"write {FORMS}")
    if float(limit) > 1:
        raise UsageError(text, f"limit {limit} is above 1", "write fractions, not percent")
    return Requirement(measure, None if fpr is None else float(fpr), float(limit), text.strip())


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
    measure = requirement.measure
    if measure == "tpr" and result.get("tpir_at_fpir") is None:
        for point in result["tpr_at_fpr"]:
            if point["fpr"] == requirement.fpr:
                return point["tpr"], f"tpr is {point['tpr']:.6g}"
        needed = [entry for entry in result["refused"] if entry["fpr"] == requirement.fpr]
        if needed:
            return None, f"needs {needed[0]['needed']:,} impostor pairs, the set has {needed[0]['impostors']:,}"
        return None, "that FPR was not evaluated"
    found = None if measure == "tpr" else result[measure]
    if found is None:
        return None, f"protocol {result['protocol']} gives no {measure} here"
    value = found if measure == "auc" else found["mean" if measure == "accuracy" else "value"]
    return value, f"{measure} is {value:.6g}"
