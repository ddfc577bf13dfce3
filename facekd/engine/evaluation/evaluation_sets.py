"""The sets that models are measured on, opened and checked as far as that goes without a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facekd.data.align import size_doubt
from facekd.data.identities import IdentitySource
from facekd.data.ijb import is_ijb
from facekd.data.list_column import column_of_images, read_column
from facekd.data.open_source import IDENTITY_SUFFIXES, open_identities
from facekd.data.tinyface import is_tinyface
from facekd.data.verification import ImageSource, VerificationSet, distinct_pairs, open_verification_set, sniff_list
from facekd.errors import DataError, InputError, UsageError
from facekd.metrics.all_pairs import count_pairs
from facekd.metrics.genuine_pairs import MOST_GENUINE

PROTOCOLS = ("auto", "lfw", "pairs", "all-pairs")


@dataclass(frozen=True, eq=False)
class Groups:
    """What a column of a list says of each image or pair.

    Attributes:
        column: Its name.
        values: (n,) a text for each image of an identity list, or for each pair.
    """

    column: str
    values: np.ndarray

    @property
    def names(self) -> list[str]:
        """The different values, sorted."""
        return sorted(set(self.values.tolist()))


@dataclass(frozen=True)
class OpenedSet:
    """Images with a protocol, checked as far as that goes without a model.

    Attributes:
        name: What reports call it.
        protocol: ``lfw`` (pairs in folds), ``pairs`` or ``all-pairs``.
        data: A verification set for the first two, images with identities for the third.
        warnings: What a user should know and nothing refuses.
        groups: What its parts are measured by as well; all pairs are those within a group.
    """

    name: str
    protocol: str
    data: VerificationSet | IdentitySource
    warnings: tuple[str, ...] = ()
    groups: Groups | None = None

    @property
    def digest(self) -> str:
        """Of the images and what is compared."""
        return self.data.digest

    @property
    def images(self) -> ImageSource:
        """The distinct images."""
        return self.data.images if isinstance(self.data, VerificationSet) else self.data

    @property
    def subjects_known(self) -> bool:
        """Whether the people in the images are known, so that intervals can resample people."""
        return not isinstance(self.data, VerificationSet) or self.data.subjects is not None


def open_set(path: Path, *, images: Path | None = None, protocol: str = "auto", drop_same: bool = False) -> OpenedSet:
    """Open what ``--on`` names: a ``.bin``, a pairs file, or identities in whatever ``open_identities`` takes.

    Sets of templates are opened by :func:`facekd.engine.evaluation.template_sets.open_template_set`. Here they are
    refused: read as a folder of identities, TinyFace would be three people and every figure of it wrong.

    Args:
        path: The file or folder.
        images: Root of the paths in a pairs file or list; the folder of that file when None.
        protocol: One of :data:`PROTOCOLS`; ``auto`` takes ``lfw`` for ``.bin`` and LFW's ``.txt``, ``pairs`` for
            other pairs files and ``all-pairs`` for identities.
        drop_same: Leave out pairs of an image with itself.

    Raises:
        InputError: A set that cannot be used, lacks genuine or impostor pairs, or has too many pairs.
        UsageError: A protocol the set cannot serve, or a folder laid out like IJB-B, IJB-C or TinyFace.
    """
    if path.is_dir() and (is_ijb(path) or is_tinyface(path)):
        layout = "IJB" if is_ijb(path) else "TinyFace"
        fix = "give pairs, or a folder or list of identities; facekd eval measures templates, with --protocol auto"
        raise UsageError(str(path), f"holds templates in {layout}'s layout, which are no pairs and no identities", fix)
    stored = path.is_dir() or not path.exists() or path.suffix.lower() in IDENTITY_SUFFIXES
    if stored or sniff_list(path) == "identities":
        source = open_identities(path, images)
        return _size_doubted(identity_set(path.name, source, protocol, source.warnings))
    if protocol == "all-pairs":
        raise UsageError(str(path), "holds pairs, not identities", "use --protocol auto, or an identity list")
    found = open_verification_set(path, images=images)
    found = distinct_pairs(found) if drop_same else found
    natural = "lfw" if path.suffix.lower() in (".bin", ".txt") else "pairs"
    opened = OpenedSet(path.name, natural if protocol == "auto" else protocol, found, tuple(found.warnings))
    if opened.protocol == "lfw" and np.unique(found.folds).size < 2:
        raise UsageError(str(path), "has one fold only", "use --protocol pairs, or number more folds")
    return _size_doubted(opened)


def grouped(opened: OpenedSet, path: Path, column: str) -> OpenedSet:
    """The set with groups by a column of its list.

    Args:
        opened: From :func:`open_set`.
        path: The list it was opened from.
        column: A column beside those that make the list.

    Raises:
        InputError: No such column, a row that says nothing in it, or a group without genuine or impostor pairs.
        UsageError: The set is no list with columns.
    """
    _require_columns(path)
    groups = Groups(column.lower(), read_column(path, column))
    if not isinstance(opened.data, VerificationSet):
        _require_countable_groups(opened.name, groups, opened.data.labels)
        return replace(opened, groups=groups)
    for name in groups.names:
        if len(np.unique(opened.data.genuine[groups.values == name])) < 2:
            where = f"{opened.name}, {column} {name}"
            raise InputError(where, "holds genuine or impostor pairs only", "add pairs of the other kind")
    return replace(opened, groups=groups)


def groups_of_stored(name: str, names: Sequence[str], labels: np.ndarray, path: Path, column: str) -> Groups:
    """Groups of stored embeddings by a column of a list that names their images; no image is read.

    Args:
        name: What to call the embeddings in an error.
        names: Of their images.
        labels: (n,) who each shows.
        path: The list.
        column: A column beside ``path``.

    Raises:
        InputError: No such column, an image of which the list says nothing, or a group without genuine or impostor
            pairs.
        UsageError: The list has no columns.
    """
    _require_columns(path)
    groups = Groups(column.lower(), column_of_images(path, column, names))
    _require_countable_groups(name, groups, labels)
    return groups


def _require_columns(path: Path) -> None:
    if path.suffix.lower() not in (".csv", ".tsv", ".parquet"):
        raise UsageError("--by", f"{path} is no list with columns", "give a .csv, .tsv or .parquet list")


def _require_countable_groups(where: str, groups: Groups, labels: np.ndarray) -> None:
    for name in groups.names:
        require_countable(f"{where}, {groups.column} {name}", labels[groups.values == name])


def _size_doubted(opened: OpenedSet) -> OpenedSet:
    """The set with a warning where its first image is of a size that aligned faces do not have."""
    try:
        doubt = size_doubt(*opened.images.read(0).shape[:2])
    except DataError:
        return opened  # it is refused by name when its turn comes
    return opened if doubt is None else replace(opened, warnings=(*opened.warnings, f"{opened.name}: {doubt}"))


def identity_set(name: str, source: IdentitySource, protocol: str = "auto", warnings: Sequence[str] = ()) -> OpenedSet:
    """Images with identities, every pair of which is compared.

    Args:
        name: What reports call it.
        source: The images.
        protocol: ``auto`` or ``all-pairs``.
        warnings: What opening them gave.

    Raises:
        InputError: No genuine pair, no impostor pair, or too many.
        UsageError: Another protocol.
    """
    if protocol not in ("auto", "all-pairs"):
        raise UsageError(name, f"holds identities, and {protocol} needs pairs", "use --protocol all-pairs")
    require_countable(name, source.labels)
    return OpenedSet(name, "all-pairs", source, tuple(warnings))


def require_countable(name: str, labels: np.ndarray) -> None:
    """Refuse identities whose pairs show nothing, or are too many to score.

    Args:
        name: What to call them in an error.
        labels: (n,) who each image shows.

    Raises:
        InputError: No genuine pair, no impostor pair, or too many.
    """
    genuine, impostor = count_pairs(labels)
    if not impostor:
        raise InputError(name, "0 impostor pairs: FPR is not defined", "add images of other people")
    if not genuine:
        raise InputError(name, "0 genuine pairs: TPR is not defined", "add a second image of some people")
    if genuine > MOST_GENUINE:
        what = f"{len(labels):,} images make {genuine:,} genuine pairs"
        raise InputError(name, what, f"at most {MOST_GENUINE:,}: evaluate fewer images of a person")
