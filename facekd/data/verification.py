"""Verification sets: pairs of images, whether each shows one person, and folds for accuracy."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from facekd.data.bin_format import read_bin, write_bin
from facekd.data.identities import first_few
from facekd.data.images import decode, shown
from facekd.data.labelled_lines import read_text_pairs
from facekd.data.lists import FileImages, ImageRoot, refuse_missing
from facekd.data.pair_lists import PairList, read_table_pairs, sniff_list
from facekd.errors import InputError

__all__ = ["ImageSource", "VerificationSet", "open_verification_set", "sniff_list", "write_bin"]

FOLDS = 10


class ImageSource(Protocol):
    """The distinct images of a set."""

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored: the bytes of a JPEG, PNG, BMP or WebP file."""

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3)."""

    def sample_name(self, index: int) -> str:
        """Name of image ``index`` for messages and exports."""


@dataclass
class VerificationSet:
    """A verification benchmark.

    Attributes:
        name: File name of the set.
        images: The distinct images; one that is part of many pairs is here once.
        pairs: int64 (P, 2), indices into ``images``.
        genuine: bool (P,), whether both images show one person.
        folds: int64 (P,), from 0 up without gaps.
        subjects: int64, one per image, the person shown; None when the set does not say.
        digest: sha256 of images (paths and sizes, or content for ``.bin``), pairs, labels and folds.
        warnings: What a user should know and nothing refuses.
    """

    name: str
    images: ImageSource
    pairs: np.ndarray
    genuine: np.ndarray
    folds: np.ndarray
    subjects: np.ndarray | None
    digest: str
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class StoredImages:
    """Encoded images in memory, each with the record it was first met at."""

    name: str
    stored: tuple[bytes, ...]
    records: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.stored)

    def encoded(self, index: int) -> bytes:
        return self.stored[index]

    def read(self, index: int) -> np.ndarray:
        return decode(self.stored[index], f"{self.name}: image {self.records[index]}")

    def sample_name(self, index: int) -> str:
        return str(self.records[index])


def open_verification_set(
    path: Path, *, images: Path | None = None, seed: int = 0, both_kinds: bool = True
) -> VerificationSet:
    """Open a verification set and check everything that can be checked without decoding.

    Folds are those of the file where it states them. Sets whose pairs come in a published order without stating folds
    (``.bin``, LFW lists without fold counts) are cut into ten runs of consecutive pairs, if each then holds both
    kinds; otherwise, and for tables without a fold column, ten stratified folds are drawn and a warning says so.

    Args:
        path: ``.bin`` (InsightFace), ``.txt`` (LFW's pairs, or CALFW's or FaceX-Zoo's labelled ones) or
            ``.csv``/``.tsv`` (path1, path2, label[, fold]).
        images: Folder the paths of a list are relative to; the list's own folder when None.
        seed: Of the drawn folds.
        both_kinds: Refuse a set without genuine or without impostor pairs: nothing can be measured on it.

    Raises:
        InputError: A malformed or unsafe file (names the line or record), missing images (first three and count), a
            pair listed as genuine and as impostor, or no genuine or no impostor pair at all.
    """
    path = Path(path)
    readers = {".txt": read_text_pairs, ".csv": read_table_pairs, ".tsv": read_table_pairs}
    suffix = path.suffix.lower()
    if suffix == ".bin":
        return _open_bin(path, seed, both_kinds)
    if suffix not in readers:
        known = ".bin, .txt (LFW, CALFW or FaceX-Zoo pairs), .csv or .tsv"
        raise InputError(shown(path), "not a verification set" if path.exists() else "no such file", f"give a {known}")
    listed = readers[suffix](path)
    if both_kinds:
        _refuse_one_kind(shown(path), listed.genuine)
    return _open_list(path, listed, ImageRoot(Path(images) if images is not None else path.parent), seed)


def distinct_pairs(found: VerificationSet) -> VerificationSet:
    """A set without its pairs of an image with itself, which any model calls genuine.

    Raises:
        InputError: No genuine or no impostor pair is left.
    """
    kept = found.pairs[:, 0] != found.pairs[:, 1]
    if kept.all():
        return found
    _refuse_one_kind(found.name, found.genuine[kept].tolist())
    folds = np.unique(found.folds[kept], return_inverse=True)[1].astype(np.int64)
    digest = hashlib.sha256(f"distinct pairs of {found.digest}".encode()).hexdigest()
    warnings = [*found.warnings, f"{found.name}: {int((~kept).sum())} such pairs are left out"]
    return replace(
        found, pairs=found.pairs[kept], genuine=found.genuine[kept], folds=folds, digest=digest, warnings=warnings
    )


def some_pairs(found: VerificationSet, chosen: np.ndarray) -> VerificationSet:
    """Some pairs of a set, without folds: a part of a benchmark has no cross-validated accuracy.

    Args:
        found: The set.
        chosen: (P,) True for the pairs.
    """
    pairs, genuine = found.pairs[chosen], found.genuine[chosen]
    return replace(found, pairs=pairs, genuine=genuine, folds=np.zeros(len(pairs), np.int64))


def _open_bin(path: Path, seed: int, both_kinds: bool) -> VerificationSet:
    encoded, labels = read_bin(path)
    name = shown(path)
    if both_kinds:
        _refuse_one_kind(name, labels)
    contents = {id(data): hashlib.sha256(data).hexdigest() for data in {id(data): data for data in encoded}.values()}
    first: dict[str, int] = {}
    records: list[int] = []
    for record, data in enumerate(encoded):
        if contents[id(data)] not in first:
            first[contents[id(data)]] = len(records)
            records.append(record)
    pairs = np.array([first[contents[id(data)]] for data in encoded], np.int64).reshape(-1, 2)
    genuine = np.array(labels, bool)
    repeats, contradictions = _repeats(pairs, genuine)
    warnings = _pair_warnings(name, pairs, repeats, [f"image {record}" for record in records])
    if contradictions:
        warnings.append(f"{name}: {len(contradictions)} pairs of the same images are labelled both ways")
    folds = _ordered_folds(genuine)
    if folds is None:
        folds = _drawn_folds(name, genuine, seed, warnings)
    stored = StoredImages(name, tuple(encoded[record] for record in records), tuple(records))
    digest = _digest(list(first), pairs, genuine, folds)
    return VerificationSet(path.name, stored, pairs, genuine, folds, None, digest, warnings)


def _open_list(path: Path, listed: PairList, root: ImageRoot, seed: int) -> VerificationSet:
    name = shown(path)
    paths, sizes, pairs = _find_images(path, listed, root)
    genuine = np.array(listed.genuine, bool)
    repeats, contradictions = _repeats(pairs, genuine)
    if contradictions:
        lines = sorted(listed.lines[pair] for pair in contradictions[0])
        where, what = f"{name}:{lines[1]}", f"this pair is labelled the other way on line {lines[0]}"
        raise InputError(where, what, f"{len(contradictions)} such in all; keep one of each")
    warnings = listed.warnings + _pair_warnings(name, pairs, repeats, paths)
    if listed.folds is not None:
        folds = np.unique(listed.folds, return_inverse=True)[1].astype(np.int64)
    else:
        ordered = _ordered_folds(genuine) if path.suffix.lower() == ".txt" else None
        folds = _drawn_folds(name, genuine, seed, warnings) if ordered is None else ordered
    subjects = _subjects(name, paths, pairs, genuine, warnings)
    warnings += _fold_warnings(name, pairs, genuine, folds, subjects)
    identities = [f"{relative}\0{size}" for relative, size in zip(paths, sizes, strict=True)]
    digest = _digest(identities, pairs, genuine, folds)
    return VerificationSet(path.name, FileImages(root, tuple(paths)), pairs, genuine, folds, subjects, digest, warnings)


def _refuse_one_kind(name: str, genuine: Sequence[bool]) -> None:
    if all(genuine):
        raise InputError(name, "0 impostor pairs: FPR is not defined", "add pairs of different people")
    if not any(genuine):
        raise InputError(name, "0 genuine pairs: TPR is not defined", "add pairs of one person")


def _find_images(path: Path, listed: PairList, root: ImageRoot) -> tuple[list[str], list[int], np.ndarray]:
    index: dict[str, int] = {}
    paths: list[str] = []
    sizes: list[int] = []
    missing: list[tuple[int, str]] = []
    for line, sides in zip(listed.lines, listed.sides, strict=True):
        for side in sides:
            if side in index:
                continue
            index[side] = len(paths)
            tried = [side + suffix for suffix in listed.suffixes]
            found = ((relative, root.size(relative, f"{shown(path)}:{line}")) for relative in tried)
            relative, size = next(((relative, size) for relative, size in found if size is not None), (tried[0], None))
            if size is None:
                missing.append((line, relative))
            paths.append(relative)
            sizes.append(size or 0)
    refuse_missing(path, missing, root)
    pairs = np.array([[index[first], index[second]] for first, second in listed.sides], np.int64)
    return paths, sizes, pairs


def _repeats(pairs: np.ndarray, genuine: np.ndarray) -> tuple[int, list[tuple[int, int]]]:
    """How many pairs repeat an earlier one either way round, and which contradict an earlier one."""
    _, first, inverse = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True, return_inverse=True)
    earlier = first[inverse.reshape(-1)]
    against = np.nonzero(genuine != genuine[earlier])[0]
    return len(pairs) - len(first), [(int(earlier[pair]), int(pair)) for pair in against]


def _pair_warnings(name: str, pairs: np.ndarray, repeats: int, images: Sequence[str]) -> list[str]:
    same = [images[image] for image in pairs[pairs[:, 0] == pairs[:, 1], 0].tolist()]
    warnings = [f"{name}: {len(same)} pairs hold the same image on both sides: {first_few(same)}"] if same else []
    return warnings + ([f"{name}: {repeats} pairs repeat an earlier pair"] if repeats else [])


def _ordered_folds(genuine: np.ndarray) -> np.ndarray | None:
    if len(genuine) < 2 * FOLDS:
        return None
    parts = np.array_split(genuine, FOLDS)
    if any(part.all() or not part.any() for part in parts):
        return None
    return np.repeat(np.arange(FOLDS, dtype=np.int64), [len(part) for part in parts])


def _drawn_folds(name: str, genuine: np.ndarray, seed: int, warnings: list[str]) -> np.ndarray:
    count = min(FOLDS, len(genuine))
    warnings.append(f"{name}: the pairs state no folds; {count} stratified folds were drawn with seed {seed}")
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.nonzero(genuine == kind)[0]) for kind in (True, False)])
    folds = np.empty(len(genuine), np.int64)
    folds[order] = np.arange(len(genuine)) % count
    return folds


def _subjects(
    name: str, paths: Sequence[str], pairs: np.ndarray, genuine: np.ndarray, warnings: list[str]
) -> np.ndarray | None:
    people = np.unique([os.path.dirname(path) for path in paths], return_inverse=True)[1].astype(np.int64)
    wrong = int(((people[pairs[:, 0]] == people[pairs[:, 1]]) != genuine).sum())
    if wrong:
        warnings.append(f"{name}: folders do not tell people apart ({wrong} pairs disagree); subjects are unknown")
    return None if wrong else people


def _fold_warnings(
    name: str, pairs: np.ndarray, genuine: np.ndarray, folds: np.ndarray, subjects: np.ndarray | None
) -> list[str]:
    counts = np.stack([np.bincount(folds[genuine == kind], minlength=folds.max() + 1) for kind in (True, False)])
    lacking = int((counts == 0).any(axis=0).sum())
    warnings = [f"{name}: {lacking} folds lack genuine or impostor pairs"] if lacking else []
    if subjects is not None:
        seen = np.unique(np.stack([subjects[pairs].ravel(), np.repeat(folds, 2)], axis=1), axis=0)
        shared = int((np.bincount(seen[:, 0]) > 1).sum())
        if shared:
            warnings.append(f"{name}: {shared} people are in more than one fold")
    return warnings


def _digest(images: Sequence[str], pairs: np.ndarray, genuine: np.ndarray, folds: np.ndarray) -> str:
    digest = hashlib.sha256()
    for identity in images:
        part = os.fsencode(identity)
        digest.update(len(part).to_bytes(4, "little") + part)
    for array in (pairs.astype("<i8"), genuine, folds.astype("<i8")):
        digest.update(array.tobytes())
    return digest.hexdigest()
