"""``facekd teacher classifier``: a teacher's class weights for a data set, gathered once and proved to fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekd import __version__
from facekd.errors import UsageError

from .common import (
    check_models,
    check_paths,
    console,
    device_option,
    foreign_options,
    json_option,
    open_model,
    progress_bar,
    write_json,
)

if TYPE_CHECKING:
    from facekd.engine.training.inheritance import Classifier
    from facekd.models.embedder import Embedder


@click.command("classifier", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("teacher", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Training images, as facekd embed takes.")
@click.option("--images", type=click.Path(path_type=Path), help="Root of the paths in a list.  [default: its folder]")
@click.option(
    "--class-weights", type=click.Path(path_type=Path), help="Where the teacher's class weights lie: file or folder."
)
@click.option("--class-means", is_flag=True, help="Take the mean embedding of each identity, whatever else there is.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write.")
@foreign_options
@click.option("--force", is_flag=True, help="Replace an existing file.")
@device_option
@json_option
def classifier(
    teacher: Path,
    data: Path,
    images: Path | None,
    class_weights: Path | None,
    class_means: bool,
    output: Path,
    color: str | None,
    normalize: str | None,
    force: bool,
    device: str,
    json_path: str | None,
) -> None:
    """Gather the class weights of TEACHER for the identities of a data set, prove them, and store them with names.

    They are read from --class-weights, else from TEACHER's run folder, else from its checkpoint; where there are none,
    the class means of its embeddings stand in and are named as such. Known are the shards of arcface_torch, CVLface
    and TFace of any number of processes, the heads of AdaDistill, PocketNet and evoLVe, checkpoints of AdaFace,
    MagFace and FaceX-Zoo, and facekd's own file. Rows without names are taken in label order.

    Of up to 2,048 images at least half must be nearest to their own class; otherwise the likely cause is named and
    nothing is written. For a model whose file does not state its preprocessing, the other colour order, and any
    scaling where faces are told apart badly, are tried on at most 256 images, and one that fits better is told.
    A recipe takes the file as teacher.class_weights.

    \b
    Example:
      facekd teacher classifier r50.pt --data ms1m/train.rec --class-weights ms1m_r50/ -o r50_classes.safetensors
      facekd teacher classifier teacher.onnx --data faces.csv --class-means -o means.safetensors
    """
    _check_arguments(output, force, class_weights, class_means)
    check_models([teacher])
    check_paths(data, images, class_weights)
    from facekd.data.open_source import open_identities
    from facekd.engine.evaluation.evaluation_sets import OpenedSet
    from facekd.engine.probe import doubt, probe_set, says_itself
    from facekd.engine.signals import interruptible
    from facekd.engine.training.inheritance import classifier_place, inherit_classifier
    from facekd.models.weights import save_classifier

    source = open_identities(data, images)
    embedder = open_model(teacher, color, normalize, device)
    place = None if class_means else classifier_place(teacher, embedder.metadata, class_weights)
    with interruptible("facekd teacher classifier", "stopped; nothing was written") as poll, progress_bar() as progress:
        found = inherit_classifier(place, embedder, source, progress=progress, poll=poll)
        faces = OpenedSet(data.name, "all-pairs", source)
        probed = None if says_itself(embedder) else probe_set(embedder, faces, progress=progress, poll=poll)
    told = None if probed is None else doubt(embedder, probed)
    for warning in [*source.warnings, *found.notes, *([told] if told else [])]:
        click.echo(f"facekd: warning: {warning}", err=True)
    digest = save_classifier(output, found.class_weights, source.names, found.source, teacher_digest=embedder.digest)
    _report(found, embedder, output, digest, json_path)


def _check_arguments(output: Path, force: bool, class_weights: Path | None, class_means: bool) -> None:
    if class_weights is not None and class_means:
        raise UsageError("--class-means", "contradicts --class-weights", "give one of them")
    if output.suffix.lower() != ".safetensors":
        raise UsageError(str(output), "does not end in .safetensors", "name it FILE.safetensors")
    if not output.absolute().parent.is_dir():
        raise UsageError(str(output), "its folder does not exist", "make it first")
    if output.exists() and not force:
        raise UsageError(str(output), "exists", "choose another name, or add --force")


def _report(found: Classifier, embedder: Embedder, output: Path, digest: str, json_path: str | None) -> None:
    from facekd.engine.training.inheritance import CLASS_MEANS

    classes, dim = found.class_weights.shape
    out = console()
    out.print(f"source: {found.source}", markup=False, soft_wrap=True)
    within = ", of which each is a part" if found.source == CLASS_MEANS else ""
    share = f"{found.agreement:.2%} of {found.checked:,} images"
    out.print(f"check: {share} nearest to their own class{within}", markup=False, soft_wrap=True)
    out.print(f"wrote {output}: {classes:,} class weights of width {dim}", markup=False, soft_wrap=True)
    if json_path:
        figures = {
            "teacher": embedder.name,
            "teacher_digest": embedder.digest,
            "source": found.source,
            "classes": classes,
            "embedding_size": dim,
            "agreement": found.agreement,
            "checked_images": found.checked,
            "file": str(output),
            "digest": digest,
        }
        write_json({"facekd": __version__, "classifier": figures}, json_path)
