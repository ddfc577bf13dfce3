"""``facekd data align``: bring photographs onto the face template."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekd.errors import DataError, UsageError

from .common import console, progress_bar

if TYPE_CHECKING:
    from facekd.data.identities import IdentitySource
    from facekd.engine.sets.landmark_finding import Finder


@click.command("align", short_help="Crop photographs onto the face template.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--landmarks", type=click.Path(path_type=Path), help="File with 5 or 68 landmarks of each image.")
@click.option("--detector", type=click.Path(path_type=Path), help="Face detector: a YuNet or SCRFD .onnx file.")
@click.option("--size", type=int, default=112, show_default=True, help="Side of the crops: 112, 128 or a multiple.")
@click.option("--images", type=click.Path(path_type=Path), help="Root of the paths in a list.  [default: its folder]")
@click.option("--largest", "choice", flag_value="largest", help="Of several faces, take the largest.  [default]")
@click.option("--center", "choice", flag_value="center", help="Of several faces, take the nearest to the middle.")
@click.option(
    "--missing",
    type=click.Choice(["refuse", "list"]),
    default="refuse",
    show_default=True,
    help="Images without a face: end with exit code 3, or only list them.",
)
@click.option("--png", is_flag=True, help="Write PNG instead of JPEG of quality 95.")
def align(
    source: Path,
    out: Path,
    landmarks: Path | None,
    detector: Path | None,
    size: int,
    images: Path | None,
    choice: str | None,
    missing: str,
    png: bool,
) -> None:
    """Write aligned faces of SOURCE into the new folder OUT, as OUT/IDENTITY/NAME.jpg.

    SOURCE is an identity folder, a list (.csv with path,identity), .rec or .tar packs, or a folder of photographs of
    nobody in particular, whose crops lie in OUT itself. Landmarks come from a file (rows path,x1,y1,...,x5,y5 in image
    order: left eye, right eye, nose, left and right mouth corner; 68 points; or a face2rec2 .lst) or from a detector.
    Faces are laid onto the ArcFace template by the least-squares similarity. EXIF orientation is ignored, as
    everywhere in facekd: turn photographs first.

    OUT also gets landmarks.csv (what was used), alignment.json (template, detector, versions) and, where images have
    no crop, failed.csv with the reason of each. It appears when it is complete; a stopped command goes on when given
    again.

    \b
    Example:
      facekd data align photos/ faces/ --detector yunet.onnx
      facekd data align list.csv faces/ --images photos/ --landmarks points.csv --size 224
      facekd data align photos/ faces/ --detector det_10g.onnx --center --missing list
    """
    if landmarks is not None and choice is not None:
        raise UsageError("facekd data align", f"--{choice} chooses among faces of a detector", "leave it out")
    from facekd.data.photographs import open_photographs
    from facekd.engine.sets.alignment import FAILED_NAME, align_photographs
    from facekd.engine.signals import interruptible

    opened = open_photographs(source, images)
    finder, warnings = _finder(opened, landmarks, detector, choice, missing)
    for warning in [*opened.warnings, *warnings]:
        _warn(warning)
    kept = f"stopped; the same command goes on from {out}.partial"
    with progress_bar() as progress, interruptible("facekd data align", kept) as poll:
        done = align_photographs(out, opened, finder, size=size, png=png, progress=progress, poll=poll)
    console().print(f"wrote {done.aligned} aligned faces of {len(opened)} images to {out}", soft_wrap=True)
    if done.several:
        _warn(f"{done.several} images show more than one face: the {choice or 'largest'} was taken")
    if done.emptied and done.failed:
        _warn(f"{len(done.emptied)} identities have no image left, the first is '{done.emptied[0]}'")
    if done.failed:
        what = f"{done.failed} of {len(opened)} images have no aligned face: {'; '.join(done.reasons)}"
        if missing == "refuse":
            raise DataError(str(out / FAILED_NAME), what, "look at them; --missing list accepts them")
        _warn(f"{out / FAILED_NAME}: {what}")


def _finder(
    source: IdentitySource, landmarks: Path | None, detector: Path | None, choice: str | None, missing: str
) -> tuple[Finder, list[str]]:
    from facekd.engine.sets.landmark_finding import detected_landmarks, listed_landmarks

    if landmarks is not None and detector is None:
        return listed_landmarks(landmarks, source, complete=missing == "refuse")
    if detector is not None and landmarks is None:
        return detected_landmarks(detector, choice or "largest"), []
    raise UsageError("facekd data align", "one source of landmarks is needed", "give --landmarks or --detector")


def _warn(text: str) -> None:
    click.echo(f"facekd: warning: {text}", err=True)
