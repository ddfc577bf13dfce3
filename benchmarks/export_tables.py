"""Tables of exported files: what their forms cost in accuracy, and how fast students run."""

from __future__ import annotations

from statistics import median

from benchmarks.tables import Record, grouped, markdown_table, size_cells


def exports(data: Record) -> str:
    """Each model in every form, measured from the file, beside its fp32 file.

    Args:
        data: ``exports.json``.
    """
    head = ["model", "form", "size, MB", "of fp32", "smallest cosine", "accuracy", "TPR @ 1e-2"]
    head += ["in integers", "read by"]
    parts = []
    for name, measured in grouped(data["rows"], "set").items():
        body = []
        for model, rows in grouped(measured, "model").items():
            whole = next(row for row in rows if row["form"] == "fp32")
            body += [[model, *_export_cells(row, whole)] for row in rows]
        told = (
            f"On `{name}`, {measured[0]['pairs']:,} pairs, without mirrored images; ranges of {data['faces']} faces; "
        )
        told += f"the TPR rests on about {measured[0]['tpr_at_fpr'][0]['false_accepts']} false accepts:"
        parts += [told, markdown_table(head, body)]
    return "\n\n".join(parts)


def _export_cells(row: Record, whole: Record) -> list[str]:
    """Form, size, nearness to the model, figures beside those of the fp32 file, integers and runtimes."""
    cells = [row["form"], f"{row['bytes'] / 1e6:.2f}", f"{row['bytes'] / whole['bytes']:.3f}"]
    cells += [f"{row['min_cosine']:.5f}", _beside(row, whole, "accuracy"), _beside(row, whole, "tpr")]
    cells.append(f"{row['integer']} of {row['integer'] + row['left']}" if "integer" in row else "-")
    return [*cells, ", ".join(row["runtimes"])]


def _beside(row: Record, whole: Record, what: str) -> str:
    """A figure, and its difference to that of the fp32 file; all pairs of a set have no accuracy."""
    if whole["accuracy"] is None and what == "accuracy":
        return "-"
    own, other = (r["accuracy"]["mean"] if what == "accuracy" else r["tpr_at_fpr"][0]["tpr"] for r in (row, whole))
    return f"{own:.4f}" if row is whole else f"{own:.4f} ({own - other:+.4f})"


TIMED = {
    "torch": ("torch", "torch"),
    "plain": ("plain", "onnxruntime"),
    "PReLU rewritten": ("rewritten", "onnxruntime"),
    "fp16": ("fp16", "onnxruntime"),
    "int8": ("int8", "onnxruntime"),
    "OpenCV, plain": ("plain", "opencv"),
    "OpenCV, rewritten": ("rewritten", "opencv"),
}
"""Columns of the latency table -> the form and the runtime they show."""


def latency(data: Record) -> str:
    """Every student: its sizes, milliseconds of each form and runtime, and what other forms are worth in onnxruntime.

    Args:
        data: ``latency.json``.
    """
    sizes, times = [], []
    for student in data["students"]:
        files = student["bytes"]
        cells = [f"{files['plain'] / 1e6:.2f}", *(f"{files[form] / files['plain']:.3f}" for form in ("fp16", "int8"))]
        sizes.append([student["student"], *size_cells(student), *cells])
        found = {(row["form"], row["runtime"], row["batch"]): median(row["seconds"]) for row in student["rows"]}
        for batch in (1, data["batch"]):
            seconds = {name: found.get((*what, batch)) for name, what in TIMED.items()}
            shown = ["-" if value is None else f"{value * 1e3:.1f}" for value in seconds.values()]
            whole = seconds["PReLU rewritten"] or seconds["plain"]
            ratios = [_ratio(seconds["PReLU rewritten"], seconds["plain"]), _ratio(seconds["int8"], whole)]
            times.append([student["student"], str(batch), *shown, *ratios])
    head = ["student", "parameters", "MACs", "fp32, MB", "fp16, of it", "int8, of it"]
    heads = ["student", "batch", *(f"{name}, ms" for name in TIMED), "rewritten / plain", "int8 / fp32"]
    told = (
        f"Milliseconds a batch, in onnxruntime where nothing else is said: medians of {data['turns']} turns of "
        f"{data['repeats']} passes (the larger batch: {max(3, data['repeats'] // 3)}), {data['threads']} threads; read "
        "the ratios. A student without PReLU has no rewritten file. int8 is compared with the rewritten file, or the "
        "plain one where there is none; it runs every operation in integers, which a file that must keep its accuracy "
        "does not."
    )
    return "\n\n".join([markdown_table(head, sizes), markdown_table(heads, times), told])


def _ratio(value: float | None, other: float | None) -> str:
    return "-" if value is None or other is None else f"{value / other:.2f}"


def exported_latency(data: Record) -> str:
    """The files of real models: milliseconds of each form, and what fewer bits are worth.

    Args:
        data: ``exported_latency.json``.
    """
    body = []
    for model, rows in grouped(data["rows"], "model").items():
        for batch, forms in grouped(rows, "batch").items():
            cells = []
            for row in forms:
                low, high = row["ratio"]["iqr"]
                beside = f" ({row['ratio']['median']:.2f}, {low:.2f} to {high:.2f})" if row["form"] != "fp32" else ""
                cells.append(f"{median(row['seconds']) * 1e3:.1f}{beside}")
            body.append([model, str(batch), *cells])
    told = (
        f"Milliseconds a batch in onnxruntime, {data['threads']} threads: medians of {data['turns']} turns; in "
        "brackets the ratio to float32 within a turn, and its quartiles. These files have passed every gate: what hurt "
        "is in float."
    )
    head = ["model", "batch", *dict.fromkeys(row["form"] for row in data["rows"])]
    return "\n\n".join([markdown_table(head, body), told])
