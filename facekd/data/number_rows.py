"""Text files of whole numbers, millions of lines long, read in bounded memory and checked line by line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from facekd.data.images import shown
from facekd.errors import InputError

CHUNK_BYTES = 2**22
LONGEST_LINE = 2**16
_LARGEST_DIGITS = 18
_NUMBER = re.compile(rf"[0-9]{{1,{_LARGEST_DIGITS}}}")
_NEWLINE, _NOT_DIGIT, _SPACES = 10, 10, b" \t\r\n"


def number_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of a file of whole numbers, separated by spaces or tabs, a chunk at a time.

    Args:
        path: Lines with a number for each column; blank lines are passed over.
        columns: What the columns are called, for messages.

    Yields:
        Line numbers (k,) and numbers (k, columns), both int64.

    Raises:
        InputError: The file is missing, unreadable or holds no row, or a line holds another number of fields or a field
            that is no whole number from 0 up of at most 18 digits; names the line.
    """
    line, found = 1, False
    for chunk in _chunks(path):
        values = _plain(chunk, len(columns))
        if values is None:
            lines, values = _line_by_line(path, chunk, line, columns)
        else:
            lines = np.arange(line, line + len(values))
        line += chunk.count(b"\n")
        if len(values):
            found = True
            yield lines, values
    if not found:
        raise InputError(shown(path), "is empty", f"a line holds {', '.join(columns)}")


def most_rows(path: Path) -> int:
    """How many rows a file can hold at most: its lines.

    Raises:
        InputError: The file is missing or unreadable.
    """
    return sum(chunk.count(b"\n") for chunk in _chunks(path))


def _chunks(path: Path) -> Iterator[bytes]:
    """The file in pieces of whole lines, the last one ended where it was not."""
    if path.is_dir():
        raise InputError(shown(path), "is a folder, not a list")
    try:
        with open(path, "rb") as stream:
            rest = stream.read(3)
            rest = b"" if rest == b"\xef\xbb\xbf" else rest
            while block := stream.read(CHUNK_BYTES):
                whole, newline, rest = (rest + block).rpartition(b"\n")
                if len(rest) > LONGEST_LINE:
                    raise InputError(shown(path), f"a line is longer than {LONGEST_LINE} bytes: not a list of numbers")
                if whole:
                    yield whole + newline
            if rest:
                yield rest + b"\n"
    except FileNotFoundError:
        raise InputError(shown(path), "no such file") from None
    except OSError as error:
        raise InputError(shown(path), f"cannot be read: {error.strerror}") from None


def _plain(chunk: bytes, columns: int) -> np.ndarray | None:
    """The numbers of a chunk in which every line is plainly right, or None."""
    if chunk.translate(None, b"0123456789" + _SPACES):
        return None
    text = np.frombuffer(chunk, np.uint8)
    digit = (text - np.uint8(ord("0"))) < _NOT_DIGIT
    edges = np.flatnonzero(np.diff(digit, prepend=False, append=False))
    starts, ends = edges[::2], edges[1::2]
    newlines = np.flatnonzero(text == _NEWLINE)
    in_line = np.searchsorted(starts, newlines)
    if (np.diff(in_line, prepend=0) != columns).any() or (len(ends) and (ends - starts).max() > _LARGEST_DIGITS):
        return None
    return np.fromstring(chunk, dtype=np.int64, sep=" ").reshape(-1, columns)


def _line_by_line(path: Path, chunk: bytes, first: int, columns: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    lines, rows = [], []
    for number, raw in enumerate(chunk.split(b"\n")[:-1], first):
        text = raw.decode("utf-8", errors="replace")
        fields = text.split()
        if not fields:
            continue
        where = f"{shown(path)}:{number}"
        if len(fields) != len(columns):
            what = (
                f"{len(fields)} field{'s' * (len(fields) != 1)} instead of {len(columns)}: '{shown(text.strip(), 80)}'"
            )
            raise InputError(where, what, f"write {', '.join(columns)}, separated by spaces")
        for name, field in zip(columns, fields, strict=True):
            if not _NUMBER.fullmatch(field):
                what = f"{name} '{shown(field, 40)}' is no whole number from 0 up"
                raise InputError(where, what, f"at most {_LARGEST_DIGITS} digits")
        lines.append(number)
        rows.append([int(field) for field in fields])
    return np.array(lines, np.int64), np.array(rows, np.int64).reshape(-1, len(columns))
