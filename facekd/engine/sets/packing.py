"""Packs sets of images into the files the field trains and evaluates on: ``.rec``, ``.tar`` shards and ``.bin``.

Bytes are copied as stored, every image decoded once on the way, unless a size is asked for. Work that was stopped goes
on where it was (see :mod:`facekd.engine.resumable`) and ends with the same bytes.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from facekd.data.bin_format import BIN_HEAD, MAX_BIN_BYTES, bin_again, bin_image, bin_tail
from facekd.data.classes import CLASSES_NAME, classes_text
from facekd.data.images import check_header, decode, encode_jpeg, resize, shown
from facekd.data.record_heads import EXACT, pack_image
from facekd.data.record_property import PROPERTY_NAME
from facekd.data.record_writer import identity_records
from facekd.data.recordio import encode_record
from facekd.data.tar_parts import tar_end, tar_sample
from facekd.data.verification import VerificationSet
from facekd.engine.resumable import GrowingFile, Job, Watched, move, partial_work
from facekd.engine.sets.image_sets import ImageSet
from facekd.errors import InputError, UsageError
from facekd.files import file_digest, write_atomic, write_text

IDENTITIES = "identities.csv"
PAIRS = "pairs.csv"
CONTENT = "content"
"""Folder of unfinished work that holds what a finished folder will."""


@dataclass(frozen=True)
class Recoding:
    """What happens to the images on the way.

    Attributes:
        size: Height and width they are resized to and re-encoded at; None copies their bytes.
        quality: Of the JPEG then, 1 to 100.
    """

    size: int | None = None
    quality: int = 95


def checked_image(name: str, data: bytes, recoding: Recoding) -> bytes:
    """An image to store: as it is if it decodes, or resized and encoded anew.

    Raises:
        DataError: It does not decode.
    """
    pixels = decode(data, name)
    if recoding.size is None:
        return data
    return encode_jpeg(resize(pixels, (recoding.size, recoding.size)), recoding.quality)


def job_of(verb: str, path: Path, digest: str, recoding: Recoding, options: Job) -> Job:
    """What is being made, for :func:`~facekd.engine.resumable.partial_work`."""
    return {"verb": verb, "source": str(path.absolute()), "digest": digest, **asdict(recoding), **options}


def refuse_output(
    out: Path, source: Path, images: Path | None, *, folder: bool, beside: Sequence[str] = (), force: bool = False
) -> None:
    """Refuse to write where something stands, or into what is being read.

    Args:
        out: What is to be made.
        source: What is read.
        images: Where the images of a list are, if not beside it.
        folder: Whether ``out`` will be a folder.
        beside: Names of further files that will be put next to it.
        force: Allow what is there to be replaced; a folder only if it was made this way.

    Raises:
        UsageError: ``out`` exists, its folder is missing, or it is, holds or lies in the source.
    """
    if not out.absolute().parent.is_dir():
        raise UsageError(shown(out), "its folder does not exist", "make it first")
    real, read = out.resolve(), [source.resolve(), *([images.resolve()] if images is not None else [])]
    for place in read:
        if real == place or real in place.parents or (place == read[0] and place.is_dir() and place in real.parents):
            raise UsageError(shown(out), f"overlaps with the source {shown(place)}", "write somewhere else")
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and out.is_dir() != folder:
        raise UsageError(shown(out), "is a folder" if out.is_dir() else "is a file", "choose another name")
    going_on = out.with_name(f"{out.name}.partial").exists()
    taken = [path for path in (out, *(out.with_name(name) for name in beside if not going_on)) if path.exists()]
    if taken and not empty and not force:
        raise UsageError(shown(taken[0]), "exists", "choose another name, or add --force")
    if out.is_dir() and not empty and not any((out / name).is_file() for name in (IDENTITIES, PAIRS, CLASSES_NAME)):
        raise UsageError(shown(out), "was not made by this command", "remove it yourself, or choose another name")


def written_beside(out: Path, target: str) -> list[str]:
    """Names of the files that packing puts next to ``out``.

    Example:
        >>> written_beside(Path("packed/train.rec"), ".rec")
        ['property', 'classes.txt', 'train.sha256', 'train.idx']
    """
    if target == ".rec":
        return [PROPERTY_NAME, CLASSES_NAME, f"{out.stem}.sha256", f"{out.stem}.idx"]
    return [CLASSES_NAME] if target == ".tar" else []


def pack_bin(source: Path, found: VerificationSet, out: Path, recoding: Recoding, watched: Watched) -> int:
    """Write a verification set as ``.bin``; an image in many pairs is stored once and referred to.

    Args:
        source: Where the set is.
        found: The set.
        out: The ``.bin`` to make or replace.
        recoding: What happens to the images.
        watched: Progress and stopping.

    Returns:
        The number of pairs.

    Raises:
        DataError: An image does not decode.
        InputError: The file would be larger than a ``.bin`` may be.
        UsageError: Another job's unfinished work is in the way.
        DeviceError: The disk refuses.
    """
    order = found.pairs.ravel()
    first = np.unique(order, return_index=True)[1]
    number = np.empty(len(found.images), np.int64)
    number[order[np.sort(first)]] = np.arange(len(first))
    is_first = np.zeros(len(order), bool)
    is_first[first] = True
    job = job_of("pack .bin", source, found.digest, recoding, {})
    with partial_work(out, job) as partial, partial.open("packed.bin") as file:
        if not file.size:
            file.write(BIN_HEAD)

        def step(record: int) -> None:
            image = int(order[record])
            if not is_first[record]:
                file.write(bin_again(int(number[image])))
                return
            name = f"{shown(source)}: {shown(found.images.sample_name(image))}"
            file.write(bin_image(checked_image(name, found.images.encoded(image), recoding)))
            if file.size + 6 * len(order) > MAX_BIN_BYTES:
                raise InputError(shown(out), f"more than {MAX_BIN_BYTES} bytes", "pack fewer pairs into one .bin")

        partial.work(len(order), step, [file], watched, phase="pack")
        file.write(bin_tail(found.genuine.tolist()))
        file.sync()
        move(file.path, out)
    return len(found.pairs)


def pack_records(images: ImageSet, out: Path, recoding: Recoding, header: bool, watched: Watched) -> int:
    """Write images with identities as ``.rec``, with ``.idx``, ``property``, ``classes.txt`` and ``.sha256`` beside it.

    Args:
        images: The set; its labels are known.
        out: The ``.rec`` to make or replace. It appears after the files beside it.
        recoding: What happens to the images.
        header: Write the layout of the classic face packs: images identity by identity as records 1 to N, then the
            header and a record for each identity.
        watched: Progress and stopping.

    Returns:
        The number of images.

    Raises:
        DataError: An image does not decode.
        InputError: Too many records for the header or identities for the format, or a name that ``classes.txt``
            cannot hold.
        UsageError: Another job's unfinished work is in the way.
        DeviceError: The disk refuses.
    """
    labels = known_labels(images)
    if len(images.identities) > EXACT:
        what = f"{len(images.identities):,} identities: float32 labels tell {EXACT:,} apart at most"
        raise InputError(shown(images.path), what, "pack fewer of them, or tar shards")
    order = np.argsort(labels, kind="stable") if header else np.arange(images.count)
    tail = list(identity_records(labels[order])) if header else []
    classes = classes_text(images.identities)
    job = job_of("pack .rec", images.path, images.digest, recoding, {"insightface_header": header})
    with partial_work(out, job) as partial, partial.open(out.name) as records, partial.open("index") as index:

        def append(key: int, payload: bytes) -> None:
            index.write(f"{key}\t{records.size}\n".encode())
            records.write(encode_record(payload))

        def step(place: int) -> None:
            image, key = int(order[place]), place + header
            append(key, pack_image(float(labels[image]), key, _image(images, image, recoding)))

        partial.work(images.count, step, [records, index], watched, phase="pack")
        for key, payload in tail:
            append(key, payload)
        records.sync()
        index.sync()
        first = _image(images, int(order[0]), recoding)
        height, width = check_header(first, shown(out))
        write_text(out.with_name(PROPERTY_NAME), f"{len(images.identities)},{height},{width}\n{images.count}\n")
        write_atomic(out.with_name(CLASSES_NAME), lambda path: path.write_bytes(classes))
        write_text(out.with_suffix(".sha256"), f"{file_digest(records.path)}  {out.name}\n")
        write_atomic(out.with_suffix(".idx"), lambda path: shutil.copyfile(index.path, path))
        move(records.path, out)
    return images.count


def pack_shards(images: ImageSet, out: Path, recoding: Recoding, shard_size: int | None, watched: Watched) -> int:
    """Write images with identities as tar shards: ``KEY.jpg`` and ``KEY.cls``, with ``classes.txt`` for the names.

    Args:
        images: The set; its labels are known.
        out: The folder to make or replace, or the one ``.tar`` beside which ``classes.txt`` is put.
        recoding: What happens to the images.
        shard_size: Images in a shard; None puts all into one ``.tar``.
        watched: Progress and stopping.

    Returns:
        The number of images.

    Raises:
        DataError: An image does not decode.
        InputError: A name that ``classes.txt`` cannot hold.
        UsageError: Another job's unfinished work is in the way.
        DeviceError: The disk refuses.
    """
    labels, classes, each = known_labels(images), classes_text(images.identities), shard_size or images.count
    job = job_of("pack .tar", images.path, images.digest, recoding, {"shard_size": shard_size})
    with partial_work(out, job) as partial, ExitStack() as opened:
        files: list[GrowingFile] = []

        def shard_of(index: int) -> None:
            opened.close()
            files[:] = [opened.enter_context(partial.open(f"{CONTENT}/faces-{index // each:06d}.tar"))]

        def step(index: int) -> None:
            if index % each == 0:
                shard_of(index)
            files[0].write(tar_sample(index, int(labels[index]), _image(images, index, recoding)))
            if (index + 1) % each == 0 or index + 1 == images.count:
                files[0].write(tar_end(files[0].size))
                files[0].sync()

        if partial.done % each:
            shard_of(partial.done)
        partial.work(images.count, step, files, watched, phase="pack")
        content = partial.folder / CONTENT
        names = out.with_name(CLASSES_NAME) if shard_size is None else content / CLASSES_NAME
        write_atomic(names, lambda path: path.write_bytes(classes))
        move(content / "faces-000000.tar" if shard_size is None else content, out)
    return images.count


def known_labels(images: ImageSet) -> np.ndarray:
    """Who each image shows.

    Raises:
        InputError: The set does not say.
    """
    if images.labels is None:
        raise InputError(shown(images.path), "does not say who its images show", "give images with identities")
    return images.labels


def _image(images: ImageSet, index: int, recoding: Recoding) -> bytes:
    return checked_image(f"{shown(images.path)}: {shown(images.name(index))}", images.encoded(index), recoding)
