"""Files that say where the five landmarks of each image are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facekd.data.align import five_points
from facekd.data.images import shown
from facekd.data.lists import read_rows, relative_path
from facekd.errors import InputError
from facekd.files import file_digest

COUNTS = (5, 68)
LARGEST_COORDINATE = 1e6
_LIST_FIELDS = {3: 0, 7: 4, 13: 0, 17: 4}
_AXIS = re.compile(r"(?:(?P<before>.+)_(?P<after_axis>[xy])|(?P<axis>[xy])_?(?P<number>\d+))")
_FORMS = "rows are path,x1,y1,...,x5,y5 (or 68 points), or aligned, path, label, box, 5 x, 5 y of a face2rec2 list"


@dataclass(frozen=True)
class LandmarkFile:
    """Landmarks by image path.

    Attributes:
        path: The file, for messages.
        digest: SHA-256 of the file.
        layout: ``5 points``, ``68 points`` or ``face2rec2``.
        rows: Row in ``points`` of each image path.
        lines: int64 (N,), line number of each row.
        points: float64 (N, 5, 2), pixels, image left first.
        warnings: What had to be assumed to read it.
    """

    path: Path
    digest: str
    layout: str
    rows: dict[str, int]
    lines: np.ndarray
    points: np.ndarray
    warnings: list[str]

    def where(self, name: str) -> str:
        """File and line of an image path, for messages."""
        return f"{shown(self.path)}:{self.lines[self.rows[name]]}"


def read_landmarks(path: Path) -> LandmarkFile:
    """Read a landmark file; its form is told by its first line.

    Forms: comma or tab separated rows of a path and 10 or 136 numbers x1, y1, x2, ...; the same with a header that
    names a ``path`` and the columns (``x1``, ``y1``, ... or ``nose_x``, ``nose_y``, ...), where other columns may
    stand between; or the ``.lst`` of InsightFace's face2rec2, tab separated: aligned, path, label, four numbers of a
    box or none, five x and five y.

    Raises:
        InputError: The file cannot be read, or a line has another number of points, a number that is none, is not
            finite or is beyond a million, an unsafe path, or a path listed before; names the line.
    """
    rows, warnings = read_rows(path)
    layout, columns = _layout(rows[0][1], f"{shown(path)}:{rows[0][0]}")
    body = rows[1:] if columns is not None and columns.header else rows
    if not body:
        raise InputError(shown(path), "holds a header and no rows")
    found: dict[str, int] = {}
    lines = np.array([line for line, _ in body], np.int64)
    points = np.empty((len(body), 5, 2))
    for row, (line, fields) in enumerate(body):
        where = f"{shown(path)}:{line}"
        name, points[row] = _from_list(fields, where) if columns is None else columns.read(fields, where)
        if name in found:
            raise InputError(where, f"'{shown(name)}' is listed on line {lines[found[name]]} already")
        found[name] = row
    return LandmarkFile(path, file_digest(path), layout, found, lines, points, warnings)


@dataclass(frozen=True)
class _Columns:
    """Where a row holds its path and its coordinates, and how many fields it has."""

    path: int
    coordinates: list[int]
    fields: int
    header: bool

    def read(self, fields: Sequence[str], where: str) -> tuple[str, np.ndarray]:
        if len(fields) != self.fields:
            raise InputError(where, f"{_count(fields)} instead of {self.fields}", _FORMS)
        values = _numbers([fields[column] for column in self.coordinates], where)
        return relative_path(fields[self.path], where), five_points(values.reshape(-1, 2))


def _layout(first: Sequence[str], where: str) -> tuple[str, _Columns | None]:
    if len(first) in _LIST_FIELDS and first[0].strip() in ("0", "1") and not _is_number(first[1]):
        return "face2rec2", None
    if len(first) > 1 and not _is_number(first[1]):
        columns = _header(first, where)
    elif len(first) - 1 in (2 * count for count in COUNTS):
        columns = _Columns(0, list(range(1, len(first))), len(first), header=False)
    else:
        raise InputError(where, _count(first), _FORMS)
    return f"{len(columns.coordinates) // 2} points", columns


def _header(names: Sequence[str], where: str) -> _Columns:
    lowered = [name.strip().lower() for name in names]
    if lowered.count("path") != 1:
        raise InputError(where, f"the header '{shown(','.join(names), 80)}' has no column path", _FORMS)
    places: dict[str, dict[str, int]] = {}
    for column, name in enumerate(lowered):
        if match := _AXIS.fullmatch(name):
            point = match["before"] or match["number"]
            places.setdefault(point, {})[match["after_axis"] or match["axis"]] = column
    if len(places) not in COUNTS or any(len(pair) != 2 for pair in places.values()):
        raise InputError(where, f"the header names {len(places)} points with x and y", _FORMS)
    coordinates = [pair[axis] for pair in places.values() for axis in "xy"]
    return _Columns(lowered.index("path"), coordinates, len(names), header=True)


def _from_list(fields: Sequence[str], where: str) -> tuple[str, np.ndarray]:
    if len(fields) not in _LIST_FIELDS:
        raise InputError(where, _count(fields), _FORMS)
    if fields[0].strip() == "1":
        raise InputError(where, "says that its image is aligned already", "leave it out here, and out of the source")
    if len(fields) < 13:
        raise InputError(where, "has no landmarks", _FORMS)
    values = _numbers(fields[3 + _LIST_FIELDS[len(fields)] :], where)
    return relative_path(fields[1], where), values.reshape(2, 5).T


def _numbers(texts: Sequence[str], where: str) -> np.ndarray:
    for text in texts:
        if not _is_number(text):
            raise InputError(where, f"'{shown(text, 40)}' is no number", _FORMS)
    values = np.array([float(text) for text in texts])
    bad = ~np.isfinite(values) | (np.abs(values) > LARGEST_COORDINATE)
    if bad.any():
        text = shown(texts[int(np.flatnonzero(bad)[0])].strip(), 40)
        raise InputError(where, f"{text} is no coordinate of an image", "leave images without landmarks out")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _count(fields: Sequence[str]) -> str:
    numbers = len(fields) - 1
    points = f", {numbers // 2} points" if numbers and numbers % 2 == 0 else ""
    return f"a path and {numbers} numbers{points}"
