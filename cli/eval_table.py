"""The table of ``facekd eval``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from facekd.engine.evaluation.across_groups import across_groups, describe_groups
from facekd.engine.evaluation.across_sets import across_sets, describe
from facekd.engine.evaluation.resolution_modes import describe_resolution

from .common import console

if TYPE_CHECKING:
    from facekd.engine.evaluation.evaluation_sets import OpenedSet
    from facekd.engine.evaluation.figures import EvalSettings

from .interval_lines import interval_lines

WELL_FOUNDED = 30
SHOWN_REJECTS = (0.0, 0.1, 0.2, 0.3)
SIDE_BY_SIDE = 3
"""FPRs that have a column each; more stand below each other."""


def print_table(results: Sequence[dict[str, Any]], opened: Sequence[OpenedSet], settings: EvalSettings) -> None:
    """Print the figures for people: a row a result, then what they must know to read them.

    Args:
        results: As in the JSON.
        opened: The sets.
        settings: How they were evaluated.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    accuracy = any(result["accuracy"] for result in results)
    shown = [fpr for fpr in settings.fprs if any(fpr == p["fpr"] for r in results for p in r["tpr_at_fpr"])]
    table = Table(box=SIMPLE_HEAD)
    lowered = any(result["resolution"] for result in results)
    for name in ("model", "set", *(["probe to\ngallery"] if lowered else [])):
        table.add_column(name, overflow="fold")
    listed = len(shown) > SIDE_BY_SIDE
    rates = ["FPR", "TPR", "95 % interval"] if listed else [f"TPR @ {_short(fpr)}" for fpr in shown]
    figures = [*(["accuracy"] if accuracy else []), *rates, "AUC", "EER"]
    for name in ("genuine +\nimpostor", *figures):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        row = [_who(result), _what(result), *([describe_resolution(result["resolution"])] if lowered else [])]
        row += [f"{result['genuine']:,}\n{result['impostor']:,}"]
        row += [_accuracy_cell(result)] if accuracy else []
        row += _listed_cells(result, shown) if listed else [_tpr_cell(result, fpr) for fpr in shown]
        table.add_row(*row, f"{result['auc']:.5f}", f"{result['eer']['value']:.4f}")
    out = console()
    out.print(table)
    for line in _notes(results, opened, settings):
        out.print(line, markup=False, soft_wrap=True)


def _who(result: dict[str, Any]) -> str:
    """The model, or whose probes met whose gallery."""
    gallery = result.get("gallery_model")
    return result["model"] if gallery is None else f"{result['model']} in\n{gallery}"


def _what(result: dict[str, Any]) -> str:
    """The set, or which group of it, and what scored its pairs if not the cosine."""
    group, score = result.get("group"), result.get("score")
    lines = [result["set"], group and f"{group['column']} {group['value']}", score and f"by {score}"]
    return "\n".join(line for line in lines if line)


def _short(fpr: float) -> str:
    return f"{fpr:g}".replace("e-0", "e-")


def _accuracy_cell(result: dict[str, Any]) -> str:
    found = result["accuracy"]
    return f"{found['mean']:.4f}\n+- {found['std']:.4f}" if found else "-"


def _tpr_cell(result: dict[str, Any], fpr: float) -> str:
    """TPR over its interval; a star where fewer than 30 false accepts fix the threshold."""
    for point in result["tpr_at_fpr"]:
        if point["fpr"] == fpr:
            star = "" if point["supported"] else "*"
            interval = "" if point["ci95"] is None else "\n{:.4f}-{:.4f}".format(*point["ci95"])
            return f"{point['tpr']:.5f}{star}{interval}"
    return "refused"


def _listed_cells(result: dict[str, Any], fprs: Sequence[float]) -> list[str]:
    """FPRs, TPRs and intervals, each below the other."""
    cells = [(_short(fpr), *_tpr_cell(result, fpr).split("\n"), "") for fpr in fprs]
    return ["\n".join(column) for column in list(zip(*cells, strict=False))[:3]]


def _sureness_lines(who: str, point: dict[str, Any], supported: bool) -> Iterator[str]:
    """What the model's own uncertainty tells at an operating point: rates by quality, and what turning away saves."""
    star = "" if supported else "*"
    told = [
        f"{rates['quality']} {_rate(rates['tpr'], '.4f')} / {_rate(rates['fpr'], '.2g')}" for rates in point["quality"]
    ]
    yield f"{who}, threshold of FPR {_short(point['fpr'])}{star}, TPR / FPR by quality: {', '.join(told)}"
    steps = {step["turned_away"]: step["missed"] for step in point["reject"]}
    missed = ", ".join(f"{share:.0%} {steps[share]:.4f}" for share in SHOWN_REJECTS)
    yield f"{who}, the same, missed as the least sure genuine pairs are turned away: {missed}"


def _rate(value: float | None, form: str) -> str:
    return "-" if value is None else f"{value:{form}}"


def _notes(results: Sequence[dict[str, Any]], opened: Sequence[OpenedSet], settings: EvalSettings) -> Iterator[str]:
    for lines in (*map(describe, across_sets(results)), *map(describe_groups, across_groups(results))):
        yield from lines
    yield from interval_lines((f"{_who(result)} on {_what(result)}".replace("\n", " "), result) for result in results)
    for result in results:
        supported = {point["fpr"]: point["supported"] for point in result["tpr_at_fpr"]}
        for point in result.get("by_uncertainty", ()):
            who = f"{_who(result)} on {_what(result)}".replace("\n", " ")
            yield from _sureness_lines(who, point, supported[point["fpr"]])
    points = [point for result in results for point in result["tpr_at_fpr"]]
    if not all(point["supported"] for point in points):
        yield f"* rests on fewer than {WELL_FOUNDED} false accepts: the threshold is uncertain"
    unknown = [one.name for one in opened if not one.subjects_known]
    if unknown and settings.bootstrap:
        yield f"intervals on {', '.join(unknown)} resample pairs, for the people are unknown: take them as too narrow"
    refused = {(r["set"], e["fpr"], e["needed"], e["impostors"]): None for r in results for e in r["refused"]}
    for name, fpr, needed, impostors in refused:
        yield f"{name}: FPR {_short(fpr)} refused: it needs {needed:,} impostor pairs, the set has {impostors:,}"
