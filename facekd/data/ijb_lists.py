"""The lists of an IJB folder: which image shows which template, where its landmarks are, and who is searched for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facekd.data.align import likeness
from facekd.data.images import shown
from facekd.data.lists import read_rows, read_text, relative_path
from facekd.errors import InputError

LARGEST_COORDINATE = 1e6
LEAST_MEDIAN_LIKENESS = 0.8
"""A full profile has 0.78; points in any other order than the right one have less, and frontal faces nearly 1."""

_PLAIN_NAME = re.compile(r"\w[\w-]*\.\w+", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}")
_FACE_FIX = "write name, template id, media id, separated by spaces"
_POINTS_FIX = "write name, x1 y1 ... x5 y5, detector score, separated by spaces"


@dataclass(frozen=True)
class Faces:
    """Rows of ``*_face_tid_mid.txt``.

    Attributes:
        path: The file, for messages.
        lines: Line number of each row.
        names: Path of each image below the folder of crops.
        templates: int64 (n,).
        media: int64 (n,).
    """

    path: Path
    lines: list[int]
    names: list[str]
    templates: np.ndarray
    media: np.ndarray


def read_faces(path: Path) -> Faces:
    """Read which template and medium each image belongs to.

    Raises:
        InputError: The file cannot be read, or a line has other than three fields, an id that is no whole number from 0
            up, or a name that leads out of its folder; names the line.
    """
    lines, names, numbers = [], [], []
    for line, fields in _rows(path):
        where = f"{shown(path)}:{line}"
        if len(fields) != 3:
            raise InputError(where, f"{_count(fields)} instead of 3: '{shown(' '.join(fields), 80)}'", _FACE_FIX)
        for kind, text in zip(("template id", "media id"), fields[1:], strict=True):
            if not _NUMBER.fullmatch(text):
                raise InputError(where, f"{kind} '{shown(text, 40)}' is no whole number from 0 up", _FACE_FIX)
        lines.append(line)
        names.append(_name(fields[0], where))
        numbers.append((int(fields[1]), int(fields[2])))
    templates, media = np.array(numbers, np.int64).T
    return Faces(path, lines, names, templates, media)


def read_points(path: Path, faces: Faces) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Landmarks and detector scores of the images, found by name whatever the order of the rows.

    Args:
        path: ``*_name_5pts_score.txt``.
        faces: The images wanted.

    Returns:
        float64 (n, 5, 2), float64 (n,), and what a user should know.

    Raises:
        InputError: The file cannot be read; a line has other than twelve fields, a number that is none or not finite, a
            negative score, or five equal points; an image has no line, or two that differ; or the points of most lines
            do not lie like a face, so that they stand in another order.
    """
    names, lines, values = [], [], []
    for line, fields in _rows(path):
        where = f"{shown(path)}:{line}"
        if len(fields) != 12:
            raise InputError(where, f"{_count(fields)} instead of 12: '{shown(' '.join(fields), 80)}'", _POINTS_FIX)
        names.append(_name(fields[0], where))
        lines.append(line)
        values.append(_numbers(fields[1:], where))
    table = np.array(values)
    _refuse_other_order(path, table)
    if names == faces.names:
        chosen, warnings = table, []
    else:
        chosen = table[_rows_by_name(path, names, lines, table, faces)]
        warnings = [f"{shown(path)}: its rows are not in the order of {faces.path.name}; images are matched by name"]
    return chosen[:, :10].reshape(-1, 5, 2), chosen[:, 10], warnings


def read_subjects(path: Path) -> tuple[dict[int, int], dict[int, int]]:
    """The subject and the first line of each template that a gallery or probe list names.

    Args:
        path: A ``.csv`` with a header that names TEMPLATE_ID and SUBJECT_ID, a row for each image or each template.

    Raises:
        InputError: The file cannot be read, lacks a column, or a row has another number of fields, an id that is no
            whole number from 0 up, or another subject than an earlier row of its template; names the line.
    """
    rows, _ = read_rows(path)
    header = [name.strip().upper() for name in rows[0][1]]
    absent = [name for name in ("TEMPLATE_ID", "SUBJECT_ID") if header.count(name) != 1]
    if absent:
        what = f"the header '{shown(','.join(rows[0][1]), 80)}' lacks {' and '.join(absent)}"
        raise InputError(f"{shown(path)}:{rows[0][0]}", what, "separate the columns with commas")
    columns = header.index("TEMPLATE_ID"), header.index("SUBJECT_ID")
    subjects: dict[int, int] = {}
    lines: dict[int, int] = {}
    for line, fields in rows[1:]:
        where = f"{shown(path)}:{line}"
        if len(fields) != len(header):
            raise InputError(where, f"{_count(fields)} instead of {len(header)}", "one for each column of the header")
        texts = [fields[column].strip() for column in columns]
        for kind, text in zip(("template id", "subject id"), texts, strict=True):
            if not _NUMBER.fullmatch(text):
                raise InputError(where, f"{kind} '{shown(text, 40)}' is no whole number from 0 up")
        template, subject = (int(text) for text in texts)
        if subjects.setdefault(template, subject) != subject:
            what = f"template {template} is of subject {subject}, and of {subjects[template]} on line {lines[template]}"
            raise InputError(where, what)
        lines.setdefault(template, line)
    if not subjects:
        raise InputError(shown(path), "holds a header and no templates")
    return subjects, lines


def _rows(path: Path) -> list[tuple[int, list[str]]]:
    """Lines that are not blank, with their numbers, cut at spaces and tabs."""
    text, _ = read_text(path)
    return [(line, fields) for line, whole in enumerate(text.split("\n"), 1) if (fields := whole.split())]


def _name(text: str, where: str) -> str:
    return text if _PLAIN_NAME.fullmatch(text) else relative_path(text, where)


def _count(fields: Sequence[str]) -> str:
    return f"{len(fields)} field{'s' * (len(fields) != 1)}"


def _numbers(texts: Sequence[str], where: str) -> list[float]:
    """Ten coordinates and a score that can be used."""
    values = []
    for text in texts:
        try:
            values.append(float(text))
        except ValueError:
            raise InputError(where, f"'{shown(text, 40)}' is no number", _POINTS_FIX) from None
        if not abs(values[-1]) <= LARGEST_COORDINATE:
            raise InputError(where, f"{shown(text, 40)} is no coordinate and no score", _POINTS_FIX)
    if values[10] < 0:
        raise InputError(where, f"the detector score {shown(texts[10], 40)} is negative", _POINTS_FIX)
    if max(values[0:10:2]) - min(values[0:10:2]) < 1e-6 and max(values[1:10:2]) - min(values[1:10:2]) < 1e-6:
        raise InputError(where, "the five landmarks are one point", "detect the face again, or remove the image")
    return values


def _refuse_other_order(path: Path, table: np.ndarray) -> None:
    """The points of at most a thousand rows must lie like faces, by and large."""
    chosen = np.unique(np.linspace(0, len(table) - 1, 1000).astype(int))
    median = float(np.median([likeness(table[row, :10].reshape(5, 2)) for row in chosen]))
    if median < LEAST_MEDIAN_LIKENESS:
        what = (
            f"most of its points do not lie like faces (median likeness {median:.2f}, at least {LEAST_MEDIAN_LIKENESS})"
        )
        fix = "write x and y of left eye, right eye, nose, left and right of mouth, in that order"
        raise InputError(shown(path), what, fix)


def _rows_by_name(path: Path, names: Sequence[str], lines: Sequence[int], table: np.ndarray, faces: Faces) -> list[int]:
    """The row of each image."""
    rows: dict[str, int] = {}
    for row, name in enumerate(names):
        first = rows.setdefault(name, row)
        if not np.array_equal(table[first], table[row]):
            what = f"'{shown(name)}' has other landmarks on line {lines[first]}"
            raise InputError(f"{shown(path)}:{lines[row]}", what)
    for line, name in zip(faces.lines, faces.names, strict=True):
        if name not in rows:
            what = f"'{shown(name)}' has no line in {path.name}"
            raise InputError(f"{shown(faces.path)}:{line}", what, "detect its face, or remove the image")
    return [rows[name] for name in faces.names]
