"""The figures of a report against those computed again from the same files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facekd.engine.evaluation.request import Request, request_from
from facekd.engine.evaluation.resolution_modes import describe_resolution
from facekd.errors import InputError

MOST_BYTES = 256 * 2**20
RATE_TOLERANCE = 1e-3
"""How far rates and thresholds may be apart where machine or versions differ: rounding moves a score by some 1e-6."""
COUNT_TOLERANCE = 2
"""How far false accepts and false alarms may be apart there."""
FOLLOWING = ("skewed_error_ratio",)
"""Quotients of rates that are compared: of small ones they move by more than the rates do."""
UNCOMPARED = ("seconds",)
ADDED = (
    "supported",
    "accuracy.ci95",
    "eer.ci95",
    "tpir_at_fpir.ci95",
    "auc_ci95",
    "rank_ci95",
    "rank_merged_ci95",
    "no_interval",
)
"""Ends of paths to what results have come to tell since the first release: not held against a report from before."""
ADDED_TO_SUMMARIES = ("accuracy.spread", "tpr_at_fpr")
"""What summaries over sets have come to tell, likewise."""


@dataclass(frozen=True)
class Report:
    """A file that ``facekd eval --json`` wrote.

    Attributes:
        where: Its path.
        request: What was done.
        environment: Where it was done; see :func:`facekd.engine.run_folder.environment`.
        results: What came out.
        across_sets: Summaries of them; see :func:`facekd.engine.evaluation.across_sets.across_sets`.
        across_groups: Those of groups; see :func:`facekd.engine.evaluation.across_groups.across_groups`. None where the
            file was written before there were any.
    """

    where: str
    request: Request
    environment: Mapping[str, Any]
    results: Sequence[Mapping[str, Any]]
    across_sets: Sequence[Mapping[str, Any]] = ()
    across_groups: Sequence[Mapping[str, Any]] | None = None

    def set_digests(self, name: str) -> set[str]:
        """Digests it knows a set of this name by."""
        return {result["set_digest"] for result in self.results if result["set"] == name}

    def model_digests(self, name: str) -> set[str]:
        """Digests it knows a model of this name by."""
        return {result["model_digest"] for result in self.results if result["model"] == name}


def read_report(path: Path) -> Report:
    """Read what ``facekd eval --json`` wrote.

    Raises:
        InputError: No such file, not JSON, not of this kind, or without what it takes to compute it again.
    """
    where, again = str(path), "give a file of facekd eval --json"
    if not path.is_file():
        raise InputError(where, "no such file", "check the path")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(where, f"{path.stat().st_size:,} bytes, too many for figures", again)
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(where, f"not JSON: {' '.join(str(error).split())[:100]}", again) from None
    results = found.get("results") if isinstance(found, dict) else None
    if not isinstance(results, list) or not results:
        raise InputError(where, "holds no results", again)
    keys = ("model", "model_digest", "set", "set_digest")
    if not all(
        isinstance(result, dict) and all(isinstance(result.get(key), str) for key in keys) for result in results
    ):
        raise InputError(where, "a result does not name model and set with their digests", "evaluate again")
    environment, summaries, groups = found.get("environment"), found.get("across_sets", []), found.get("across_groups")
    for key, kept in (("across_sets", summaries), ("across_groups", groups or [])):
        if not isinstance(kept, list) or not all(isinstance(one, dict) for one in kept):
            raise InputError(where, f"{key} is not a list of summaries", "evaluate again")
    return Report(
        where=where,
        request=request_from(found.get("arguments"), where),
        environment=environment if isinstance(environment, dict) else {},
        results=results,
        across_sets=summaries,
        across_groups=groups,
    )


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def require_digest(where: str, name: str, found: str, known: set[str]) -> None:
    """Refuse a model or set that is not the one a report was made with.

    Args:
        where: The report.
        name: Of the model or set.
        found: Its digest now.
        known: Digests the report knows it by; none where it does not know the name.

    Raises:
        InputError: The digest is another, or the name is unknown to the report.
    """
    if not known:
        raise InputError(where, f"holds no result of {name}", "evaluate again")
    if found not in known:
        told = ", ".join(sorted(digest[:12] for digest in known))
        raise InputError(name, f"its digest is {found[:12]}, {where} was made with {told}", "restore the file")


def first_difference(
    written: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]], *, exact: bool
) -> str | None:
    """The first figure in which two lists of results, or of their summaries, differ, in words; None where none does.

    Times are not compared.

    Args:
        written: Results of the report.
        found: Results now.
        exact: Every bit, or within :data:`RATE_TOLERANCE` and :data:`COUNT_TOLERANCE`.

    Example:
        >>> head = {"model": "m", "set": "s", "resolution": None}
        >>> first_difference([{**head, "auc": 0.75}], [{**head, "auc": 0.5}], exact=True)
        'm on s: auc is 0.5, the report says 0.75'
    """
    if len(written) != len(found):
        return f"there are {len(found)} results or summaries, the report holds {len(written)}"
    for before, now in zip(written, found, strict=True):
        name = _name(now)
        added = (*ADDED, *(ADDED_TO_SUMMARIES if "sets" in now else ()))
        for key, left, right in _pairs("", before, now, added):
            if not _agree(key, left, right, exact):
                return f"{name}: {key} is {_told(right)}, the report says {_told(left)}"
    return None


def _name(result: Mapping[str, Any]) -> str:
    """What a result or a summary is of."""
    if "sets" in result:
        return f"{result['model']} over {len(result['sets'])} sets"
    if "groups" in result:
        return f"{result['model']} on {result['set']} by {result['column']}"
    resolution = result.get("resolution")
    mode = f" ({describe_resolution(resolution)})" if resolution else ""
    gallery = f" in {result['gallery_model']}" if "gallery_model" in result else ""
    group = f", {result['group']['column']} {result['group']['value']}" if "group" in result else ""
    return f"{result['model']}{gallery} on {result['set']}{mode}{group}"


_ABSENT = object()


def _pairs(key: str, before: Any, now: Any, added: tuple[str, ...]) -> Iterator[tuple[str, Any, Any]]:
    """Every pair of leaves of two values, in the order of the second, with the path to it."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for name in [*now, *(name for name in before if name not in now)]:
            path = f"{key}.{name}" if key else str(name)
            new = name not in before and re.sub(r"\[[^]]*\]", "", path).endswith(added)
            if path not in UNCOMPARED and not new:
                yield from _pairs(path, before.get(name, _ABSENT), now.get(name, _ABSENT), added)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (left, right) in enumerate(zip(before, now, strict=True)):
            yield from _pairs(f"{key}[{_place(place, right)}]", left, right, added)
    else:
        yield key, before, now


def _place(place: int, entry: Any) -> str:
    return f"fpr {entry['fpr']:g}" if isinstance(entry, Mapping) and "fpr" in entry else str(place)


def _agree(key: str, before: Any, now: Any, exact: bool) -> bool:
    if not exact and key.endswith(FOLLOWING):
        return True
    if type(before) is not type(now):
        return False
    if exact or isinstance(now, bool) or not isinstance(now, int | float):
        return bool(before == now)
    if isinstance(now, int):
        return abs(before - now) <= (COUNT_TOLERANCE if key.endswith(("false_accepts", "false_alarms")) else 0)
    return abs(before - now) <= (0 if key.endswith((".fpr", ".fpir")) else RATE_TOLERANCE)


def _told(value: Any) -> str:
    return "absent" if value is _ABSENT else json.dumps(value)[:80]
