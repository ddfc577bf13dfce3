"""One model on the groups of a set: how far apart their figures lie."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from facekd.engine.evaluation.evenness import evenness, told, told_tprs, tpr_evenness
from facekd.engine.evaluation.resolution_modes import describe_resolution

HEAD = ("model", "model_digest", "gallery_model", "set", "set_digest", "flip", "resolution", "score")
"""What the results of all groups of a set have in common."""


def across_groups(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A summary for every model, set and mode with results of two groups or more.

    Args:
        results: Entries of ``results`` in the JSON of ``facekd eval``.

    Returns:
        Those of :data:`HEAD` that the results have; ``column`` and ``groups``; ``tpr_at_fpr``, see
        :func:`facekd.engine.evaluation.evenness.tpr_evenness`; ``refused``, the FPRs that some ``groups`` cannot show;
        and ``eer``, how far apart the equal error rates lie.

    Example:
        >>> one = {"model": "m", "set": "s", "resolution": None, "tpr_at_fpr": [], "refused": []}
        >>> told = {"a": 0.125, "b": 0.25}
        >>> groups = [one | {"group": {"column": "c", "value": name}, "eer": {"value": v}} for name, v in told.items()]
        >>> (found,) = across_groups(groups)
        >>> found["groups"], found["eer"]["spread"], found["eer"]["skewed_error_ratio"]
        (['a', 'b'], 0.125, 2.0)
    """
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for result in results:
        if "group" in result:
            parts.setdefault(json.dumps([result.get(name) for name in HEAD]), []).append(result)
    found = []
    for own in parts.values():
        if len(own) < 2:
            continue
        errors = [result["eer"]["value"] for result in own]
        found.append(
            {
                **{name: own[0][name] for name in HEAD if name in own[0]},
                "column": own[0]["group"]["column"],
                "groups": [result["group"]["value"] for result in own],
                "tpr_at_fpr": tpr_evenness(own),
                "refused": _refused(own),
                "eer": evenness(errors, errors),
            }
        )
    return found


def _refused(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    who: dict[float, list[str]] = {}
    for result in results:
        for entry in result["refused"]:
            who.setdefault(entry["fpr"], []).append(result["group"]["value"])
    return [{"fpr": fpr, "groups": groups} for fpr, groups in who.items()]


def describe_groups(summary: Mapping[str, Any]) -> list[str]:
    """A summary in a line for each FPR and one for the equal error rate.

    Example:
        >>> told = {"model": "m", "set": "s", "column": "c", "groups": ["a", "b"], "tpr_at_fpr": [], "refused": []}
        >>> describe_groups(told | {"eer": evenness([0.125, 0.25], [0.125, 0.25])})
        ['m on s over 2 groups by c, EER: 0.1875 +- 0.0884, spread 0.1250, largest error 2.00 times the smallest']
    """
    gallery = f" in {summary['gallery_model']}" if "gallery_model" in summary else ""
    resolution = describe_resolution(summary["resolution"]) if summary.get("resolution") else ""
    mode = ", ".join(word for word in (resolution, summary.get("score", "")) if word)
    head = f"{summary['model']}{gallery} on {summary['set']}{f' ({mode})' if mode else ''}"
    head += f" over {len(summary['groups'])} groups by {summary['column']}"
    return [*told_tprs(head, summary["tpr_at_fpr"], "group"), f"{head}, EER: {told(summary['eer'], 'group')}"]
