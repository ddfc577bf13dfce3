"""The table of every method on the same faces: how much of the way from the student alone to the teacher each goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

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
    star_note,
    starred,
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


def over_seeds(values: Sequence[float], digits: int = 4) -> str:
    """Mean and sample standard deviation; one value stands alone.

    Example:
        >>> over_seeds([0.1, 0.2, 0.3], 2)
        '0.20 ± 0.10'
        >>> over_seeds([0.5])
        '0.5000'
    """
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def mean_tpr(rows: Sequence[Record], fpr: float) -> str:
    """The TPR at an FPR over seeds; one run shows its 95 % interval instead."""
    found = points(rows, fpr)
    if len(found) < 2:
        return tpr_cell(rows, fpr)
    return starred(over_seeds([point["tpr"] for point in found]), found)


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


def gaps(arenas: Mapping[str, Record]) -> str:
    """The share of the gap that each method closes, side by side, the best of the last arena first.

    Methods tried with one seed alone in every arena are left to the tables of their own.

    Args:
        arenas: What each is called, and its record.
    """
    shares: dict[str, dict[str, list[float]]] = {}
    for name, data in arenas.items():
        groups = grouped(data["rows"], "method")
        for method, rows in groups.items():
            if method != ALONE:
                shares.setdefault(method, {})[name] = share_of_gap(rows, groups[ALONE], data["teacher"][0], JUDGED)
    shown = {method: told for method, told in shares.items() if max(map(len, told.values())) > 1}
    last = [*arenas][-1]
    order = sorted(shown, key=lambda method: -mean(shown[method].get(last) or [-1.0]))
    body = [[method, *(_share(shown[method].get(name, [])) for name in arenas)] for method in order]
    return markdown_table(["method", *arenas], body)


def _share(shares: Sequence[float]) -> str:
    if not shares:
        return "-"
    return over_seeds(shares, 2) + (" (one seed)" if len(shares) == 1 else "")


def methods(data: Record) -> str:
    """Every method, the best first, with the teacher on top, and what each is.

    Args:
        data: ``methods_real.json`` or ``methods_drawn.json``.
    """
    (teacher,) = data["teacher"]
    groups = grouped(data["rows"], "method")
    fprs = fprs_of([teacher, *data["rows"]])
    alone = groups.get(ALONE, [])
    order = sorted(groups, key=lambda name: -mean(point["tpr"] for point in points(groups[name], JUDGED)))
    body = [["teacher", "-", *(tpr_cell([teacher], fpr) for fpr in fprs), "1", f"{teacher['auc']:.5f}"]]
    for name in order:
        rows = groups[name]
        shares = [] if name == ALONE else share_of_gap(rows, alone, teacher, JUDGED)
        cells = [name, str(len(rows)), *(mean_tpr(rows, fpr) for fpr in fprs)]
        body.append([*cells, over_seeds(shares, 3) if shares else "0", over_seeds([row["auc"] for row in rows], 5)])
    head = ["method", "seeds", *tpr_heads(fprs), "share of the gap @ 1e-3", "AUC"]
    first = data["rows"][0]
    parameters, macs = size_cells(first)
    told = (
        f"On {teacher['genuine']:,} genuine and {teacher['impostor']:,} impostor pairs of people never trained on; the "
        f"student has {parameters} parameters and {macs} multiply-accumulates, the teacher "
        f"{teacher['parameters']:,} parameters; {first['epochs']} epochs, {first['steps']:,} steps each. The share of "
        "the gap is the gain over the student alone of the same seed, as a fraction of the teacher's. Over seeds: mean "
        f"± standard deviation. Training all {len(data['rows'])} students took "
        f"{sum(row['train_seconds'] for row in data['rows']) / 3600:.1f} hours of one core."
    )
    table = markdown_table(head, body) + star_note([teacher, *data["rows"]]) + elsewhere_note(data)
    recipe = f"All change the recipe `{data['recipe']}` and are otherwise equal."
    runs = ["Each run, with 95 % intervals that resample people:", runs_table(data["rows"])]
    return "\n\n".join([told, table, recipe, *runs, recipe_list(data["recipes"])])
