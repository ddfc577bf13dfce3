"""RecordIO, the container of MXNet's ``.rec`` files: records in parts, and the ``.idx`` that finds them.

A part is a magic word, a word holding a flag (top 3 bits) and a length (29 bits), the payload, and zeros up to a
multiple of 4 bytes; all little-endian. A record is one part (flag 0), or a first (1), middle (2) and last part (3):
its writer cut it wherever the magic word stood at a multiple of 4 bytes and left that word out, so that a reader may
look for the next record from anywhere. The index is text, ``key<TAB>offset`` a line, in any order.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from facekd.data.images import shown, shown_start
from facekd.data.stored_file import SNIFFED, StoredFile, container
from facekd.errors import DataError, InputError

MAGIC = 0xCED7230A
MAX_LENGTH = 2**29 - 1
PART = struct.Struct("<II")
MAX_INDEX_BYTES = 2**31

_WORD = struct.pack("<I", MAGIC)
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_GATHERED = 65_536  # records looked at together
_LINE = re.compile(rb"[0-9]{1,18}\t[0-9]{1,18}")
_INDEX_FIX = "remove the .idx: it is rebuilt from the .rec"


def encode_record(payload: bytes) -> bytes:
    """A record as it lies in the file, cut at every aligned magic word.

    Raises:
        DataError: 2**29 bytes or more.

    Example:
        >>> encode_record(b"abc").hex(" ", 4)
        '0a23d7ce 03000000 61626300'
    """
    if len(payload) > MAX_LENGTH:
        raise DataError("record", f"{len(payload)} bytes are too many", f"at most {MAX_LENGTH}")
    parts, start, at = [], 0, payload.find(_WORD)
    while at >= 0:
        if at % 4:
            at = payload.find(_WORD, at + 1)
            continue
        parts.append(payload[start:at])
        start = at + 4
        at = payload.find(_WORD, start)
    parts.append(payload[start:])
    flags = [_WHOLE] if len(parts) == 1 else [_FIRST, *[_MIDDLE] * (len(parts) - 2), _LAST]
    return b"".join(
        PART.pack(MAGIC, flag << 29 | len(part)) + part + bytes(-len(part) % 4)
        for flag, part in zip(flags, parts, strict=True)
    )


class RecordWriter:
    """Records one after another into an open file, and the lines of their index.

    Args:
        stream: Opened for writing in binary, at its beginning.

    Attributes:
        index: ``key<TAB>offset`` of every record so far, in the order written.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.index: list[str] = []
        self._stream, self._at = stream, 0

    def write(self, key: int, payload: bytes) -> None:
        """Append one record."""
        record = encode_record(payload)
        self._stream.write(record)
        self.index.append(f"{key}\t{self._at}\n")
        self._at += len(record)


class RecordReader:
    """Records of a file by their offset; picklable, and the same from any process.

    Args:
        path: The ``.rec`` file.

    Raises:
        InputError: No such file, or it does not begin with a record.
    """

    def __init__(self, path: Path) -> None:
        self.name = shown(path)
        self._file = StoredFile(path)
        self.size = self._file.size
        start = self._file.read(0, SNIFFED)
        if start[:4] != _WORD:
            kind = container(start)
            if not start:
                raise InputError(self.name, "is empty")
            what = f"is {kind}, not RecordIO" if kind else f"not RecordIO (first bytes {shown_start(start)})"
            raise InputError(self.name, what, "unpack it first" if kind else "give the .rec file itself")

    def read(self, offset: int, expected_bytes: int = 0) -> bytes:
        """The payload of the record at ``offset``, its parts joined by the words left out between them.

        Args:
            offset: Where the record begins.
            expected_bytes: How long the payload is, where that is known: such a record is read and checked at once.

        Raises:
            DataError: There is no whole record; names the byte.
        """
        if expected_bytes:
            data = self._file.read(offset, PART.size + expected_bytes)
            if len(data) == PART.size + expected_bytes and data.startswith(PART.pack(MAGIC, expected_bytes)):
                return data[PART.size :]
        parts, at, expected = [], offset, (_WHOLE, _FIRST)
        while True:
            head = self._file.read(at, PART.size)
            problem = self._problem(head, at, expected)
            if problem:
                raise DataError(f"{self.name}: byte {at}", problem, "restore the file")
            flag, length = _flag_and_length(head)
            part = self._file.read(at + PART.size, length)
            if len(part) < length:
                raise DataError(f"{self.name}: byte {at}", "the file was cut short since it was opened")
            parts.append(part)
            if flag in (_WHOLE, _LAST):
                return _WORD.join(parts)
            at += PART.size + _padded(length)
            expected = (_MIDDLE, _LAST)

    def end(self, offset: int, key: int) -> int:
        """Where the record at ``offset`` ends, its padding included.

        Raises:
            InputError: There is no whole record; names ``key`` and the byte.
        """
        at, expected = offset, (_WHOLE, _FIRST)
        while True:
            head = self._file.read(at, PART.size)
            problem = self._problem(head, at, expected)
            if problem:
                raise InputError(f"{self.name}: record {key}, byte {at}", problem, "fetch or pack the file again")
            flag, length = _flag_and_length(head)
            at += PART.size + _padded(length)
            if flag in (_WHOLE, _LAST):
                return at
            expected = (_MIDDLE, _LAST)

    def walk(self) -> np.ndarray:
        """The offset of every record, found by going from each to the next: int64, ascending.

        Raises:
            InputError: A record is damaged or cut short; names its number and byte.
        """
        offsets, at = [], 0
        while at < self.size:
            offsets.append(at)
            at = self.end(at, len(offsets) - 1)
        return np.array(offsets, np.int64)

    def heads(self, keys: np.ndarray, offsets: np.ndarray, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The first bytes of many records, checked to be whole parts or first parts that end within the file.

        Args:
            keys: int64 (N,), for messages.
            offsets: int64 (N,), visited in ascending order.
            count: Bytes of each, the 8 of the part's head included; beyond the file's end they are zero.

        Yields:
            Places in ``offsets``, and uint8 ``(places, count)``.

        Raises:
            InputError: Bad magic, a middle part, or a length that leads beyond the file; names key and byte.
        """
        order = np.argsort(offsets, kind="stable")
        for start in range(0, len(order), _GATHERED):
            places = order[start : start + _GATHERED]
            found = self._file.read_many(offsets[places].tolist(), count)
            words = found[:, : PART.size].copy().view("<u4").astype(np.int64)
            ends = offsets[places] + PART.size + (words[:, 1] & MAX_LENGTH)
            bad = (words[:, 0] != MAGIC) | (words[:, 1] >> 29 > _FIRST) | (ends > self.size)
            for place in places[bad][:1].tolist():
                self.end(int(offsets[place]), int(keys[place]))
            yield places, found

    def _problem(self, head: bytes, at: int, expected: tuple[int, int]) -> str | None:
        if len(head) < PART.size:
            return f"cut short: the file ends at byte {self.size}"
        if head[:4] != _WORD:
            return f"bad magic {head[:4].hex()}: no record begins here"
        flag, length = _flag_and_length(head)
        if flag not in expected:
            return f"part flag {flag} where {expected[0]} or {expected[1]} belongs"
        if at + PART.size + length > self.size:
            return f"a length of {length} leads beyond the end, byte {self.size}: damaged or cut short"
        return None


def read_index(path: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The keys and offsets of an ``.idx``, in its order.

    Args:
        path: Text, ``key<TAB>offset`` a line.
        size: Bytes of the ``.rec``.

    Returns:
        int64 keys and int64 offsets.

    Raises:
        InputError: No text of that form, or a key or offset that repeats, is negative, unaligned or beyond the file;
            names the line.
    """
    name, file = shown(path), StoredFile(path)
    if file.size > MAX_INDEX_BYTES:
        raise InputError(name, f"{file.size} bytes is too large", f"at most {MAX_INDEX_BYTES}")
    text = file.read(0, file.size).replace(b"\r\n", b"\n").rstrip(b"\n")
    if not text:
        raise InputError(name, "is empty", _INDEX_FIX)
    if not _is_table(text):
        lines = text.split(b"\n")
        number = next(number for number, line in enumerate(lines) if not _LINE.fullmatch(line))
        found = shown(lines[number].decode("latin-1"), 60)
        raise InputError(f"{name}:{number + 1}", f"'{found}' is not KEY<TAB>OFFSET", _INDEX_FIX)
    table: np.ndarray = np.fromstring(text.decode(), np.int64, sep=" ").reshape(-1, 2)
    keys, offsets = table[:, 0].copy(), table[:, 1].copy()
    for what, bad in (
        ("leads beyond the .rec", offsets >= size),
        ("is no multiple of 4", offsets % 4 != 0),
        ("repeats an earlier line", _repeated(offsets)),
    ):
        if bad.any():
            line = int(np.flatnonzero(bad)[0])
            raise InputError(f"{name}:{line + 1}", f"offset {offsets[line]} {what}", _INDEX_FIX)
    if _repeated(keys).any():
        line = int(np.flatnonzero(_repeated(keys))[0])
        raise InputError(f"{name}:{line + 1}", f"key {keys[line]} repeats an earlier line", _INDEX_FIX)
    return keys, offsets


def _is_table(text: bytes) -> bool:
    """Whether every line is two numbers with a tab between, told without looking at lines one by one."""
    found = np.frombuffer(text, np.uint8)
    separators = np.flatnonzero((found < ord("0")) | (found > ord("9")))
    if len(separators) % 2 != 1:
        return False
    if (found[separators[::2]] != ord("\t")).any() or (found[separators[1::2]] != ord("\n")).any():
        return False
    lengths = np.diff(separators, prepend=-1, append=len(found)) - 1
    return bool((lengths >= 1).all() and (lengths <= 18).all())


def _repeated(values: np.ndarray) -> np.ndarray:
    """True where a value was there before.

    Example:
        >>> _repeated(np.array([3, 1, 3])).tolist()
        [False, False, True]
    """
    repeated = np.ones(len(values), bool)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated


def _flag_and_length(head: bytes) -> tuple[int, int]:
    word = PART.unpack_from(head)[1]
    return word >> 29, word & MAX_LENGTH


def _padded(length: int) -> int:
    return length + -length % 4
