"""``facekd data inspect`` and ``facekd data check``: look at a set of images, and see that it is still whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from .common import console, json_option, progress_bar, write_json

if TYPE_CHECKING:
    from facekd.engine.sets.inspection import Inspection

SHOWN = 10
BAR = 40

images_option = click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Root of the paths in a list or pairs file.  [default: its folder]",
)


@click.command("inspect", short_help="Count, decode and describe a set of images.")
@click.argument("path", type=click.Path(path_type=Path))
@images_option
@click.option(
    "--broken",
    "broken_path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.csv",
    help="Write name and fault of every broken image, in the form that data.leave_out.file of a recipe takes.",
)
@json_option
def inspect(path: Path, images: Path | None, broken_path: Path | None, json_path: str | None) -> None:
    """Decode every image of PATH and say what it holds, and what to write into a recipe for it.

    PATH is an identity folder, a list (.csv with path,identity), a .rec, a .tar or a folder of these, or a verification
    set (.bin, LFW pairs .txt, pairs .csv). Broken images and images stored more than once are counted and listed.

    \b
    Example:
      facekd data inspect faces/
      facekd data inspect train.csv --images faces/ --json -
      facekd data inspect train.rec --broken broken.csv
    """
    from facekd.engine.sets.image_sets import open_image_set
    from facekd.engine.sets.inspection import inspect as look
    from facekd.engine.sets.inspection import write_broken
    from facekd.engine.sets.suggestion import suggest
    from facekd.engine.signals import interruptible

    opened = open_image_set(path, images)
    with interruptible("facekd data inspect", "stopped; nothing was written") as poll, progress_bar() as progress:
        found = look(opened, progress=progress, poll=poll)
    for warning in [*found.warnings, *_double_warnings(path, found), *_transparent(path, found.transparent)]:
        click.echo(f"facekd: warning: {warning}", err=True)
    _print(found, path)
    if broken_path:
        write_broken(found, broken_path)
    if json_path:
        write_json(found.report(), json_path)
    console().print(f"\nFor a recipe:\n\n{suggest(found, path, images)}", markup=False, soft_wrap=True)


@click.command("check", short_help="See that a set of images is whole and unchanged.")
@click.argument("path", type=click.Path(path_type=Path))
@images_option
@click.option("--write", is_flag=True, help="Take the images for right: write their checksums instead of comparing.")
def check(path: Path, images: Path | None, write: bool) -> None:
    """Decode every image of PATH and compare it with the checksum kept beside PATH.

    The first check keeps a CRC-32 of every image, as PATH.checksums beside a file and PATH/.checksums inside a folder.
    Later ones name what changed, is missing or new, and exit with 3. An image with a flipped bit often still decodes:
    only a checksum made while it was good can tell.

    \b
    Example:
      facekd data check faces/
      facekd data check lfw.bin
    """
    from facekd.engine.sets.checking import check as run
    from facekd.engine.sets.image_sets import open_image_set
    from facekd.engine.signals import interruptible

    opened = open_image_set(path, images)
    for warning in opened.warnings:
        click.echo(f"facekd: warning: {warning}", err=True)
    with interruptible("facekd data check", "stopped; nothing was written") as poll, progress_bar() as progress:
        done = run(opened, write=write, progress=progress, poll=poll)
    for warning in _transparent(path, done.transparent):
        click.echo(f"facekd: warning: {warning}", err=True)
    told = f"all as {done.side_car} says"
    if not done.compared:
        kept = f"wrote {done.side_car}" if done.written else f"{done.side_car.parent} cannot be written to"
        told = f"unverified: nothing to compare with; {kept}"
    console().print(f"{path}: {opened.count:,} images decode; {told}", markup=False, soft_wrap=True)


def _double_warnings(path: Path, found: Inspection) -> list[str]:
    from facekd.data.images import shown

    doubles = found.doubles
    pairs = [f"{shown(path)}: same image under two identities: {shown(a)} and {shown(b)}" for a, b in doubles.pairs]
    more = doubles.across - SHOWN
    return [*pairs[:SHOWN], *([f"{shown(path)}: and {more:,} more such images"] if more > 0 else [])]


def _transparent(path: Path, count: int) -> list[str]:
    from facekd.data.images import shown

    return [f"{shown(path)}: {count:,} images have an alpha channel, which is dropped"] if count else []


def _print(found: Inspection, path: Path) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in _facts(found):
        table.add_row(name, Text(value))
    console().print(table)
    if found.spread():
        _print_histogram(found.histogram())
    if found.broken:
        console().print("\nBroken:")
        for _, problem in found.broken[:SHOWN]:
            console().print(f"  {problem}", markup=False, soft_wrap=True)
        if len(found.broken) > SHOWN:
            console().print(f"  and {len(found.broken) - SHOWN:,} more")


def _facts(found: Inspection) -> list[tuple[str, str]]:
    from facekd.data.identities import first_few

    sizes = [f"{height}x{width} ({count:,})" for (height, width), count in found.sizes.most_common(3)]
    others = len(found.sizes) - len(sizes)
    doubles, spread, singles = found.doubles, found.spread(), found.singles()
    facts = [
        ("format", found.format),
        ("images", f"{found.images:,}"),
        ("broken", f"{len(found.broken):,}"),
        ("height x width", ", ".join(sizes) + (f" and {others:,} other sizes" if others else "") or "-"),
    ]
    if spread is None:
        return [*facts, ("duplicates", f"{doubles.count:,}"), ("identities", "not known")]
    low, median, high = spread
    return [
        *facts,
        ("duplicates", f"{doubles.count:,}: {doubles.within:,} within an identity, {doubles.across:,} across two"),
        ("identities", f"{len(found.identities):,}"),
        ("images of each", f"{low:,} to {high:,}, median {median:g}"),
        ("with one image", f"{len(singles):,}" + (f": {first_few(singles)}" if singles else "")),
    ]


def _print_histogram(histogram: list[tuple[int, int, int]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("images of one", "identities"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    most = max(number for _, _, number in histogram)
    for low, high, number in histogram:
        span = str(low) if low == high else f"{low} to {high}"
        table.add_row(span, f"{number:,}", "#" * -(-BAR * number // most))
    console().print()
    console().print(table)
