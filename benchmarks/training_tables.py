"""What a step of training costs, as Markdown."""

from __future__ import annotations

from benchmarks.classifier_tables import spread_cell
from benchmarks.tables import Record, markdown_table
from benchmarks.training_speed import ALONE, FLOOR

KEYS = ("forecast", "measured", "ratio")


def training_speed(data: Record) -> str:
    """A step of every way beside the student's own arithmetic."""
    bare = data["seconds"][FLOOR]["median"]
    reached = 6e-9 * data["student_macs"] * data["batch"] / bare
    told = (
        f"Student `{data['student']}` ({data['student_macs'] / 1e6:,.0f} M multiply-accumulates), teacher "
        f"`{data['teacher']}`, batch {data['batch']}, {data['classes']:,} classes, {data['threads']} thread. Median "
        f"and middle half of {data['repeats']} steps; ratios are within a round. The bare forward and backward reach "
        f"{reached:.0f} GFLOP/s, a matrix product beside them {spread_cell(data['product_gflops'], 0)}. The plain "
        "student learns without channels_last, decodes and normalises image by image, and holds every logit."
    )
    rows = [
        [
            name,
            spread_cell(found, 2),
            f"{1000 * found['median'] / data['batch']:.1f}",
            *(spread_cell(data["ratio"][base][name], 2) for base in (FLOOR, ALONE)),
            f"{data['peak_mib'][name]:,.0f}",
        ]
        for name, found in data["seconds"].items()
    ]
    head = ["step", "seconds", "ms an image", f"times {FLOOR}", f"times {ALONE}", "memory, MiB"]
    return f"{told}\n\n{markdown_table(head, rows)}"


def student_speed(data: Record) -> str:
    """What every student computes in a second of training, beside a matrix product."""
    rows = [
        [
            name,
            f"{found['macs'] / 1e6:,.1f}",
            spread_cell(found["images_per_second"], 0),
            *(spread_cell(found["gflops"][what], 0) for what in ("student", "product")),
            spread_cell(found["share"], 2),
        ]
        for name, found in data["students"].items()
    ]
    told = (
        f"Forward and backward in batches of {data['batch']}, {data['threads']} threads, beside a product of square "
        f"matrices; median and middle half of {data['repeats']} rounds. What a student does beside its products, "
        "BatchNorm and activations, reads and writes memory and computes next to nothing."
    )
    head = ["student", "M multiply-accumulates", "images a second", "GFLOP/s", "product, GFLOP/s", "share of it"]
    return f"{told}\n\n{markdown_table(head, rows)}"


def forecasts(data: Record) -> str:
    """What runs were said to cost beside what they cost."""
    told = (
        f"Steps of runs with {data['classes']:,} classes, teacher `{data['teacher']}`, {data['threads']} thread; "
        f"median and middle half of {data['repeats']} turns of forecast and run. A forecast is to lie within "
        f"{100 * data['target']:.0f} % of what is measured; memory is that of tensors and kept images."
    )
    rows = []
    for name, case in data["cases"].items():
        cells = [spread_cell(case[what][key], digits) for what, digits in (("seconds", 2), ("mib", 0)) for key in KEYS]
        within = all(abs(case[what]["ratio"]["median"] - 1) <= data["target"] for what in ("seconds", "mib"))
        rows.append([name, str(case["batch"]), *cells, "yes" if within else "no"])
    head = ["run", "batch", *(f"{what}, {key}" for what in ("seconds", "MiB") for key in KEYS), "within"]
    return f"{told}\n\n{markdown_table(head, rows)}"
