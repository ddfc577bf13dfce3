"""One model over several sets: the mean accuracy, its spread, and how unevenly errors fall, as for RFW's groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any


def across_sets(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A summary for every model with cross-validated accuracies on two sets or more.

    The skewed error ratio is that of Wang et al., "Racial Faces in the Wild", ICCV 2019: the largest error of a set
    over the smallest; 1 where all fare alike.

    Args:
        results: Entries of ``results`` in the JSON of ``facekd eval``.

    Returns:
        ``model``, ``model_digest``, ``flip``, ``sets``, ``accuracy`` (mean, and std divided by the number less one) and
        ``skewed_error_ratio``, None where a set has no error.

    Example:
        >>> one = {"model": "m", "model_digest": "d", "flip": True, "resolution": None}
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
        least = 1 - max(accuracies)
        found.append(
            {
                "model": model,
                "model_digest": digest,
                "flip": flip,
                "sets": [result["set"] for result in own],
                "accuracy": {"mean": mean(accuracies), "std": stdev(accuracies)},
                "skewed_error_ratio": (1 - min(accuracies)) / least if least > 0 else None,
            }
        )
    return found


def describe(summary: Mapping[str, Any]) -> str:
    """A summary in one line.

    Example:
        >>> figures = {"accuracy": {"mean": 0.85, "std": 0.0707}, "skewed_error_ratio": 2.0}
        >>> describe({"model": "m", "sets": ["a", "b"], **figures})
        'm over 2 sets: accuracy 0.8500 +- 0.0707, largest error 2.00 times the smallest'
    """
    ratio, accuracy = summary["skewed_error_ratio"], summary["accuracy"]
    told = "one set without an error" if ratio is None else f"largest error {ratio:.2f} times the smallest"
    head = f"{summary['model']} over {len(summary['sets'])} sets"
    return f"{head}: accuracy {accuracy['mean']:.4f} +- {accuracy['std']:.4f}, {told}"
