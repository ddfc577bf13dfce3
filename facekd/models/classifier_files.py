"""Class weights out of the files other systems leave: shards put together, turned, checked and cut to the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from facekd.errors import CheckpointError, InputError, NonFiniteError
from facekd.models import weights
from facekd.models.classifier_layouts import KNOWN_FILES, MOMENTUM, Layout, Stored, find_stored, holds, layout_of

CLASSIFIER_FILE = "classifier.safetensors"
_GIVE_ALL = "copy every shard into one folder"


@dataclass(frozen=True)
class ClassifierFiles:
    """A classifier as it was found.

    Attributes:
        class_weights: (classes, dim) float32, as stored: not of unit length.
        class_names: The identity of each row; None where the files say nothing and rows are in label order.
        source: Where it comes from, in words.
        where: The file, or the first of them, for messages.
        spare: How many of the last rows may be padding that stands for nobody.
        teacher_digest: SHA-256 of the model it was proved to fit; empty where the file does not say.
        notes: What was left aside, in words.
    """

    class_weights: Tensor
    class_names: tuple[str, ...] | None
    source: str
    where: str
    spare: int = 0
    teacher_digest: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _FileSet:
    """The files that hold one classifier, by rank."""

    layout: Layout
    name: str
    shards: dict[int, Path] = field(default_factory=dict)

    @property
    def first(self) -> Path:
        return self.shards[min(self.shards)]


def read_classifier_files(path: Path, embedding_size: int, classes: int | None = None) -> ClassifierFiles:
    """The class weights in a file, or in the shards of a folder.

    Read are partial-FC checkpoints of arcface_torch (v1 and v2) and CVLface of any world size, TFace heads, the headers
    of AdaDistill and PocketNet, evoLVe heads, classifiers inside AdaFace, MagFace and FaceX-Zoo checkpoints, and our
    own ``classifier.safetensors``. A shard stands for all shards of its set in its folder. The axis of the embedding's
    width is the width; where both are, the source's own order decides.

    Args:
        path: A file, or a folder that holds one classifier.
        embedding_size: Width of the embedding it classifies.
        classes: How many classes there are; takes padding away, and is compared with what is there.

    Raises:
        InputError: Nothing known there, several classifiers, a shard missing, twice, misshapen or of another width,
            another number of classes, a row of zeros. A `CheckpointError` where a file is at fault.
        NonFiniteError: A weight is NaN or infinite; names the class.
    """
    found = _gather(path, embedding_size)
    if classes is not None or found.spare:
        found = _cut(found, classes)
    _require_usable(found.class_weights, found.where, range(len(found.class_weights)))
    return found


def class_rows(path: Path, embedding_size: int, names: Sequence[str]) -> ClassifierFiles:
    """The class weights of some identities, in their order.

    Rows with names are found by name, and may be more than asked for. Rows without are taken by number where the
    identities are numbers in rising order, as in a record file, and in order otherwise; then there must be as many.

    Args:
        path: As in :func:`read_classifier_files`.
        embedding_size: Width of the embedding.
        names: The identities, in label order.

    Raises:
        InputError: As :func:`read_classifier_files`, or an identity that has no row.
        NonFiniteError: A weight is NaN or infinite.
    """
    found = _gather(path, embedding_size)
    numbers = _numbers(names, len(found.class_weights))
    if found.class_names is not None:
        chosen = _by_name(found, names)
    elif numbers is not None:
        chosen = numbers
    else:
        found, chosen = _cut(found, len(names)), list(range(len(names)))
    rows = found.class_weights[torch.tensor(chosen)]
    _require_usable(rows, found.where, chosen)
    return replace(found, class_weights=rows, class_names=tuple(names), spare=0)


def _by_name(found: ClassifierFiles, names: Sequence[str]) -> list[int]:
    place = {name: row for row, name in enumerate(found.class_names or ())}
    strangers = [name for name in names if name not in place]
    if strangers:
        what = f"lacks {len(strangers)} of the data's {len(names)} identities: {', '.join(strangers[:3])}"
        raise InputError(found.where, what, "train on the teacher's identities, or set teacher.classifier=class_means")
    return [place[name] for name in names]


def _numbers(names: Sequence[str], rows: int) -> list[int] | None:
    """The names as row numbers, where they are plain numbers in rising order below ``rows``.

    Example:
        >>> _numbers(["0", "2"], 3), _numbers(["0", "02"], 3), _numbers(["1", "10", "2"], 11)
        ([0, 2], None, None)
    """
    if not all(name.isascii() and name.isdigit() and str(int(name)) == name for name in names):
        return None
    numbers = [int(name) for name in names]
    rising = all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
    return numbers if rising and numbers and numbers[-1] < rows else None


def _cut(found: ClassifierFiles, classes: int | None) -> ClassifierFiles:
    """Without the padding at its end."""
    rows = len(found.class_weights)
    if classes is None:
        classes = rows - _zeros_at_end(found.class_weights, found.spare)
        if classes == rows:
            what = f"pads its {rows} rows, and up to {found.spare} at the end stand for nobody"
            raise InputError(found.where, what, "say how many classes there are")
    if not rows - found.spare <= classes <= rows:
        padding = f", up to {found.spare} of them padding" if found.spare else ""
        what = f"has {rows} rows{padding}, the data {classes} identities"
        fix = "give the data it was trained on, or all of its shards; or set teacher.classifier=class_means"
        raise InputError(found.where, what, fix)
    return replace(found, class_weights=found.class_weights[:classes], spare=0)


def _zeros_at_end(rows: Tensor, most: int) -> int:
    filled = rows[len(rows) - most :].any(dim=1).nonzero()
    return most if not len(filled) else most - 1 - int(filled[-1])


def _require_usable(rows: Tensor, where: str, numbers: Sequence[int]) -> None:
    """Refuse rows no cosine can be taken of."""
    bad = ~torch.isfinite(rows).all(dim=1)
    if bad.any():
        first = numbers[int(bad.nonzero()[0])]
        what = f"class {first} of {len(rows)} is not finite, {int(bad.sum())} such rows"
        raise NonFiniteError(where, what, "take an earlier checkpoint")
    zero = ~rows.any(dim=1)
    if zero.any():
        first = numbers[int(zero.nonzero()[0])]
        what = f"class {first} of {len(rows)} is all zeros, {int(zero.sum())} such rows: no cosine can be taken of it"
        raise CheckpointError(where, what, "give the checkpoint at the end of its training, or all of its classes")


def _gather(path: Path, embedding_size: int) -> ClassifierFiles:
    if not path.exists():
        raise InputError(str(path), "no such file or folder", f"looked from {Path.cwd()}")
    if path.is_dir():
        found = _only_set(path)
    else:
        known = layout_of(path.name)
        if known is None and path.suffix == ".safetensors" and "format" in weights.read_state(path)[1]:
            return _own(path, embedding_size)
        if known is None:
            stored = _stored(path, None)
            matrix = _oriented([(path, stored)], embedding_size)[0]
            return ClassifierFiles(matrix, None, f"{stored.source}: {path.name}", str(path))
        found = _sets(path.parent)[known[0].source, known[1]]
    if found.layout.source == "facekd":
        return _own(found.first, embedding_size)
    return _merged(found, embedding_size)


def _own(path: Path, embedding_size: int) -> ClassifierFiles:
    class_weights, names, metadata = weights.read_classifier(path)
    if class_weights.shape[1] != embedding_size:
        what = f"its class weights have {class_weights.shape[1]} columns, the teacher's embedding {embedding_size}"
        raise InputError(str(path), what, "give the classifier that was trained with it")
    source, digest = metadata.get("source", ""), metadata.get("teacher_digest", "")
    return ClassifierFiles(class_weights.float(), tuple(names), source, str(path), teacher_digest=digest)


def _sets(folder: Path) -> dict[tuple[str, str], _FileSet]:
    """Every classifier in a folder, its shards by rank."""
    found: dict[tuple[str, str], _FileSet] = {}
    for path in sorted(folder.iterdir()):
        known = layout_of(path.name) if path.is_file() else None
        if known is None:
            continue
        layout, name, rank = known
        shards = found.setdefault((layout.source, name), _FileSet(layout, name)).shards
        if rank in shards:
            what = f"rank {rank} is there twice: {shards[rank].name} and {path.name}"
            raise InputError(str(folder), what, "keep one of them")
        shards[rank] = path
    return found


def _only_set(folder: Path) -> _FileSet:
    found = list(_sets(folder).values())
    if not found:
        raise InputError(str(folder), "holds no classifier file known here", f"known: {KNOWN_FILES}")
    if len(found) > 1:
        names = ", ".join(each.first.name for each in found[:5])
        more = " ..." if len(found) > 5 else ""
        raise InputError(str(folder), f"holds {len(found)} classifiers: {names}{more}", "give the path of one of them")
    return found[0]


def _merged(found: _FileSet, embedding_size: int) -> ClassifierFiles:
    """All shards of a set in rank order."""
    ranks, where = sorted(found.shards), str(found.first)
    missing = sorted(set(range(ranks[-1] + 1)) - set(ranks))
    if missing:
        what = f"rank {missing[0]} is missing, {len(missing)} of {ranks[-1] + 1} shards"
        raise InputError(where, what, _GIVE_ALL)
    files = [found.shards[rank] for rank in ranks]
    parts = _oriented([(path, _stored(path, found.layout)) for path in files], embedding_size)
    _check_arithmetic(files, [len(part) for part in parts])
    shards = "" if len(files) == 1 else f" and {len(files) - 1} more shards"
    momentum = [path.name for path in sorted(found.first.parent.iterdir()) if MOMENTUM.fullmatch(path.name)]
    notes = [f"{found.first.parent}: {len(momentum)} momentum files left out: {', '.join(momentum[:3])}"]
    return ClassifierFiles(
        class_weights=torch.cat(parts),
        class_names=None,
        source=f"{found.layout.source}: {found.first.name}{shards}",
        where=where,
        spare=len(files) - 1 if found.layout.padded else 0,
        notes=tuple(notes) if momentum else (),
    )


def _check_arithmetic(files: Sequence[Path], sizes: Sequence[int]) -> None:
    """Shard r of n holds ``C // n + (r < C % n)`` of C classes; anything else is not one training's."""
    count, classes = len(sizes), sum(sizes)
    for rank, (path, size) in enumerate(zip(files, sizes, strict=True)):
        expected = classes // count + (rank < classes % count)
        if size != expected:
            what = f"holds {size} classes, but shard {rank} of {count} with {classes} classes in all holds {expected}"
            raise InputError(str(path), what, "give the shards of one training, every one of them")


def _stored(path: Path, layout: Layout | None) -> Stored:
    tree = weights.load_checkpoint(path)
    found = find_stored(tree, layout)
    if found is None:
        what = f"no class weights that are known here in it ({holds(tree)})"
        raise CheckpointError(str(path), what, f"known: {KNOWN_FILES}, AdaFace, MagFace and FaceX-Zoo checkpoints")
    tensor = found.tensor.detach()
    if tensor.dim() != 2 or not tensor.is_floating_point():
        raise CheckpointError(str(path), f"its class weights are {tensor.dtype} {tuple(tensor.shape)}, not a matrix")
    if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
        raise CheckpointError(str(path), "its class weights store fewer values than they claim", "save them again")
    return replace(found, tensor=tensor.clone())


def _oriented(shards: Sequence[tuple[Path, Stored]], width: int) -> list[Tensor]:
    """Each shard as (classes, width) float32, all turned the same way."""
    told: dict[int, Path] = {}
    for path, stored in shards:
        axes = [axis for axis in (0, 1) if stored.tensor.shape[axis] == width]
        if not axes:
            rows, columns = stored.tensor.shape
            what = f"its class weights are {rows} x {columns}, and neither is the teacher's embedding width of {width}"
            raise InputError(str(path), what, "give the classifier that was trained with it")
        if len(axes) == 1:
            told.setdefault(axes[0], path)
    if len(told) == 2:
        what = f"lies the other way round than {told[1].name}: the width of {width} is its other axis"
        raise InputError(str(told[0]), what, "give the shards of one training")
    widths = 1 if shards[0][1].classes_first else 0
    axis = next(iter(told), widths)
    return [(stored.tensor if axis == 1 else stored.tensor.T).to(torch.float32).contiguous() for _, stored in shards]
