"""Raw benchmark figures to Markdown: nothing is written that a file in ``results/`` does not hold.

The median over seeds is shown with the smallest and largest value; a method that loses to the student trained alone is
shown like one that wins. Figures are fractions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

ALONE = "student alone"
"""The method of ``real_faces.json`` that the others are compared with: the same student without a teacher."""
WELL_FOUNDED = 30
STARRED = f"\\* rests on fewer than {WELL_FOUNDED} false accepts: the threshold is uncertain."
RUN_KEYS = {"input_size": "input", "epochs": "epochs", "steps": "steps", "train_seconds": "training, s"}
"""What a row may tell of its run -> its column."""
MEMORY = ("peak_mib", "added_mib")

Record = Mapping[str, Any]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; bars inside cells are escaped.

    Example:
        >>> print(markdown_table(["a", "b"], [["1", "x|y"]]))
        | a | b |
        |---|---|
        | 1 | x\\|y |
    """
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def short_fpr(fpr: float) -> str:
    """An FPR as people write it.

    Example:
        >>> short_fpr(1e-4)
        '1e-4'
        >>> short_fpr(0.01)
        '1e-2'
    """
    digits, power = f"{fpr:e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def spread(values: Sequence[float], digits: int = 4) -> str:
    """Median (smallest to largest); one value stands alone.

    Example:
        >>> spread([0.3, 0.1, 0.2])
        '0.2000 (0.1000 to 0.3000)'
        >>> spread([0.5])
        '0.5000'
    """
    middle = f"{median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def size_cells(row: Record) -> list[str]:
    """Parameters, and millions of multiply-accumulates; a dash where a model does not tell."""
    parameters, macs = row["parameters"], row.get("macs")
    return ["-" if parameters is None else f"{parameters:,}", "-" if macs is None else f"{macs / 1e6:,.1f} M"]


def points(rows: Sequence[Record], fpr: float) -> list[Record]:
    """The operating point at an FPR of each row that was not refused it."""
    return [point for row in rows for point in row["tpr_at_fpr"] if point["fpr"] == fpr]


def fprs_of(rows: Sequence[Record]) -> list[float]:
    """Every FPR at which some row has a figure, largest first."""
    return sorted({point["fpr"] for row in rows for point in row["tpr_at_fpr"]}, reverse=True)


def founded(point: Record) -> bool:
    """Whether at least 30 false accepts may fix the threshold."""
    return bool(point["fpr"] >= WELL_FOUNDED / point["impostors"])


def tpr_cell(rows: Sequence[Record], fpr: float) -> str:
    """Median and spread of the TPR over seeds, a star where it is weakly founded; one row shows its 95 % interval."""
    found = points(rows, fpr)
    if not found:
        return "refused"
    text = spread([point["tpr"] for point in found])
    if len(rows) == 1 and found[0].get("ci95"):
        text += " [{:.4f}, {:.4f}]".format(*found[0]["ci95"])
    return starred(text, found)


def starred(text: str, found: Sequence[Record]) -> str:
    """A figure with a star, where an operating point behind it is weakly founded."""
    return text if all(founded(point) for point in found) else f"{text}\\*"


def tpr_heads(fprs: Sequence[float]) -> list[str]:
    """Column heads of TPR figures."""
    return [f"TPR @ {short_fpr(fpr)}" for fpr in fprs]


def star_note(rows: Sequence[Record]) -> str:
    """The footnote of the star, where a star was set."""
    weak = any(not founded(point) for row in rows for point in row["tpr_at_fpr"])
    return f"\n\n{STARRED}" if weak else ""


def against_alone(rows: Sequence[Record], alone: Sequence[Record], fpr: float) -> str:
    """Difference of the median TPR to the student alone, and how many seeds agree; a loss reads like a win.

    Args:
        rows: A method's rows, one per seed.
        alone: The rows of the student alone.
        fpr: Where to compare.
    """
    here = {row["seed"]: point["tpr"] for row in rows for point in points([row], fpr)}
    there = {row["seed"]: point["tpr"] for row in alone for point in points([row], fpr)}
    shared = sorted(here.keys() & there.keys())
    if not shared:
        return "-"
    difference = median(here[seed] for seed in shared) - median(there[seed] for seed in shared)
    better = sum(here[seed] > there[seed] for seed in shared)
    return f"{difference:+.4f}, better in {better} of {len(shared)}"


def grouped(rows: Sequence[Record], key: str) -> dict[str, list[Record]]:
    """Rows by the value of a key, in order of first appearance."""
    groups: dict[str, list[Record]] = {}
    for row in rows:
        groups.setdefault(str(row[key]), []).append(row)
    return groups


def methods_table(rows: Sequence[Record], teachers: Sequence[Record]) -> str:
    """The methods on one set: medians and spreads over seeds, beside the teacher and the student alone."""
    methods = grouped(rows, "method")
    fprs = fprs_of([*teachers, *rows])
    alone = methods.get(ALONE, [])
    judged = min((point["fpr"] for row in alone for point in row["tpr_at_fpr"] if founded(point)), default=None)
    head = ["method", "parameters", "MACs", "seeds", *tpr_heads(fprs), "accuracy", "AUC"]
    head += [f"against {ALONE} @ {short_fpr(judged)}"] if judged is not None else []
    body = []
    for name, group in [*((row["method"], [row]) for row in teachers), *methods.items()]:
        of_teacher = group[0] in teachers
        accuracies = [row["accuracy"]["mean"] for row in group if row["accuracy"]]
        cells = [name, *size_cells(group[0]), "-" if of_teacher else str(len(group))]
        cells += [tpr_cell(group, fpr) for fpr in fprs]
        cells += [spread(accuracies) if accuracies else "-", spread([row["auc"] for row in group], 5)]
        if judged is not None:
            cells.append("-" if of_teacher or name == ALONE else against_alone(group, alone, judged))
        body.append(cells)
    return markdown_table(head, body) + star_note([*teachers, *rows])


def runs_table(rows: Sequence[Record]) -> str:
    """Every single run on one set, with the 95 % intervals that resample its people."""
    fprs = fprs_of(rows)
    told = [key for key in RUN_KEYS if any(key in row for row in rows)]
    body = [
        [
            row["method"],
            str(row["seed"]),
            *(str(row.get(key, "-")) for key in told),
            *(tpr_cell([row], f) for f in fprs),
        ]
        for row in rows
    ]
    return markdown_table(["method", "seed", *(RUN_KEYS[key] for key in told), *tpr_heads(fprs)], body)


def recipe_list(recipes: Mapping[str, Any]) -> str:
    """The recipe of each method."""
    told = {name: told if isinstance(told, str) else json.dumps(told) for name, told in recipes.items()}
    return "Recipes:\n\n" + "\n".join(f"- {name}: `{text}`" for name, text in told.items())


def real_faces(data: Record) -> str:
    """The study on real faces: the methods on each set.

    Args:
        data: ``real_faces.json``; its ``teacher`` is one row, or one per set.
    """
    teachers = data["teacher"] if isinstance(data["teacher"], list) else [data["teacher"]]
    parts = []
    for name, rows in grouped(data["rows"], "set").items():
        parts.append(f"On `{name}` ({rows[0]['protocol']}):")
        parts.append(methods_table(rows, [row for row in teachers if row["set"] == name]))
    return "\n\n".join(parts)


def real_faces_in_full(data: Record) -> str:
    """The study on real faces with every single run, and the recipes it took."""
    parts = [real_faces(data)]
    for name, rows in grouped(data["rows"], "set").items():
        parts += [f"Each run on `{name}`, with 95 % intervals that resample people:", runs_table(rows)]
    parts.append(recipe_list(data["recipes"]))
    return "\n\n".join(parts)


def demo(data: Record) -> str:
    """The models of ``make demo``, and how long each of its steps took."""
    rows = data["rows"]
    fprs = fprs_of(rows)
    body = [[row["model"], *size_cells(row), *(tpr_cell([row], fpr) for fpr in fprs)] for row in rows]
    table = markdown_table(["model", "parameters", "MACs", *tpr_heads(fprs)], body) + star_note(rows)
    steps = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in data["seconds"].items())
    return f"{table}\n\n{steps}; {sum(data['seconds'].values()):.0f} s in all."


def synthetic_speed(data: Record) -> str:
    """How many synthetic faces a second one core draws."""
    rows = [
        [clock, f"{data[key]['median']:,.0f}", "{:,.0f} to {:,.0f}".format(*data[key]["iqr"])]
        for clock, key in (("wall clock", "wall"), ("processor time", "cpu"))
    ]
    table = markdown_table(["clock", f"median, {data['unit']}", "middle half"], rows)
    return f"{table}\n\n{data['repeats']} repeats of {data['images_per_repeat']} images on {data['threads']} thread."


def lies_within(bound: Record) -> bool:
    """Whether every value lies between ``low`` and ``high``; None is no bound, and no values are none that lie there.

    Example:
        >>> lies_within({"low": 0.3, "high": None, "values": [0.31, 0.5]})
        True
        >>> lies_within({"low": 0.3, "high": None, "values": [0.3, 0.5]})
        False
    """
    low, high, values = bound["low"], bound["high"], bound["values"]
    return bool(values) and (low is None or min(values) > low) and (high is None or max(values) < high)


def bounds_table(bounds: Sequence[Record]) -> str:
    """Figures beside the interval they must lie in, and whether they do."""
    body = []
    for bound in bounds:
        limits = [f"above {bound['low']:g}"] if bound["low"] is not None else []
        limits += [f"below {bound['high']:g}"] if bound["high"] is not None else []
        held = "yes" if lies_within(bound) else "no"
        body.append([bound["figure"], ", ".join(limits), spread(bound["values"]), held])
    return markdown_table(["figure", "must be", "found", "holds"], body)


def synthetic_hardness(data: Record) -> str:
    """What drawn faces must show, and the figures of every method it rests on."""
    rows = data["rows"]
    fprs = fprs_of(rows)
    body = []
    for name, group in grouped(rows, "method").items():
        first = group[0]
        faces = f"{first['identities']:,} x {first['samples']}" if "identities" in first else "-"
        seeds = "-" if first["seed"] is None else str(len(group))
        cells = [name, *size_cells(first), faces, str(first.get("epochs", "-")), seeds]
        body.append([*cells, *(tpr_cell(group, fpr) for fpr in fprs), spread([row["auc"] for row in group], 5)])
    head = ["method", "parameters", "MACs", "people x images", "epochs", "seeds", *tpr_heads(fprs), "AUC"]
    shown = markdown_table(head, body) + star_note(rows)
    people = f"On {rows[0]['genuine']:,} genuine and {rows[0]['impostor']:,} impostor pairs of people never trained on."
    return "\n\n".join([bounds_table(data["bounds"]), people, shown, recipe_list(data["recipes"])])


def data_loading(data: Record) -> str:
    """What opening and reading a ``.rec`` costs."""
    named = {"with_index": "with its `.idx`", "without_index": "without, walking the file"}
    opened = [
        [named[name], f"{found['seconds']['median']:.2f}", *(f"{found[key]['median']:.0f}" for key in MEMORY)]
        for name, found in data["opening"].items()
    ]
    rows = [
        [name, *("{:,.0f} ({:,.0f} to {:,.0f})".format(cell["median"], *cell["iqr"]) for cell in rates), ratio]
        for name, found in data["reading"].items()
        for rates in [(found["read"], found["decode"])]
        for ratio in ["{:.3f} ({:.3f} to {:.3f})".format(found["ratio"]["median"], *found["ratio"]["iqr"])]
    ]
    return "\n\n".join(
        [
            f"Opening {data['images']:,} images ({data['bytes'] / 1e6:,.0f} MB), median of processes of their own:",
            markdown_table(["index", "seconds", "peak memory, MiB", "of it for the images, MiB"], opened),
            "Reading an image against `cv2.imdecode` alone on the same bytes, by turns: median and middle half.",
            markdown_table(["by", f"read, {data['unit']}", f"decode alone, {data['unit']}", "ratio"], rows),
            f"{data['repeats']} repeats of {data['images_per_repeat']} images.",
        ]
    )
