"""``facekd embed``: store the embeddings of a data set."""

from __future__ import annotations

from pathlib import Path

import click

from facekd.errors import UsageError

from .common import (
    check_models,
    check_paths,
    console,
    device_option,
    foreign_options,
    open_model,
    precision_option,
    progress_bar,
    resize_option,
)


@click.command("embed", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .npz file to write.")
@click.option("--images", type=click.Path(path_type=Path), help="Root of the paths in a list.  [default: its folder]")
@click.option("--flip/--no-flip", default=True, show_default=True, help="Add the embedding of the mirrored image.")
@click.option("--uncertainty", is_flag=True, help="Also write how sure the model is of each image.")
@foreign_options
@resize_option
@precision_option
@click.option("--batch", type=click.IntRange(1, 65536), default=128, show_default=True, help="Images per forward pass.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@device_option
def command(
    model: Path,
    data: Path,
    output: Path,
    images: Path | None,
    flip: bool,
    uncertainty: bool,
    color: str | None,
    normalize: str | None,
    allow_resize: bool,
    precision: str,
    batch: int,
    force: bool,
    device: str,
) -> None:
    """Write the embeddings of DATA, images with identities, made by MODEL.

    DATA is a folder with a folder per identity, a .rec (or a folder with one), a .tar (or a folder of them), or a list:
    .csv, .tsv or .parquet with the columns path and identity.

    The file holds the arrays embeddings (float32, not normalised), labels, names, identities, model, model_digest,
    flip and precision; facekd eval takes it in place of a model. With --uncertainty also log_variance, the log of sigma
    squared of each dimension or of the whole, and uncertainty, the harmonic mean of these variances, one an image: for
    a run that was trained with dul, dul_regression, pfe or pad, whose uncertainty.safetensors lies beside its student.

    What is done lies in FILE.npz.partial until the file is complete: stopped by a signal or a crash, the same command
    goes on from there and writes the same bytes. Another model, list of images, --flip or --batch starts anew.

    \b
    Example:
      facekd embed runs/student faces/ -o faces.npz
      facekd embed teacher.onnx lfw_test.csv --images lfw112 -o teacher.npz
      facekd embed runs/student faces/ -o faces.npz --uncertainty
      facekd eval faces.npz --fpr 1e-4
    """
    _check_output(output, force)
    check_models([model])
    check_paths(data, images)
    from facekd.data.open_source import open_identities
    from facekd.engine.embed import Passes
    from facekd.engine.embed_file import embed_to_file, partial_folder
    from facekd.engine.precision import precision_line, precision_told
    from facekd.engine.resumable import Watched
    from facekd.engine.signals import interruptible
    from facekd.engine.uncertainty import embed_with_uncertainty, with_variance
    from facekd.models.embedder import in_precision

    source = open_identities(data, images)
    for warning in source.warnings:
        click.echo(f"facekd: warning: {warning}", err=True)
    embedder = in_precision(open_model(model, color, normalize, device), precision)
    kept = f"stopped; what is done is kept in {partial_folder(output)}, the same command goes on from there"
    passes = Passes(batch, flip, allow_resize)
    sure = with_variance(embedder, model) if uncertainty else None
    with interruptible("facekd embed", kept) as poll, progress_bar() as progress:
        if sure is None:
            embed_to_file(embedder, source, output, passes=passes, progress=progress, poll=poll)
        else:
            watched = Watched(progress, poll)
            embed_with_uncertainty(sure, source, output, passes=passes, watched=watched)
    count = f"{len(source):,} embeddings of {len(source.names):,} identities"
    told = precision_line(embedder.name, precision_told(embedder, source.read, len(source)))
    if told is not None:
        console().print(told, soft_wrap=True)
    console().print(f"wrote {output}: {count}", soft_wrap=True)


def _check_output(output: Path, force: bool) -> None:
    if output.suffix.lower() != ".npz":
        raise UsageError(str(output), "does not end in .npz", "name it FILE.npz")
    if not output.absolute().parent.is_dir():
        raise UsageError(str(output), "its folder does not exist", "make it first")
    if output.exists() and not force:
        raise UsageError(str(output), "exists", "choose another name, or add --force")
