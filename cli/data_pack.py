"""``facekd data pack`` and ``facekd data convert``: between plain files and the files the field packs them into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from facekd.errors import UsageError

from .common import console, progress_bar
from .data_inspect import images_option

if TYPE_CHECKING:
    from facekd.engine.resumable import Watched
    from facekd.engine.sets.image_sets import ImageSet
    from facekd.engine.sets.packing import Recoding

SHARD_SIZE = 10_000
QUALITY = 95

force_option = click.option("--force", is_flag=True, help="Replace what is there.")


@click.command("pack", short_help="Pack images into a .rec, .tar shards or a .bin.")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, metavar="OUT", help="FILE.rec, FILE.tar, FOLDER/ of shards, or FILE.bin."
)
@images_option
@click.option("--insightface-header", is_flag=True, help=".rec: the layout of the classic face packs, with a header.")
@click.option("--shard-size", type=click.IntRange(1), help=f"FOLDER/: images in a shard.  [default: {SHARD_SIZE}]")
@click.option("--size", type=click.IntRange(8, 8192), help="Resize to this height and width, and encode anew as JPEG.")
@click.option("--quality", type=click.IntRange(1, 100), help=f"With --size: of the JPEG.  [default: {QUALITY}]")
@force_option
def pack(
    source: Path,
    output: str,
    images: Path | None,
    insightface_header: bool,
    shard_size: int | None,
    size: int | None,
    quality: int | None,
    force: bool,
) -> None:
    """Pack SOURCE into OUT, whose name says into what: .rec, .tar, a folder of tar shards (end it in /), or .bin.

    A .bin is made of pairs (LFW pairs.txt, .csv or .tsv with path1,path2,label, or another .bin), the others of images
    with identities: a folder, a list, a .rec or .tar. Bytes are copied as stored, unless --size is given. Stopped work
    waits in OUT.partial, and the same command goes on with it.

    \b
    Example:
      facekd data pack train.csv --images faces/ -o packed/train.rec
      facekd data pack pairs.txt --images faces/ -o pairs.bin
      facekd data pack faces/ -o shards/ --shard-size 5000
    """
    target = _target(output)
    _check_options(target, insightface_header, shard_size, size, quality)
    from facekd.data.verification import open_verification_set
    from facekd.engine.sets.image_sets import holds_pairs
    from facekd.engine.sets.packing import Recoding, pack_bin, pack_records, pack_shards, refuse_output, written_beside

    out, recoding = Path(output), Recoding(size, quality or QUALITY) if size else Recoding()
    folder = target == "/"
    refuse_output(out, source, images, folder=folder, beside=written_beside(out, target), force=force)
    if target == ".bin":
        found = open_verification_set(source, images=images, both_kinds=False)
        _warn(found.warnings)
        with _watched("pack", out) as watched:
            count = pack_bin(source, found, out, recoding, watched)
        _say(f"wrote {out}: {count:,} pairs of {len(found.images):,} images, {_treated(recoding)}")
        return
    if holds_pairs(source):
        raise UsageError(str(source), "holds pairs, not identities", "end OUT in .bin")
    opened = _open_identities(source, images)
    with _watched("pack", out) as watched:
        if target == ".rec":
            pack_records(opened, out, recoding, insightface_header, watched)
        else:
            pack_shards(opened, out, recoding, (shard_size or SHARD_SIZE) if folder else None, watched)
    _say(f"wrote {out}: {opened.count:,} images of {len(opened.identities):,} identities, {_treated(recoding)}")


@click.command("convert", short_help="Unpack a .rec, .tar or .bin into plain image files.")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@images_option
@force_option
def convert(source: Path, out: Path, images: Path | None, force: bool) -> None:
    """Write the images of SOURCE as plain files into the new folder OUT, byte for byte.

    Images with identities become OUT/IDENTITY/FILE and identities.csv (path,identity) in the order of SOURCE; a .bin or
    a list of pairs becomes images and pairs.csv (path1,path2,label,fold). Files get the suffix of their content, and
    names that not every disk takes are replaced. Stopped work waits in OUT.partial: the same command goes on with it.

    \b
    Example:
      facekd data convert ms1mv3/train.rec faces/
      facekd data convert lfw.bin lfw/
    """
    from facekd.data.verification import open_verification_set
    from facekd.engine.sets.conversion import convert_identities, convert_pairs
    from facekd.engine.sets.image_sets import holds_pairs
    from facekd.engine.sets.packing import refuse_output

    refuse_output(out, source, images, folder=True, force=force)
    if holds_pairs(source):
        found = open_verification_set(source, images=images, both_kinds=False)
        _warn(found.warnings)
        with _watched("convert", out) as watched:
            count = convert_pairs(source, found, out, watched)
        _say(f"wrote {out}: {len(found.images):,} images and pairs.csv, {count:,} pairs")
        return
    opened = _open_identities(source, images)
    with _watched("convert", out) as watched:
        renamed = convert_identities(opened, out, watched)
    _say(f"wrote {out}: {opened.count:,} images of {len(opened.identities):,} identities, and identities.csv")
    if renamed:
        _warn([f"{out}: {renamed:,} folders are not called as their identity, for disks' sake or to keep the order"])


def _target(output: str) -> str:
    if output.endswith(("/", os.sep)):
        return "/"
    suffix = Path(output).suffix.lower()
    if suffix not in (".rec", ".tar", ".bin"):
        raise UsageError(output, "its name does not say what to make", "end it in .rec, .tar, .bin, or / for shards")
    return suffix


def _check_options(
    target: str, insightface_header: bool, shard_size: int | None, size: int | None, quality: int | None
) -> None:
    for wrong, what, fix in (
        (insightface_header and target != ".rec", "--insightface-header is for a .rec", "leave it out"),
        (shard_size is not None and target != "/", "--shard-size is for a folder of shards", "end OUT in /"),
        (quality is not None and size is None, "--quality has no meaning without --size", "bytes are copied as stored"),
    ):
        if wrong:
            raise UsageError("facekd data pack", what, fix)


def _open_identities(source: Path, images: Path | None) -> ImageSet:
    from facekd.engine.sets.image_sets import open_image_set

    opened = open_image_set(source, images)
    _warn(opened.warnings)
    return opened


@contextmanager
def _watched(verb: str, out: Path) -> Iterator[Watched]:
    from facekd.engine.resumable import Watched
    from facekd.engine.signals import interruptible

    kept = f"stopped; {out}.partial keeps what is done, and the same command goes on with it"
    with interruptible(f"facekd data {verb}", kept) as poll, progress_bar() as progress:
        yield Watched(progress, poll)


def _treated(recoding: Recoding) -> str:
    if recoding.size is None:
        return "bytes as stored"
    return f"resized to {recoding.size}x{recoding.size} and encoded anew as JPEG of quality {recoding.quality}"


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        click.echo(f"facekd: warning: {warning}", err=True)


def _say(line: str) -> None:
    console().print(line, markup=False, soft_wrap=True)
