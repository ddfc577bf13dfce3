"""``facekd bench``: how large a model is, and how fast on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import (
    check_models,
    console,
    device_option,
    foreign_options,
    json_option,
    open_model,
    progress_bar,
    write_json,
)


@click.command("bench", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--batch", type=click.IntRange(1, 4096), default=32, show_default=True, help="Faces in the larger batch.")
@click.option("--repeats", type=click.IntRange(3, 10_000), default=30, show_default=True, help="Measurements of each.")
@click.option("--threads", type=click.IntRange(0, 1024), default=0, help="Of each runtime.  [default: its own choice]")
@click.option("--opencv/--no-opencv", default=True, help="Measure in OpenCV as well (default: yes).")
@click.option(
    "--export/--no-export", default=True, help="Measure a PyTorch model as an exported file, too (default: yes)."
)
@foreign_options
@device_option
@json_option
def command(
    model: Path,
    batch: int,
    repeats: int,
    threads: int,
    opencv: bool,
    export: bool,
    color: str | None,
    normalize: str | None,
    device: str,
    json_path: str | None,
) -> None:
    """Tell the parameters, multiply-accumulates, file size and latency of MODEL, for one face and for a batch.

    ONNX files are measured in onnxruntime and OpenCV; PyTorch models in torch, and in these two as the float32 file
    that facekd export makes of them. Preprocessing is not in it. Times of a busy machine are times of a busy machine:
    look at the quartiles.

    \b
    Example:
      facekd bench student.onnx
      facekd bench runs/student --batch 64 --threads 1
    """
    check_models([model])
    from facekd.engine.latency import Timing, bench

    embedder = open_model(model, color, normalize, device)
    with progress_bar() as progress:
        figures = bench(embedder, model, Timing(batch, repeats, threads, opencv, export), progress=progress)
    if json_path:
        write_json(figures, json_path)
    _print(figures)


def _print(figures: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    macs = "" if figures["macs"] is None else f", {figures['macs'] / 1e6:,.1f} M multiply-accumulates"
    size = "" if figures["bytes"] is None else f", {figures['bytes'] / 1e6:.2f} MB"
    exported = "" if figures["exported_bytes"] is None else f", exported {figures['exported_bytes'] / 1e6:.2f} MB"
    out.print(f"{figures['model']}: {figures['parameters']:,} parameters{macs}{size}{exported}", soft_wrap=True)
    table = Table("runtime", "batch", "median, ms", "quartiles, ms", "95 of 100 below, ms", "images/s")
    for entry in figures["latency"]:
        low, high = entry["quartiles"]
        cells = (f"{entry['median'] * 1e3:.2f}", f"{low * 1e3:.2f}-{high * 1e3:.2f}", f"{entry['slowest'] * 1e3:.2f}")
        where = entry["runtime"] if entry["device"] == "cpu" else f"{entry['runtime']}, {entry['device']}"
        table.add_row(where, str(entry["batch"]), *cells, f"{entry['images_per_second']:,.1f}")
    out.print(table)
    for note in figures["notes"]:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
