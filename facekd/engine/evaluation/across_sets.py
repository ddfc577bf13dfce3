"""One model over several sets: the mean accuracy, its spread, and how unevenly errors fall, as for RFW's groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from facekd.engine.evaluation.evenness import evenness, told, told_tprs, tpr_evenness


def across_sets(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A summary for every model with cross-validated accuracies on two sets or more.

    The skewed error ratio is that of Wang et al., "Racial Faces in the Wild", ICCV 2019: the largest error of a set
    over the smallest; 1 where all fare alike.

    Args:
        results: Entries of ``results`` in the JSON of ``facekd eval``.

    Returns:
        ``model``, ``model_digest``, ``flip``, ``sets``, ``accuracy`` (mean, std and spread, see
        :func:`facekd.engine.evaluation.evenness.evenness`), its ``skewed_error_ratio``, None where a set has no error,
        and ``tpr_at_fpr``: the same of the TPRs at each FPR that every set can show.

    Example:
        >>> one = {"model": "m", "model_digest": "d", "flip": True, "resolution": None}
        >>> one |= {"tpr_at_fpr": []}
        >>> sets = [one | {"set": name, "accuracy": {"mean": value}} for name, value in (("a", 0.9), ("b", 0.8))]
        >>> (found,) = across_sets(sets)
        >>> round(found["accuracy"]["mean"], 3), round(found["skewed_error_ratio"], 3)
        (0.85, 2.0)
    """
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        if result["accuracy"] and result["resolution"] is None and not result.keys() & {"gallery_model", "group"}:
            groups.setdefault((result["model"], result["model_digest"], result["flip"]), []).append(result)
    found = []
    for (model, digest, flip), own in groups.items():
        if len({result["set"] for result in own}) < 2:
            continue
        accuracies = [result["accuracy"]["mean"] for result in own]
        even = evenness(accuracies, [1 - accuracy for accuracy in accuracies])
        found.append(
            {
                "model": model,
                "model_digest": digest,
                "flip": flip,
                "sets": [result["set"] for result in own],
                "accuracy": {name: even[name] for name in ("mean", "std", "spread")},
                "skewed_error_ratio": even["skewed_error_ratio"],
                "tpr_at_fpr": tpr_evenness(own),
            }
        )
    return found


def describe(summary: Mapping[str, Any]) -> list[str]:
    """A summary in a line for the accuracy and one for each FPR.

    Example:
        >>> accuracy = {"mean": 0.85, "std": 0.0707, "spread": 0.1}
        >>> told = {"accuracy": accuracy, "skewed_error_ratio": 2.0, "tpr_at_fpr": []}
        >>> describe({"model": "m", "sets": ["a", "b"], **told})
        ['m over 2 sets, accuracy: 0.8500 +- 0.0707, spread 0.1000, largest error 2.00 times the smallest']
    """
    head = f"{summary['model']} over {len(summary['sets'])} sets"
    accuracy = summary["accuracy"] | {"skewed_error_ratio": summary["skewed_error_ratio"]}
    return [f"{head}, accuracy: {told(accuracy, 'set')}", *told_tprs(head, summary["tpr_at_fpr"], "set")]
