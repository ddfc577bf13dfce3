"""A further column of a list: what sets images or pairs apart beside who they show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np

from facekd.data.images import shown
from facekd.data.lists import read_rows
from facekd.data.parquet_rows import read_parquet_rows
from facekd.errors import InputError
from facekd.registry import near_names


def read_column(path: Path, column: str) -> np.ndarray:
    """The values of a column of a CSV, TSV or Parquet list with a header, a text a row, in its order.

    Args:
        path: The list.
        column: Its name, in any case.

    Raises:
        InputError: The list has no such column, or a row says nothing in it.
    """
    if path.suffix.lower() == ".parquet":
        rows = read_parquet_rows(path, (column,))
    else:
        rows, _ = read_rows(path)
    names = [name.strip().lower() for name in rows[0][1]]
    if names.count(column.lower()) != 1:
        near = near_names(column.lower(), names)
        fix = f"did you mean {', '.join(near)}" if near else f"the list has {', '.join(names)}"
        raise InputError(f"{shown(path)}:{rows[0][0]}", f"no column '{shown(column, 40)}'", fix)
    place = names.index(column.lower())
    values = []
    for line, fields in rows[1:]:
        value = fields[place].strip() if place < len(fields) else ""
        if not value:
            raise InputError(f"{shown(path)}:{line}", f"says nothing in the column {column}", "fill it in every row")
        values.append(value)
    return np.array(values, dtype=object)


def column_of_images(path: Path, column: str, names: Sequence[str]) -> np.ndarray:
    """What a column of a list says of images known by name, a text an image, in their order.

    Args:
        path: A list with the column ``path``; it may hold other images as well.
        column: The name of the column, in any case.
        names: Of the images, as the column ``path`` has them.

    Raises:
        InputError: The list is none of these, says two things of an image, or nothing of one of ``names``.
    """
    listed = [str(PurePosixPath(text)) for text in read_column(path, "path")]
    said: dict[str, str] = {}
    for image, value in zip(listed, read_column(path, column), strict=True):
        if said.setdefault(image, value) != value:
            raise InputError(shown(path), f"says {said[image]} and {value} of {shown(image)}", "list each image once")
    unsaid = [name for name in names if str(PurePosixPath(name)) not in said]
    if unsaid:
        what = f"lists {len(names) - len(unsaid):,} of {len(names):,} images, not {shown(unsaid[0])}"
        raise InputError(shown(path), what, "give the list the embeddings were made from")
    return np.array([said[str(PurePosixPath(name))] for name in names], dtype=object)
