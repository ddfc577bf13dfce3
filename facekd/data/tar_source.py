"""Images with identities in tar shards as webdataset lays them out: ``KEY.jpg`` beside ``KEY.cls`` or ``KEY.json``.

The key is a member's path up to the first dot of its last part. Archives are walked once for places and lengths;
nothing is ever unpacked: an image is read from its place in the archive.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from facekd.data.classes import named_labels
from facekd.data.identities import case_collisions, first_few, refuse_unusable
from facekd.data.images import MAX_BYTES, decode, shown, shown_start
from facekd.data.lists import unsafe_path, visible_entries
from facekd.data.stored_file import SNIFFED, StoredFile, compression
from facekd.errors import DataError, InputError

IMAGE_KINDS = ("jpg", "jpeg", "png", "bmp", "webp")

_BLOCK = 512
_FIX = "fetch or pack the shard again"


@dataclass(frozen=True)
class Member:
    """A file in an archive: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int


@dataclass(frozen=True)
class Identity:
    """Who an image shows: a class number, a name, or both."""

    number: int | None
    name: str | None


class TarSource:
    """The images of one or more tar shards.

    Opening reads the labels and no image. Shards come in the order of their names, images in the order of their
    archive. A ``.cls`` holds a whole number; a ``.json``, which is looked at where there is no ``.cls``, an object
    with ``label`` (a whole number), ``identity`` (a name), or both. Numbered classes are named by a ``classes.txt``
    beside the shards, otherwise by their number; identities given by name alone are numbered in the order of their
    names. The digest covers names, lengths and identities, not the content of the images.

    Args:
        path: A ``.tar``, or a folder of them.

    Raises:
        InputError: No tar or a compressed one, cut short or damaged, a member that is a link or leads upwards, a key
            without image or label, or fewer than two identities; names shard and member.
    """

    def __init__(self, path: Path) -> None:
        path = Path(path)
        shards = find_shards(path)
        self.warnings: list[str] = []
        self._shards = [StoredFile(shard) for shard in shards]
        self._images: list[tuple[int, Member]] = []
        who: list[Identity] = []
        for number, shard in enumerate(self._shards):
            samples, others = _samples(shard)
            if others:
                told = f"{len(others)} members are neither image nor label and left out: {first_few(others)}"
                self.warnings.append(f"{shown(shard.path)}: {told}")
            for image, label in samples:
                self._images.append((number, image))
                who.append(_identity(shard, label))
        if not who:
            raise InputError(shown(path), "holds no images", "pack them as KEY.jpg beside KEY.cls")
        self._require_alike(who)
        self.names, self.labels, told_of_names = _classes(shown(path), who, path if path.is_dir() else path.parent)
        self.warnings += told_of_names
        refuse_unusable(shown(path), self.names)
        digest = hashlib.sha256()
        for index, (_, image) in enumerate(self._images):
            line = [self.sample_name(index), image.offset, image.size, self.names[self.labels[index]]]
            digest.update(json.dumps(line).encode())
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._images)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored; raises `DataError` where the shard was cut short or replaced since."""
        shard, image = self._images[index]
        data = self._shards[shard].read(image.offset, image.size)
        if len(data) < image.size:
            raise DataError(self._where(index), "the shard was cut short since it was opened")
        return data

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3); raises `DataError` where it does not decode."""
        return decode(self.encoded(index), self._where(index))

    def sample_name(self, index: int) -> str:
        """Shard and member of image ``index``, as ``faces-000000.tar/000000017.jpg``."""
        shard, image = self._images[index]
        return f"{self._shards[shard].path.name}/{image.name}"

    def _where(self, index: int) -> str:
        shard, image = self._images[index]
        return f"{shown(self._shards[shard].path)}: {shown(image.name)}"

    def _require_alike(self, who: Sequence[Identity]) -> None:
        """Refuse sets where some images have a number, or a name, and others have none."""
        for what in ("number", "name"):
            has = [getattr(identity, what) is not None for identity in who]
            if any(has) and not all(has):
                first, other = has.index(True), has.index(False)
                told = f"its label holds no {what}, and that of {shown(self.sample_name(first))} does"
                raise InputError(self._where(other), told, "give all images the same kind of label")


def find_shards(path: Path) -> list[Path]:
    """The shards that a path means, in the order of their names.

    Raises:
        InputError: None there.
    """
    if not path.is_dir():
        return [path]
    shards = [entry for entry in visible_entries(path) if entry.suffix.lower() == ".tar"]
    if not shards:
        raise InputError(shown(path), "holds no .tar")
    return shards


def _members(shard: StoredFile) -> Iterator[Member]:
    """Every regular file of an archive that is whole; raises `InputError` for anything that is not safe to read."""
    name = shown(shard.path)
    head = shard.read(0, SNIFFED)
    if compression(head):
        raise InputError(name, f"is compressed ({compression(head)})", "decompress it first")
    before = -1
    try:
        with tarfile.open(shard.path, "r:") as archive:
            while (entry := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep every member for later
                end = entry.offset_data + entry.size
                if entry.size < 0 or archive.offset <= before or end > shard.size:
                    what = f"member '{shown(entry.name)}' ends at byte {end} of {shard.size}: damaged or cut short"
                    raise InputError(name, what, _FIX)
                before = archive.offset
                _refuse_unsafe(name, entry)
                if entry.isreg():
                    yield Member(str(PurePosixPath(entry.name)), entry.offset_data, entry.size)
            end = archive.offset
    except (tarfile.TarError, ValueError, OverflowError, RecursionError, EOFError) as error:
        if before < 0:
            what = f"not a tar archive (first bytes {shown_start(head)})" if head else "is empty"
            raise InputError(name, what, "give the .tar file itself") from None
        raise InputError(name, f"damaged or cut short: {shown(error, 80)}", _FIX) from None
    if shard.read(end, _BLOCK) != bytes(_BLOCK):
        raise InputError(name, f"no member and no end mark at byte {end} of {shard.size}: damaged or cut short", _FIX)


def _refuse_unsafe(name: str, entry: tarfile.TarInfo) -> None:
    reason = unsafe_path(entry.name)
    if reason:
        raise InputError(name, f"member '{shown(entry.name)}' {reason}", "pack relative paths")
    if entry.isdir() or (entry.isreg() and not entry.issparse()):
        return
    kind = "link" if entry.islnk() or entry.issym() else "sparse file" if entry.issparse() else "device or pipe"
    raise InputError(name, f"member '{shown(entry.name)}' is a {kind}", "pack plain files only")


def _samples(shard: StoredFile) -> tuple[list[tuple[Member, Member]], list[str]]:
    """Image and label of every key, in the order of the archive, and the names of members that are neither."""
    images: dict[str, Member] = {}
    labels: dict[tuple[str, str], Member] = {}
    others: list[str] = []
    for member in _members(shard):
        folder, _, last = member.name.rpartition("/")
        stem, _, suffix = last.partition(".")
        key, kind = f"{folder}/{stem}", suffix.lower()
        if stem and kind in IMAGE_KINDS:
            earlier = images.setdefault(key, member)
            if earlier is not member:
                what = f"'{shown(earlier.name)}' and '{shown(member.name)}' are two images of one key"
                raise InputError(shown(shard.path), what, "give each image a key of its own")
            if member.size > MAX_BYTES:
                what = f"{member.size} bytes is too large for an image"
                raise InputError(f"{shown(shard.path)}: {shown(member.name)}", what, f"at most {MAX_BYTES}")
        elif stem and kind in ("cls", "json"):
            labels[key, kind] = member
        else:
            others.append(member.name)
    paired = []
    for key, image in images.items():
        label = labels.pop((key, "cls"), None) or labels.pop((key, "json"), None)
        if label is None:
            what = f"'{shown(image.name)}' has no label"
            raise InputError(shown(shard.path), what, "pack a .cls or .json of the same key beside it")
        paired.append((image, label))
    for (key, _), label in labels.items():
        if key not in images:
            raise InputError(shown(shard.path), f"'{shown(label.name)}' labels no image", "pack the image beside it")
    return paired, others


def _identity(shard: StoredFile, label: Member) -> Identity:
    where = f"{shown(shard.path)}: {shown(label.name)}"
    if label.size > MAX_BYTES:
        raise InputError(where, f"{label.size} bytes is too large for a label")
    data = shard.read(label.offset, label.size)
    if label.name.lower().endswith(".cls"):
        return Identity(_number(data.strip().decode("latin-1"), where), None)
    try:
        told = json.loads(data)
    except (ValueError, RecursionError):
        raise InputError(where, "is no JSON", 'write {"label": 7}') from None
    if not isinstance(told, dict) or not {"label", "identity"} & told.keys():
        raise InputError(where, "holds neither label nor identity", 'write {"label": 7} or {"identity": "ann"}')
    name = told.get("identity")
    if name is not None and (not isinstance(name, str) or not name.strip()):
        raise InputError(where, f"identity {shown(json.dumps(name), 40)} is no name")
    number = told.get("label")
    if number is None:
        return Identity(None, name)
    return Identity(_number(json.dumps(number), where), name)


def _number(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InputError(where, f"label '{shown(text, 40)}' is no class", "write a whole number from 0 to 999999999")
    return int(text)


def _classes(where: str, who: Sequence[Identity], folder: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Names in label order, the label of each image, and warnings."""
    if who[0].name is None:
        return named_labels(where, np.array([identity.number for identity in who], np.int64), folder)
    names = [str(identity.name) for identity in who]
    if who[0].number is None:
        ordered = sorted(set(names))
    else:
        pairs = sorted({(identity.number or 0, str(identity.name)) for identity in who})
        for (number, name), (other_number, other) in zip(pairs, pairs[1:], strict=False):
            if number == other_number:
                raise InputError(where, f"label {number} is '{shown(name)}' and '{shown(other)}'", "give each its own")
        ordered = [name for _, name in pairs]
        if len(set(ordered)) < len(ordered):
            twice = next(name for name in ordered if ordered.count(name) > 1)
            raise InputError(where, f"'{shown(twice)}' has two labels", "give each identity one")
    label_of = {name: label for label, name in enumerate(ordered)}
    return ordered, np.array([label_of[name] for name in names], np.int64), case_collisions(where, ordered)
