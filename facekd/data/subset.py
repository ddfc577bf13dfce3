"""Some images of a data set, as a data set of their own: those of some identities, or all but a few."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from facekd.data.identities import IdentitySource, first_few
from facekd.data.images import shown
from facekd.data.lists import read_rows, read_text
from facekd.errors import InputError
from facekd.files import value_digest


class SubsetSource:
    """Some images of a data set; names keep their order and labels have no gaps.

    Args:
        whole: The data set.
        rows: int64, the images to keep, ascending.
        choice: What tells this choice from others of the same data set: part of the digest.

    Attributes:
        rows: int64, place of each image in the whole.
        places: int64, for each image of the whole its place here, or -1.
        columns: int64, label in the whole of each identity.
    """

    def __init__(self, whole: IdentitySource, rows: np.ndarray, choice: Mapping[str, Sequence[str]]) -> None:
        self.whole = whole
        self.rows = rows
        self.columns, self.labels = np.unique(whole.labels[rows], return_inverse=True)
        self.names = [whole.names[label] for label in self.columns.tolist()]
        self.places = np.full(len(whole), -1, np.int64)
        self.places[rows] = np.arange(len(rows))
        self.digest = value_digest({"whole": whole.digest, **choice})
        self.warnings = list(whole.warnings)

    def __len__(self) -> int:
        return len(self.rows)

    def encoded(self, index: int) -> bytes:
        """Image ``index`` as stored."""
        return self.whole.encoded(int(self.rows[index]))

    def read(self, index: int) -> np.ndarray:
        """Image ``index``, uint8 RGB (height, width, 3)."""
        return self.whole.read(int(self.rows[index]))

    def sample_name(self, index: int) -> str:
        """Name of image ``index`` in the whole."""
        return self.whole.sample_name(int(self.rows[index]))


def of_identities(whole: IdentitySource, names: Collection[str], where: str) -> SubsetSource:
    """The images of some identities.

    Args:
        whole: The data set.
        names: Whom to keep, in any order.
        where: Who asks, for messages.

    Raises:
        InputError: A name the data does not have, or fewer than two.
    """
    kept = set(names)
    strangers = sorted(kept.difference(whole.names))
    if strangers:
        what = f"names {len(strangers)} identities that the data does not have: {first_few(strangers)}"
        raise InputError(where, what, "take them out, or give the data they are in")
    if len(kept) < 2:
        raise InputError(where, f"selects {len(kept)} of {len(whole.names)} identities", "select at least two")
    is_kept = np.array([name in kept for name in whole.names])
    ordered = [name for name in whole.names if name in kept]
    return SubsetSource(whole, np.flatnonzero(is_kept[whole.labels]), {"identities": ordered})


def without_images(whole: IdentitySource, path: Path, at_most: float) -> SubsetSource:
    """A data set without the images that a table names; how many those are is among its warnings.

    Args:
        whole: The data set.
        path: CSV or TSV with the column ``path``, an image's name as ``facekd data inspect --broken`` writes it.
        at_most: Share of the images that may be left out.

    Raises:
        InputError: Unreadable, an image that the data does not have or that is named twice, more than ``at_most``, or
            an identity that has no others; names the line.
    """
    (line, header), *listed = read_rows(path)[0]
    if header.count("path") != 1:
        raise InputError(f"{shown(path)}:{line}", "the header lacks path", "write one column path")
    column = header.index("path")
    rows = {whole.sample_name(row): row for row in range(len(whole))}
    told: dict[str, int] = {}
    for line, fields in listed:
        name, where = fields[column] if column < len(fields) else "", f"{shown(path)}:{line}"
        if name not in rows:
            raise InputError(where, f"the data has no image '{shown(name)}'", "write the list for this data set")
        if name in told:
            raise InputError(where, f"'{shown(name)}' is on line {told[name]} already", "name an image once")
        told[name] = line
    if len(told) > at_most * len(whole):
        what = f"leaves out {len(told)} of {len(whole)} images, more than {at_most:.4g} of them"
        raise InputError(shown(path), what, "restore the images, or raise data.leave_out.at_most")
    kept = np.ones(len(whole), bool)
    kept[[rows[name] for name in told]] = False
    found = SubsetSource(whole, np.flatnonzero(kept), {"without": sorted(told)})
    if len(found.names) < len(whole.names):
        emptied = sorted(set(whole.names).difference(found.names))
        raise InputError(shown(path), f"leaves no image of {first_few(emptied)}", "remove them from the data")
    found.warnings.append(f"{shown(path)}: {len(told)} of {len(whole)} images are left out of training")
    return found


def rows_within(source: IdentitySource, whole: IdentitySource) -> np.ndarray:
    """Place of each image of ``source``, which is ``whole`` or a subset of it, in ``whole``."""
    return source.rows if isinstance(source, SubsetSource) and source is not whole else np.arange(len(source))


def names_by_shots(source: IdentitySource, at_least: int | None, at_most: int | None) -> list[str]:
    """Identities by their number of images, both bounds included.

    Args:
        source: The data set.
        at_least: None for no bound.
        at_most: None for no bound.
    """
    counts = np.bincount(source.labels, minlength=len(source.names))
    low, high = at_least or 0, len(source) if at_most is None else at_most
    return [name for name, count in zip(source.names, counts.tolist(), strict=True) if low <= count <= high]


def names_by_attribute(source: IdentitySource, path: Path, column: str, values: Sequence[str]) -> list[str]:
    """Identities whose row of a table holds one of some values.

    Args:
        source: The data set; rows of other people are passed over.
        path: CSV or TSV with the columns ``identity`` and ``column``, one row an identity.
        column: The attribute.
        values: As text.

    Raises:
        InputError: Unreadable, a column that is not there, an identity twice, or one of the data without a row.
    """
    (line, header), *rows = read_rows(path)[0]
    columns = [field.strip() for field in header]
    absent = [name for name in ("identity", column) if columns.count(name) != 1]
    if absent:
        what = f"the header '{shown(','.join(header))}' lacks {' and '.join(absent)}"
        raise InputError(f"{shown(path)}:{line}", what, "write one column of each name")
    told: dict[str, str] = {}
    for line, fields in rows:
        if len(fields) != len(columns):
            raise InputError(f"{shown(path)}:{line}", f"{len(fields)} fields instead of {len(columns)}")
        name = fields[columns.index("identity")].strip()
        if name in told:
            raise InputError(f"{shown(path)}:{line}", f"'{shown(name)}' has a row already", "give one row an identity")
        told[name] = fields[columns.index(column)].strip()
    silent = [name for name in source.names if name not in told]
    if silent:
        what = f"has no row for {len(silent)} identities of the data: {first_few(silent)}"
        raise InputError(shown(path), what, "give one row an identity")
    return [name for name in source.names if told[name] in values]


def names_in_file(path: Path) -> list[str]:
    """Identities named in a text file, one on each line; blank lines are passed over.

    Raises:
        InputError: Unreadable, empty, or a name that is there twice; names the line.
    """
    first: dict[str, int] = {}
    for number, line in enumerate(read_text(path)[0].splitlines(), 1):
        name = line.strip()
        if name and first.setdefault(name, number) != number:
            raise InputError(f"{shown(path)}:{number}", f"'{shown(name)}' is on line {first[name]} already")
    return list(first)
