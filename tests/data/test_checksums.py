"""Checksums beside a data set: what changed is named, and a damaged side-car is not believed."""

from __future__ import annotations

import random
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from facekd.data.checksums import Checksum, checksum, compare, read_checksums, side_car, write_checksums
from facekd.data.images import decode, encode_jpeg
from facekd.errors import DataError, InputError

NAMES = ["ann/1.jpg", "with space.png", "tab\tand\nnewline", "Jos\xe9", "\udcff.jpg", "100%", ""]


def entries(names: list[str]) -> list[Checksum]:
    return [checksum(name, name.encode("utf-8", "surrogatepass")) for name in names]


def test_every_name_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "faces.checksums"
    assert write_checksums(path, entries(NAMES)) == len(NAMES)
    assert list(read_checksums(path)) == entries(NAMES)
    lines = path.read_bytes().decode("ascii").splitlines()
    assert len(lines) == len(NAMES) + 2
    assert lines[1] == f"{zlib.crc32(b'ann/1.jpg'):08x} 9 ann/1.jpg"


def test_the_side_car_is_hidden_in_a_folder_and_beside_a_file(tmp_path: Path) -> None:
    assert side_car(tmp_path) == tmp_path / ".checksums"
    assert side_car(tmp_path / "lfw.bin") == tmp_path / "lfw.bin.checksums"


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
def test_a_side_car_cut_short_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.checksums"
    write_checksums(path, entries(NAMES))
    path.write_bytes(path.read_bytes()[:kept] if kept != -1 else path.read_bytes()[:-2])
    with pytest.raises(InputError, match=r"a\.checksums: is damaged or no side-car of checksums \(remove it, or write"):
        read_checksums(path)


def test_every_flipped_bit_of_a_side_car_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.checksums"
    write_checksums(path, entries(["a.jpg", "b.jpg"]))
    whole = path.read_bytes()
    for at in range(len(whole) - 1):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(InputError):
            list(read_checksums(path))


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.checksums"
    path.write_bytes(bytes(range(256)) * 4)
    with pytest.raises(InputError, match="is damaged"):
        read_checksums(path)


def test_comparing_does_not_depend_on_order() -> None:
    rng = random.Random(0)
    for _ in range(200):
        names = [f"{number}.jpg" for number in range(20)]
        before = entries(names[:15])
        now = entries(names[5:])
        changed = sorted(rng.sample(names[5:15], 3))
        now = [entry._replace(crc=entry.crc ^ 1) if entry.name in changed else entry for entry in now]
        rng.shuffle(before)
        rng.shuffle(now)
        found = compare(before, now)
        assert sorted(found.changed) == changed
        assert sorted(found.missing) == sorted(names[:5])
        assert sorted(found.new) == sorted(names[15:])


def test_the_size_counts_too() -> None:
    assert compare([Checksum("a", 1, 2)], [Checksum("a", 1, 3)]).changed == ["a"]


def test_no_flipped_bit_of_an_image_goes_unnoticed_though_most_decode() -> None:
    face = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    data, draw, decoded = encode_jpeg(face), random.Random(0), 0
    whole = [checksum("a.jpg", data)]
    for trial in range(20_000):
        at = draw.randrange(8 * len(data))
        flipped = bytearray(data)
        flipped[at // 8] ^= 1 << at % 8
        assert compare(iter(whole), [checksum("a.jpg", bytes(flipped))]).changed == ["a.jpg"]
        if trial < 1000:
            with suppress(DataError):
                decode(bytes(flipped), "a.jpg")
                decoded += 1
    assert decoded > 500
