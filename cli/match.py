"""``facekd match``: are two faces one person's, and whose of a gallery is a face?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekd.errors import UsageError

from .common import Fpr, check_paths, console, json_option, progress_bar, write_json

if TYPE_CHECKING:
    from facekd.runtime import FaceModel
    from facekd.runtime.faces import FaceFinder


@click.command("match", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("probe", type=click.Path(path_type=Path))
@click.argument("other", type=click.Path(path_type=Path))
@click.option("--model", required=True, type=click.Path(path_type=Path), help="A file that facekd export wrote.")
@click.option("--detector", type=click.Path(path_type=Path), help="YuNet or SCRFD file that finds and aligns faces.")
@click.option("--fpr", type=Fpr(), help="Decide at the threshold the file has for this false positive rate.")
@click.option("--threshold", type=click.FloatRange(-1, 1), help="Decide at this cosine instead.")
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="People of a gallery to show.")
@json_option
def command(
    probe: Path,
    other: Path,
    model: Path,
    detector: Path | None,
    fpr: float | None,
    threshold: float | None,
    top: int,
    json_path: str | None,
) -> None:
    """Compare the face in PROBE with the face in OTHER; or rank the people of a folder OTHER, which holds a folder of
    images for each (or is a list, a .rec or a .tar of them), by their most similar image.

    Without --detector images must be aligned faces. Without --fpr or --threshold, similarities are told and nothing is
    decided.

    \b
    Example:
      facekd match a.jpg b.jpg --model student.onnx --fpr 1e-4
      facekd match photo.jpg gallery/ --model student.onnx --detector yunet.onnx --top 3
    """
    check_paths(probe, other, model, detector)
    if fpr is not None and threshold is not None:
        raise UsageError("--threshold", "--fpr names a threshold already", "give one of the two")
    from facekd.runtime import face_finder, load_model

    loaded = load_model(model)
    limit = loaded.threshold(fpr) if fpr is not None else threshold
    find = face_finder(detector, loaded) if detector else None
    ranked = other.is_dir() or other.suffix.lower() in (".csv", ".tsv", ".parquet", ".rec", ".tar")
    told = _ranked(loaded, probe, other, find, top) if ranked else _pair(loaded, probe, other, find)
    record = {"model": str(model), "model_digest": loaded.digest, "threshold": limit, **told}
    rows = told["ranking"] if ranked else [told]
    for row in rows:
        row["match"] = None if limit is None else row["similarity"] >= limit
    if not ranked:
        record["match"] = told["match"]
    if json_path:
        write_json(record, json_path)
    _print(rows, limit)


def _pair(model: FaceModel, probe: Path, other: Path, find: FaceFinder | None) -> dict[str, Any]:
    from facekd.runtime import read_face, similarity

    first, second = model.embed([read_face(path, model, find) for path in (probe, other)])
    return {"probe": str(probe), "other": str(other), "similarity": similarity(first, second)}


def _ranked(model: FaceModel, probe: Path, gallery: Path, find: FaceFinder | None, top: int) -> dict[str, Any]:
    from facekd.data.open_source import open_identities
    from facekd.runtime import read_face
    from facekd.runtime.gallery import enrol, rank

    source = open_identities(gallery)
    for warning in source.warnings:
        click.echo(f"facekd: warning: {warning}", err=True)
    with progress_bar() as progress:
        enrolled = enrol(model, source, find, progress)
    ranking = rank(model.embed([read_face(probe, model, find)])[0], enrolled, source, top)
    return {"probe": str(probe), "gallery": str(gallery), "ranking": ranking}


def _print(rows: list[dict[str, Any]], limit: float | None) -> None:
    out = console()
    for row in rows:
        verdict = "" if limit is None else (", a match" if row["match"] else ", no match")
        who = f"{row['rank']}. {row['identity']} ({row['image']}): " if "rank" in row else ""
        out.print(f"{who}similarity {row['similarity']:.4f}{verdict}", markup=False, soft_wrap=True)
    if limit is not None:
        out.print(f"threshold {limit:.4f}", markup=False)
