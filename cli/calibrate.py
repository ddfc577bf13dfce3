"""``facekd calibrate``: thresholds and probabilities to ship with a model."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp
from pathlib import Path
from typing import Any

import click

from facekd.errors import UsageError
from facekd.model_names import is_model_name

from .common import (
    Fpr,
    check_models,
    check_paths,
    console,
    device_option,
    foreign_options,
    open_model,
    progress_bar,
    resize_option,
)

FPRS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@click.command("calibrate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--on", "data", required=True, type=click.Path(path_type=Path), help="Faces of people not trained on.")
@click.option("--images", type=click.Path(path_type=Path), help="Root of the paths in a list.  [default: its folder]")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The .json file to write.  [default: calibration.json in the run folder, or FILE.calibration.json]",
)
@click.option("--fpr", "fprs", multiple=True, type=Fpr(), help="Threshold for it, repeatable.  [default: 1e-2 to 1e-6]")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Add the embedding of the mirrored image.")
@click.option(
    "--bootstrap",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Replicates behind each interval.",
)
@foreign_options
@resize_option
@click.option("--batch", type=click.IntRange(1, 65536), default=128, show_default=True, help="Images per forward pass.")
@device_option
def command(
    model: Path,
    data: Path,
    images: Path | None,
    output: Path | None,
    fprs: Sequence[float],
    flip: bool,
    bootstrap: int,
    color: str | None,
    normalize: str | None,
    allow_resize: bool,
    batch: int,
    device: str,
) -> None:
    """Find the thresholds of MODEL at false positive rates, and the probability of one person by score, and keep both
    beside it.

    A set is what facekd eval takes with --on, but for templates (IJB, TinyFace): pairs, or a folder or list of
    identities. Use people and cameras like those of your users, none of them trained on: a threshold holds where it was
    found. Each threshold is written as cosine (accept at or above), as distance of unit vectors (accept at or below)
    and as percent; rates that the impostor pairs are too few to show are refused. Probabilities hold where one person
    and two were equally likely beforehand.

    \b
    Example:
      facekd calibrate runs/student --on faces.csv --images faces/
      facekd calibrate student.onnx --on lfw_pairs.txt --images lfw112 -o thresholds.json
    """
    check_models([model])
    check_paths(data, images)
    from facekd.engine.evaluation.calibration import calibrate_model, calibration_place, calibration_record
    from facekd.engine.evaluation.evaluation_sets import open_set
    from facekd.engine.evaluation.figures import EvalSettings
    from facekd.engine.signals import interruptible
    from facekd.engine.training.build import resolve_device
    from facekd.files import write_json

    if output is None and is_model_name(str(model)):
        raise UsageError("-o", f"missing, and {model} has no place to keep it", "name a file: -o thresholds.json")
    place = output or calibration_place(model)
    if not place.absolute().parent.is_dir():
        raise UsageError(str(place), "its folder does not exist", "make it first")
    wanted, on = tuple(dict.fromkeys(fprs or FPRS)), str(resolve_device(device))
    settings = EvalSettings(wanted, flip, batch, bootstrap, allow_resize=allow_resize, device=on)
    opened = open_set(data, images=images)
    for warning in opened.warnings:
        click.echo(f"facekd: warning: {warning}", err=True)
    embedder = open_model(model, color, normalize, device)
    with interruptible("facekd calibrate", "stopped; nothing was written") as poll, progress_bar() as progress:
        replicates = min(bootstrap, 200)
        found = calibrate_model(embedder, opened, settings, replicates=replicates, progress=progress, poll=poll)
    record = calibration_record(embedder, opened, found, settings)
    write_json(place, record)
    _print(record)
    console().print(f"wrote {place}", soft_wrap=True)


def _print(record: dict[str, Any]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD)
    for name in ("FPR", "cosine", "distance", "percent", "TPR", "95 % interval", "P(one person)"):
        table.add_column(name, justify="right", no_wrap=True)
    odds = record["probability"]
    for entry in record["thresholds"]:
        chance = 1 / (1 + exp(-(odds["intercept"] + odds["slope"] * entry["cosine"])))
        interval = "" if entry["ci95"] is None else "{:.4f}-{:.4f}".format(*entry["ci95"])
        star = "" if entry["supported"] else "*"
        numbers = (f"{entry['cosine']:.4f}{star}", f"{entry['distance']:.4f}", f"{entry['percent']:.2f}")
        table.add_row(f"{entry['fpr']:g}", *numbers, f"{entry['tpr']:.5f}", interval, f"{chance:.4f}")
    out = console()
    out.print(table)
    if not all(entry["supported"] for entry in record["thresholds"]):
        out.print("* rests on fewer than 30 false accepts: the threshold is uncertain", markup=False)
    for entry in record["refused"]:
        told = f"it needs {entry['needed']:,} impostor pairs, the set has {entry['impostors']:,}"
        out.print(f"FPR {entry['fpr']:g} refused: {told}", markup=False, soft_wrap=True)
