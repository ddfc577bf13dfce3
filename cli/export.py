"""``facekd export``: a model to one ONNX file that is known to equal it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekd.errors import UsageError

from .common import console, foreign_options, json_option, open_model, progress_bar, write_json

if TYPE_CHECKING:
    from facekd.engine.exporter import ExportReport


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
    "--preprocess",
    type=click.Choice(["plain", "baked"]),
    default="plain",
    show_default=True,
    help="plain: the file expects normalised input in the model's colour order. baked: it expects RGB values 0..255.",
)
@click.option("--batch", type=Batch(), default="dynamic", show_default=True, help="Batch size the file takes.")
@foreign_options
@click.option("--opencv/--no-opencv", default=True, help="Check the file in OpenCV as well (default: yes).")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@json_option
def command(
    model: Path,
    output: Path,
    preprocess: str,
    batch: str | int,
    color: str | None,
    normalize: str | None,
    opencv: bool,
    force: bool,
    json_path: str | None,
) -> None:
    """Write MODEL (a run folder, .safetensors, .pth, .pt, .ckpt, hf:owner/name/file or timm/NAME) as one ONNX file.

    The file is run in onnxruntime and OpenCV at several batch sizes before it gets its name: when an embedding differs
    from the model's, nothing is written and the exit code is 1. The file holds its preprocessing, digests, licences and
    the thresholds that facekd calibrate kept as metadata, and never refers to a second file.

    \b
    Example:
      facekd export runs/student -o student.onnx
      facekd export runs/student -o phone.onnx --preprocess baked --batch 1
    """
    from facekd.engine.calibration import with_calibration
    from facekd.engine.exporter import check_output, export_onnx
    from facekd.models.embedder import TorchEmbedder

    if model.suffix.lower() == ".onnx":
        raise UsageError(str(model), "is an ONNX file already", "give the run folder or checkpoint it was made from")
    check_output(output, force=force)
    embedder = open_model(model, color, normalize)
    if isinstance(embedder, TorchEmbedder):
        embedder = with_calibration(embedder, model)
    with progress_bar() as progress:
        report = export_onnx(
            embedder, output, preprocess=preprocess, batch=batch, opencv=opencv, force=force, progress=progress
        )
    if json_path:
        write_json(report.to_json(), json_path)
    _print(report)


def _print(report: ExportReport) -> None:
    from rich.table import Table

    out = console()
    table = Table("runtime", "batch", "max difference", "relative", "1 - min cosine")
    for check in report.parity:
        figures = (check.max_abs, check.max_relative, 1 - check.min_cosine)
        table.add_row(check.runtime, str(check.batch), *(f"{figure:.1e}" for figure in figures))
    out.print(table)
    shapes = [" x ".join(str(side) for side in shape) for shape in (report.input_shape, report.output_shape)]
    out.print(f"{report.input}: {shapes[0]}, {report.preprocess}; {report.output}: {shapes[1]}; opset {report.opset}")
    for note in report.notes:
        out.print(f"note: {note}")
    out.print(f"wrote {report.file} ({report.bytes / 1e6:.2f} MB)")
