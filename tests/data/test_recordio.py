"""The container of ``.rec`` files byte for byte, parts put together again, and damage named by record and byte."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from facekd.data.record_heads import pack_image, unpack_image
from facekd.data.recordio import MAGIC, RecordReader, RecordWriter, encode_record, read_index
from facekd.data.stored_file import StoredFile
from facekd.errors import DataError, InputError

WORD = struct.pack("<I", MAGIC)
JPEG = bytes.fromhex("ffd8ffe0")

GOLDEN = {
    "image": (
        pack_image(7.0, 1, JPEG + b"abc"),
        "0a23d7ce 1f000000 00000000 0000e040 01000000 00000000 00000000 00000000 ffd8ffe0 61626300",
    ),
    "header": (
        pack_image((4.0, 6.0), 0, b""),
        "0a23d7ce 20000000 02000000 00000000 00000000 00000000 00000000 00000000 00008040 0000c040",
    ),
    "split": (
        pack_image(7.0, 1, JPEG + WORD + b"tail"),
        "0a23d7ce 1c000020 00000000 0000e040 01000000 00000000 00000000 00000000 ffd8ffe0 0a23d7ce 04000060 7461696c",
    ),
}


def written(path: Path, payloads: list[bytes]) -> Path:
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for key, payload in enumerate(payloads):
        writer.write(key, payload)
    path.write_bytes(stream.getvalue())
    path.with_suffix(".idx").write_text("".join(writer.index))
    return path


@pytest.mark.parametrize("name", GOLDEN)
def test_records_are_these_bytes_and_read_back(name: str, tmp_path: Path) -> None:
    payload, expected = GOLDEN[name]
    assert encode_record(payload).hex(" ", 4) == expected
    (tmp_path / "a.rec").write_bytes(bytes.fromhex(expected))
    reader = RecordReader(tmp_path / "a.rec")
    assert reader.walk().tolist() == [0] and reader.read(0) == payload
    assert unpack_image(reader.read(0)) == payload[24 + (8 if name == "header" else 0) :]


def plain_parts(data: bytes) -> list[tuple[int, bytes]]:
    """Every part of a file as (flag, payload), by the letter of the format."""
    parts, at = [], 0
    while at < len(data):
        magic, word = struct.unpack_from("<II", data, at)
        assert magic == MAGIC
        length = word % 2**29
        parts.append((word >> 29, data[at + 8 : at + 8 + length]))
        at += 8 + (length + 3) // 4 * 4
    assert at == len(data)
    return parts


def test_no_aligned_magic_word_is_left_and_every_payload_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pieces = [WORD, WORD[:2], b"x", b"abcd", bytes(3)]
    payloads = [b"".join(pieces[k] for k in rng.integers(0, 5, rng.integers(0, 12))) for _ in range(300)]
    payloads += [WORD, WORD * 3, b"", b"a" + WORD, b"abcd" + WORD, WORD + b"a"]
    reader = RecordReader(written(tmp_path / "a.rec", payloads))
    offsets = reader.walk()
    assert [reader.read(at) for at in offsets.tolist()] == payloads
    keys, indexed = read_index(tmp_path / "a.idx", reader.size)
    assert keys.tolist() == list(range(len(payloads))) and indexed.tolist() == offsets.tolist()
    data = (tmp_path / "a.rec").read_bytes()
    for start, end, payload in zip(offsets, [*offsets[1:], len(data)], payloads, strict=True):
        parts = plain_parts(data[start:end])
        aligned = sum(payload[at : at + 4] == WORD for at in range(0, len(payload), 4))
        assert [flag for flag, _ in parts] == ([0] if not aligned else [1, *[2] * (aligned - 1), 3])
        assert all(part[at : at + 4] != WORD for _, part in parts for at in range(0, len(part), 4))


def _read_all(reader: RecordReader, offsets: list[int], queue: multiprocessing.Queue) -> None:
    queue.put([reader.read(at) for at in offsets])


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_processes_read_at_once_without_disturbing_each_other(method: str, tmp_path: Path) -> None:
    payloads = [bytes([k]) * 5000 for k in range(100)]
    reader = RecordReader(written(tmp_path / "a.rec", payloads))
    offsets = reader.walk().tolist()
    context = multiprocessing.get_context(method)
    orders = [list(range(100)), list(range(99, -1, -1))]
    queues = [context.Queue() for _ in orders]
    workers = [
        context.Process(target=_read_all, args=(reader, [offsets[k] for k in order], queue))
        for order, queue in zip(orders, queues, strict=True)
    ]
    for worker in workers:
        worker.start()
    for order, queue, worker in zip(orders, queues, workers, strict=True):
        assert queue.get(timeout=60) == [payloads[k] for k in order]
        worker.join()


def test_a_pickled_reader_opens_the_file_again_and_refuses_another(tmp_path: Path) -> None:
    path = written(tmp_path / "a.rec", [b"one", b"two"])
    stored = pickle.dumps(RecordReader(path))
    assert len(stored) < 1000 and pickle.loads(stored).read(0) == b"one"
    written(path, [b"One", b"Two"])
    os.utime(path, ns=(0, 0))
    with pytest.raises(DataError, match="a.rec: changed since it was opened"):
        pickle.loads(stored).read(0)
    path.unlink()
    with pytest.raises(DataError, match="a.rec: cannot be read: No such file"):
        pickle.loads(stored).read(0)


def test_a_file_that_shrinks_under_the_reader_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.rec", [b"one", b"x" * 100])
    reader = RecordReader(path)
    with open(path, "r+b") as stream:
        stream.truncate(60)
    with pytest.raises(DataError, match="a.rec: byte 12: the file was cut short since it was opened"):
        reader.read(12)


HTML = b"<!DOCTYPE html><html><body>404"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "a.rec: is empty"),
        (HTML, "a.rec: not RecordIO (first bytes '<!DOCT') (give the .rec file itself)"),
        (b"PK\x03\x04rest", "a.rec: is zip, not RecordIO (unpack it first)"),
        (b"\x1f\x8b\x08rest", "a.rec: is gzip, not RecordIO (unpack it first)"),
        (bytes(16) + b"\xde\xc0\xef\xbe", "a.rec: is LMDB, not RecordIO (unpack it first)"),
        (b"0001.jpg".ljust(257, b"\0") + b"ustar", "a.rec: is tar, not RecordIO (unpack it first)"),
        (bytes(20), "a.rec: not RecordIO (first bytes "),
    ],
)
def test_what_is_no_recordio_is_told_by_its_first_bytes(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.rec").write_bytes(data)
    with pytest.raises(InputError) as caught:
        RecordReader(tmp_path / "a.rec")
    assert message in str(caught.value)


def damaged(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-5], "record 2, byte 32: a length of 8 leads beyond the end, byte 43"),
        (lambda data: data[:36], "record 2, byte 32: cut short: the file ends at byte 36"),
        (lambda data: damaged(data, 16, b"abcd"), "record 1, byte 16: bad magic 61626364: no record begins here"),
        (lambda data: damaged(data, 20, b"\xff\xff\xff\x1f"), "record 1, byte 16: a length of 536870911 leads beyond"),
        (lambda data: damaged(data, 20, b"\x08\0\0\x40"), "record 1, byte 16: part flag 2 where 0 or 1 belongs"),
        (lambda data: damaged(data, 20, b"\x08\0\0\x20"), "record 1, byte 32: part flag 0 where 2 or 3 belongs"),
        (lambda data: damaged(data, 36, b"\x08\0\0\x20"), "record 2, byte 48: cut short: the file ends at byte 48"),
    ],
)
def test_damage_is_named_by_record_and_byte(change, message: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.rec", [b"abcdefgh"] * 3)
    path.write_bytes(change(path.read_bytes()))
    reader = RecordReader(path)
    with pytest.raises(InputError) as walked:
        reader.walk()
    assert message in str(walked.value) and str(path) in str(walked.value)
    with pytest.raises(InputError) as gathered:
        list(reader.heads(np.arange(3), np.array([0, 16, 32]), 16))
        for key, at in enumerate((0, 16, 32)):
            reader.end(at, key)
    assert message in str(gathered.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a.idx: is empty"),
        ("0\t0\nx\t16\n", "a.idx:2: 'x\\t16' is not KEY<TAB>OFFSET (remove the .idx"),
        ("0\t0\n1 16\n", "a.idx:2: '1 16' is not KEY<TAB>OFFSET"),
        ("0\t0\n1\t-16\n", "a.idx:2: '1\\t-16' is not KEY<TAB>OFFSET"),
        ("0\t0\n1\t16\t3\n", "a.idx:2: '1\\t16\\t3' is not"),
        ("0\t0\n\n1\t16\n", "a.idx:2: '' is not"),
        ("0\t0\n1\t1.5\n", "a.idx:2: '1\\t1.5' is not"),
        ("0\t0\n1\t" + "9" * 30, "a.idx:2: '1\\t" + "9" * 30 + "' is not"),
        ("0\t0\n1\t48\n", "a.idx:2: offset 48 leads beyond the .rec"),
        ("0\t0\n1\t18\n", "a.idx:2: offset 18 is no multiple of 4"),
        ("0\t0\n1\t16\n2\t16\n", "a.idx:3: offset 16 repeats an earlier line"),
        ("0\t0\n1\t16\n0\t32\n", "a.idx:3: key 0 repeats an earlier line"),
    ],
)
def test_a_bad_index_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_text(text)
    with pytest.raises(InputError) as caught:
        read_index(tmp_path / "a.idx", 48)
    assert message in str(caught.value)


def test_an_index_may_come_in_any_order_and_with_either_line_end(tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(b"7\t32\r\n0\t0\r\n3\t16")
    keys, offsets = read_index(tmp_path / "a.idx", 48)
    assert keys.tolist() == [7, 0, 3] and offsets.tolist() == [32, 0, 16]


def test_many_places_are_read_at_once_with_zeros_beyond_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(bytes(range(1, 11)))
    file = StoredFile(tmp_path / "a.bin")
    expected = [[3, 4, 5, 6], [1, 2, 3, 4], [9, 10, 0, 0], [0, 0, 0, 0]]
    assert file.read_many([2, 0, 8, 40], 4).tolist() == expected
    assert pickle.loads(pickle.dumps(file)).read_many([2, 0, 8, 40], 4).tolist() == expected
    assert file.read_many([], 4).shape == (0, 4)
