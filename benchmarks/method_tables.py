"""The table of every method on the same faces: how much of the way from the student alone to the teacher each goes."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from benchmarks.tables import (
    ALONE,
    Record,
    fprs_of,
    grouped,
    markdown_table,
    points,
    recipe_list,
    runs_table,
    size_cells,
    spread,
    star_note,
    tpr_cell,
    tpr_heads,
)

JUDGED = 1e-3
"""The FPR at which the way to the teacher is measured."""


def share_of_gap(rows: Sequence[Record], alone: Sequence[Record], teacher: Record, fpr: float) -> list[float]:
    """For each seed that both have, the method's gain over the student alone, as a fraction of the teacher's.

    Args:
        rows: A method's rows, one per seed.
        alone: Those of the student alone.
        teacher: The teacher's row.
        fpr: Where to compare.

    Example:
        >>> tell = lambda seed, tpr: {"seed": seed, "tpr_at_fpr": [{"fpr": 1e-3, "tpr": tpr}]}
        >>> share_of_gap([tell(0, 0.5), tell(7, 1.0)], [tell(0, 0.25)], tell(None, 0.75), 1e-3)
        [0.5]
    """
    (most,) = (point["tpr"] for point in points([teacher], fpr))
    here, there = ({row["seed"]: points([row], fpr)[0]["tpr"] for row in group} for group in (rows, alone))
    return [(here[seed] - there[seed]) / (most - there[seed]) for seed in here if seed in there]


def elsewhere_note(data: Record) -> str:
    """Which rows were recorded under other conditions than the page tells, and under which."""
    groups: dict[str, dict[str, None]] = {}
    for row in data["rows"]:
        if "conditions" in row:
            there = row["conditions"]
            versions = ", ".join(f"{package} {version}" for package, version in there["packages"].items())
            told = f"{there['machine']}, python {there['python']}, {versions}"
            groups.setdefault(told, {})[row["method"]] = None
    return "".join(f"\n\nRecorded with {told}: {', '.join(names)}." for told, names in groups.items())


def methods(data: Record) -> str:
    """Every method, the best first, with the teacher on top, and what each is.

    Args:
        data: ``methods_real.json`` or ``methods_drawn.json``.
    """
    (teacher,) = data["teacher"]
    groups = grouped(data["rows"], "method")
    fprs = fprs_of([teacher, *data["rows"]])
    alone = groups.get(ALONE, [])
    order = sorted(groups, key=lambda name: -median(point["tpr"] for point in points(groups[name], JUDGED)))
    body = [["teacher", "-", *(tpr_cell([teacher], fpr) for fpr in fprs), "1", f"{teacher['auc']:.5f}"]]
    for name in order:
        rows = groups[name]
        shares = [] if name == ALONE else share_of_gap(rows, alone, teacher, JUDGED)
        cells = [name, str(len(rows)), *(tpr_cell(rows, fpr) for fpr in fprs)]
        body.append([*cells, spread(shares, 3) if shares else "0", spread([row["auc"] for row in rows], 5)])
    head = ["method", "seeds", *tpr_heads(fprs), "share of the gap @ 1e-3", "AUC"]
    first = data["rows"][0]
    parameters, macs = size_cells(first)
    told = (
        f"On {teacher['genuine']:,} genuine and {teacher['impostor']:,} impostor pairs of people never trained on; the "
        f"student has {parameters} parameters and {macs} multiply-accumulates, the teacher "
        f"{teacher['parameters']:,} parameters; {first['epochs']} epochs, {first['steps']:,} steps each. The share of "
        "the gap is the gain over the student alone of the same seed, as a fraction of the teacher's."
    )
    table = markdown_table(head, body) + star_note([teacher, *data["rows"]])
    table += elsewhere_note(data)
    recipe = f"All change the recipe `{data['recipe']}` and are otherwise equal."
    runs = ["Each run, with 95 % intervals that resample people:", runs_table(data["rows"])]
    return "\n\n".join([told, table, recipe, *runs, recipe_list(data["recipes"])])
