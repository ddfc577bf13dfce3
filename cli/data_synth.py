"""``facekd data synth``: draw synthetic faces."""

from __future__ import annotations

from pathlib import Path

import click

from facekd.errors import UsageError

from .common import console, progress_bar

_LARGEST = 2**32 - 1


@click.command("synth", short_help="Draw synthetic faces.")
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--sheet", type=click.Path(path_type=Path, dir_okay=False), help="Write a contact sheet PNG.")
@click.option("--identities", type=click.IntRange(1, _LARGEST), default=8, show_default=True, help="People to draw.")
@click.option("--samples", type=click.IntRange(1, _LARGEST), default=10, show_default=True, help="Images of each.")
@click.option("--seed", type=click.IntRange(0, _LARGEST), default=0, show_default=True, help="Names the population.")
@click.option(
    "--first-identity",
    type=click.IntRange(0, _LARGEST),
    default=0,
    show_default=True,
    help="The first person; ranges of one seed that do not overlap are different people.",
)
def synth(out: Path | None, sheet: Path | None, identities: int, samples: int, seed: int, first_identity: int) -> None:
    """Draw aligned 112x112 faces into the new folder OUT, onto a contact sheet, or both.

    OUT gets IDENTITY/SAMPLE.png and faces.csv, which holds identity, landmarks and the true blur, resolution, noise,
    yaw, pitch and roll of each image. It appears when it is complete.

    \b
    Example:
      facekd data synth faces/ --identities 200 --samples 20
      facekd data synth --sheet faces.png --identities 8 --samples 10
    """
    if out is None and sheet is None:
        raise UsageError("facekd data synth", "nothing to write", "give a folder, --sheet FILE.png, or both")
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise UsageError(str(sheet), "a contact sheet is a PNG", "end its name in .png")
    from facekd.data.synthetic import SyntheticFaces
    from facekd.engine.sets.synthesis import write_faces, write_sheet
    from facekd.engine.signals import interruptible

    faces = SyntheticFaces(identities, samples, seed, first_identity)
    if out is not None:
        with progress_bar() as progress, interruptible(str(out), "stopped, nothing is left behind") as poll:
            write_faces(out, faces, progress=progress, poll=poll)
        console().print(f"wrote {len(faces)} images of {len(faces.names)} identities to {out}", soft_wrap=True)
    if sheet is not None:
        write_sheet(sheet, range(first_identity, first_identity + identities), samples, seed)
        console().print(f"wrote {sheet}", soft_wrap=True)
