"""``facekd export``: a model to one ONNX file that is known to equal it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekd.errors import UsageError

from .common import (
    check_models,
    check_paths,
    console,
    foreign_options,
    json_option,
    open_model,
    progress_bar,
    write_json,
)

if TYPE_CHECKING:
    from facekd.engine.export.exporter import Evidence
    from facekd.engine.export.form import Form
    from facekd.engine.export.report import ExportReport
    from facekd.models.embedder import Embedder


class Batch(click.ParamType):
    """``dynamic``, or a whole number from 1."""

    name = "dynamic|N"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        text = str(value)
        if text == "dynamic":
            return text
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            self.fail(f"{text} is neither dynamic nor a whole number from 1", param, ctx)
        return int(text)


@click.command("export", short_help="Write a model as one ONNX file that equals it.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .onnx file to write.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    show_default=True,
    help="fp16: half the size, float32 in and out. int8: a third of it, in integers where that does no harm.",
)
@click.option(
    "--preprocess",
    type=click.Choice(["plain", "baked", "uint8"]),
    help="plain: the file expects normalised input in the model's colour order. baked: RGB values 0..255. uint8: "
    "pictures of bytes (batch, height, width, 3) in the order blue, green, red.  [default: plain; of an ONNX file: as "
    "it is]",
)
@click.option("--batch", type=Batch(), help="Batch size the file takes.  [default: dynamic; of an ONNX file: its own]")
@click.option("--unit", is_flag=True, help="Give embeddings of length one.")
@click.option("--keep-prelu", is_flag=True, help="Leave each PReLU: OpenCV may run it faster, onnxruntime slower.")
@click.option("--calibrate", type=click.Path(path_type=Path), help="Aligned faces that int8 takes its ranges from.")
@click.option("--on", "sets", multiple=True, type=click.Path(path_type=Path), help="Measure model and file on it, too.")
@click.option("--images", type=click.Path(path_type=Path), help="Root of the paths in lists.  [default: their folder]")
@click.option(
    "--max-drop",
    type=click.FloatRange(0, 1),
    help="Refuse a file whose TPR on a set falls by more, at any FPR of 30 false accepts or more.",
)
@foreign_options
@click.option("--opencv/--no-opencv", default=True, help="Check the file in OpenCV as well (default: yes).")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def command(
    model: Path,
    output: Path,
    precision: str,
    preprocess: str | None,
    batch: str | int | None,
    unit: bool,
    keep_prelu: bool,
    calibrate: Path | None,
    sets: Sequence[Path],
    images: Path | None,
    max_drop: float | None,
    color: str | None,
    normalize: str | None,
    opencv: bool,
    force: bool,
    json_path: str | None,
) -> None:
    """Write MODEL (a run folder, .safetensors, .pth, .pt, .ckpt, hf:owner/name/file, timm/NAME, or an .onnx file that
    computes in float) as one ONNX file.

    The file is run in onnxruntime and OpenCV at several batch sizes before it gets its name: when an embedding differs
    from the model's by more than its precision explains, nothing is written and the exit code is 1. PReLU is written in
    other words, which are exact and meant for onnxruntime on a CPU. The file holds its preprocessing, digests, licences
    and the thresholds kept in or beside MODEL as metadata (embeddings of int8 and --unit files differ: calibrate those
    again), and never refers to a second file. Beside it are written FILE.manifest.json, the same for programs, and
    FILE.card.md for people.

    \b
    Example:
      facekd export runs/student -o student.onnx
      facekd export runs/student -o phone.onnx --preprocess baked --batch 1
      facekd export runs/student -o small.onnx --precision int8 --calibrate faces/ --on lfw.bin --max-drop 0.005
      facekd export teacher.onnx -o fast.onnx --color rgb --normalize none
    """
    check_models([model])
    check_paths(*sets, calibrate, images)
    from facekd.engine.evaluation.calibration import with_calibration
    from facekd.engine.export.card import check_side_files, write_side_files
    from facekd.engine.export.exporter import export_onnx
    from facekd.engine.export.form import Form, check_output, settled
    from facekd.models.embedder import TorchEmbedder
    from facekd.models.onnx_model import OnnxEmbedder

    check_output(output, force=force)
    check_side_files(output, force=force)
    _check_options(precision, calibrate, sets, max_drop)
    embedder = open_model(model, color, normalize)
    if isinstance(embedder, TorchEmbedder | OnnxEmbedder):
        embedder = with_calibration(embedder, model)
    form = settled(Form(preprocess, batch, precision, unit, keep_prelu), embedder)
    with progress_bar() as progress:
        evidence = _evidence(embedder, form, calibrate, images, sets, max_drop)
        report = export_onnx(embedder, output, form, evidence=evidence, opencv=opencv, force=force, progress=progress)
    write_side_files(report)
    if json_path:
        write_json(report.to_json(), json_path)
    _print(report)


def _check_options(precision: str, calibrate: Path | None, sets: Sequence[Path], max_drop: float | None) -> None:
    if precision == "int8" and calibrate is None:
        raise UsageError("--precision int8", "takes its ranges from faces", "give some with --calibrate DATA")
    if precision != "int8" and calibrate is not None:
        raise UsageError("--calibrate", f"{precision} takes no ranges", "leave it out, or ask for --precision int8")
    if max_drop is not None and not sets:
        raise UsageError("--max-drop", "nothing to measure the fall on", "name a set with --on")


def _evidence(
    embedder: Embedder,
    form: Form,
    calibrate: Path | None,
    images: Path | None,
    sets: Sequence[Path],
    max_drop: float | None,
) -> Evidence:
    from facekd.data.open_source import open_identities
    from facekd.engine.evaluation.evaluation_sets import open_set
    from facekd.engine.evaluation.figures import EvalSettings
    from facekd.engine.export.checks import held_out
    from facekd.engine.export.exporter import Evidence
    from facekd.engine.export.judge import RANGED, judge_on, some_faces

    opened = [open_set(path, images=images) for path in sets]
    judge = judge_on(embedder, opened, EvalSettings(bootstrap=0), max_drop) if opened else None
    size, most = embedder.preprocessing.size, held_out(form)
    if calibrate is not None:
        return Evidence(some_faces(open_identities(calibrate, images), size, RANGED + most, "--calibrate"), judge)
    return Evidence(some_faces(opened[0].images, size, most, "--on") if opened else None, judge)


def _print(report: ExportReport) -> None:
    from rich.table import Table

    out = console()
    table = Table("runtime", "batch", "max difference", "relative", "1 - min cosine")
    for check in report.parity:
        figures = (check.max_abs, check.max_relative, 1 - check.min_cosine)
        table.add_row(check.runtime, str(check.batch), *(f"{figure:.1e}" for figure in figures))
    out.print(table)
    shapes = [" x ".join(str(side) for side in shape) for shape in (report.input_shape, report.output_shape)]
    told = f"{report.input}: {shapes[0]}, {report.preprocess}; {report.output}: {shapes[1]}"
    out.print(f"{told}; {report.precision}, opset {report.opset}")
    if report.prelu_rewritten:
        out.print(f"{report.prelu_rewritten} PReLU written as depthwise convolutions and ReLU")
    if report.quantised is not None:
        done = report.quantised
        kept = f"{len(done.left)} left in float, ranges of {done.faces} faces"
        out.print(f"{done.integer} operations in integers, {kept}")
    for result in report.measured:
        points = ", ".join(f"TPR {point['tpr']:.4f} at FPR {point['fpr']:g}" for point in result["tpr_at_fpr"])
        mean = "" if result["accuracy"] is None else f"accuracy {result['accuracy']['mean']:.4f}, "
        out.print(f"{result['model']} on {result['set']}: {mean}{points}", markup=False, soft_wrap=True)
    for note in report.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
    ratio = f", {report.bytes / report.float_bytes:.2f} of fp32" if report.precision != "fp32" else ""
    out.print(f"wrote {report.file} ({report.bytes / 1e6:.2f} MB{ratio})", soft_wrap=True)
