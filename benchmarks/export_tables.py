"""Tables of exported files: what their forms cost in accuracy, and how fast students run."""

from __future__ import annotations

from statistics import median

from benchmarks.tables import Record, grouped, markdown_table, size_cells


def exports(data: Record) -> str:
    """Each model in every form, measured from the file, beside its fp32 file.

    Args:
        data: ``exports.json``.
    """
    head = [
        "model",
        "form",
        "size, MB",
        "of fp32",
        "smallest cosine",
        "accuracy",
        "TPR @ 1e-2",
        "in integers",
        "read by",
    ]
    body = []
    for name, rows in grouped(data["rows"], "model").items():
        whole = next(row for row in rows if row["form"] == "fp32")
        for row in rows:
            point = row["tpr_at_fpr"][0]
            cells = [name, row["form"], f"{row['bytes'] / 1e6:.2f}", f"{row['bytes'] / whole['bytes']:.3f}"]
            cells += [f"{row['min_cosine']:.5f}", _beside(row, whole, "accuracy"), _beside(row, whole, "tpr")]
            cells.append(f"{row['integer']} of {row['integer'] + row['left']}" if "integer" in row else "-")
            body.append([*cells, ", ".join(row["runtimes"])])
    pairs, false_accepts = data["rows"][0]["pairs"], point["false_accepts"]
    told = f"{pairs:,} pairs of `{data['rows'][0]['set']}`, without mirrored images; ranges of {data['faces']} faces; "
    told += f"the TPR rests on about {false_accepts} false accepts."
    return f"{markdown_table(head, body)}\n\n{told}"


def _beside(row: Record, whole: Record, what: str) -> str:
    """A figure, and its difference to that of the fp32 file."""
    own, other = (r["accuracy"]["mean"] if what == "accuracy" else r["tpr_at_fpr"][0]["tpr"] for r in (row, whole))
    return f"{own:.4f}" if row is whole else f"{own:.4f} ({own - other:+.4f})"


def latency(data: Record) -> str:
    """Every student: milliseconds of each form and runtime, and what rewriting PReLU is worth in onnxruntime.

    Args:
        data: ``latency.json``.
    """
    batch = data["batch"]
    columns = [("pytorch", "torch"), ("PReLU kept", "onnxruntime"), ("rewritten", "onnxruntime")]
    columns += [("PReLU kept", "opencv"), ("rewritten", "opencv")]
    head = ["student", "parameters", "MACs", "batch", *(f"{runtime}, {form}" for form, runtime in columns)]
    head.append("rewritten of kept, onnxruntime")
    body = []
    for student in data["students"]:
        times = {(row["form"], row["runtime"], row["batch"]): median(row["seconds"]) for row in student["rows"]}
        for size in dict.fromkeys((1, batch)):
            found = [times.get((*column, size)) for column in columns]
            cells = ["-" if value is None else f"{value * 1e3:.1f} ms" for value in found]
            ratio = "-" if found[1] is None or found[2] is None else f"{found[2] / found[1]:.2f}"
            body.append([student["student"], *size_cells(student), str(size), *cells, ratio])
    told = f"Medians of {data['turns']} turns of {data['repeats']} passes, {data['threads']} threads; read ratios."
    return f"{markdown_table(head, body)}\n\n{told} A student without PReLU is one file only, under 'PReLU kept'."
