"""Tar shards: what they give, that nothing unsafe is read from them, and damage named by shard and member."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tar_shards import write_tar_shards

from facekd.data.images import encode_jpeg, encode_png
from facekd.data.tar_source import TarSource
from facekd.errors import DataError, InputError


def face(number: int) -> bytes:
    return encode_png(np.full((8, 8, 3), number, np.uint8))


def make(path: Path, members: Sequence[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mtime = 1.5  # as webdataset writes it: a header of its own in front of every member
            archive.addfile(entry, io.BytesIO(data))
    return path


def pairs(labels: Sequence[object], kind: str = "cls") -> list[tuple[str, bytes]]:
    found = []
    for number, label in enumerate(labels):
        text = json.dumps(label) if kind == "json" else str(label)
        found += [(f"{number:04d}.png", face(number)), (f"{number:04d}.{kind}", text.encode())]
    return found


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        TarSource(path)
    return str(caught.value)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_numbered_classes(form: int, tmp_path: Path) -> None:
    source = TarSource(make(tmp_path / "a.tar", pairs([10, 9, 9]), form))
    assert source.names == ["9", "10"] and source.labels.tolist() == [1, 0, 0] and source.labels.dtype == np.int64
    assert [source.encoded(k) for k in range(3)] == [face(k) for k in range(3)]
    assert source.read(2)[0, 0].tolist() == [2, 2, 2] and source.sample_name(2) == "a.tar/0002.png"
    assert source.warnings == []


def test_named_identities_and_both(tmp_path: Path) -> None:
    by_name = [{"identity": name} for name in ("cy", "ann", "cy")]
    source = TarSource(make(tmp_path / "a.tar", pairs(by_name, "json")))
    assert source.names == ["ann", "cy"] and source.labels.tolist() == [1, 0, 1]
    both = [{"label": 0, "identity": "cy"}, {"label": 7, "identity": "ann", "age": 3}]
    source = TarSource(make(tmp_path / "b.tar", pairs(both, "json")))
    assert source.names == ["cy", "ann"] and source.labels.tolist() == [0, 1]
    by_number = [{"label": 3}, {"label": 1}]
    assert TarSource(make(tmp_path / "c.tar", pairs(by_number, "json"))).names == ["1", "3"]


def test_keys_end_at_the_first_dot_and_members_may_lie_apart(tmp_path: Path) -> None:
    members = [
        ("./x/a.cls", b"1\n"),
        ("x/a.b.txt", b"?"),
        ("y/a.JPG", encode_jpeg(np.zeros((8, 8, 3), np.uint8))),
        ("./x/a.png", face(1)),
        ("y/a.cls", b"2"),
        ("y/a.json", b"not looked at"),
        ("._y", b"?"),
    ]
    source = TarSource(make(tmp_path / "a.tar", members))
    assert [source.sample_name(k) for k in range(2)] == ["a.tar/y/a.JPG", "a.tar/x/a.png"]
    assert source.names == ["1", "2"] and source.labels.tolist() == [1, 0]
    assert source.warnings == [
        f"{tmp_path}/a.tar: 2 members are neither image nor label and left out: 'x/a.b.txt', '._y'"
    ]


def test_shards_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    make(tmp_path / "b.tar", pairs([1, 0]))
    make(tmp_path / "a.tar", pairs([0, 2]))
    (tmp_path / "classes.txt").write_text("ann\nbob\ncy\n")
    source = TarSource(tmp_path)
    assert [source.sample_name(k) for k in range(4)] == [f"{s}.tar/000{k}.png" for s in "ab" for k in range(2)]
    assert source.names == ["ann", "bob", "cy"] and source.labels.tolist() == [0, 2, 1, 0]
    other = pickle.loads(pickle.dumps(source))
    assert [other.encoded(k) for k in range(4)] == [face(k) for k in (0, 1, 0, 1)]
    (tmp_path / "b.tar").unlink()
    again = pickle.loads(pickle.dumps(source))
    assert again.encoded(0) == face(0)
    with pytest.raises(DataError, match="b.tar: cannot be read: No such file"):
        again.encoded(2)


def test_a_long_name_is_read(tmp_path: Path) -> None:
    name = "faces/" + "n" * 180
    members = [(f"{name}.png", face(0)), (f"{name}.cls", b"0"), *pairs([1])]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert TarSource(make(tmp_path / "a.tar", members, form)).sample_name(0) == f"a.tar/{name}.png"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "a.tar: holds no images"),
        ([("a.txt", b"x")], "a.tar: holds no images"),
        (pairs([0, 0]), "only one identity, '0'"),
        ([*pairs([0, 1]), ("z.png", face(1))], "a.tar: 'z.png' has no label (pack a .cls or .json of the same key"),
        ([*pairs([0, 1]), ("z.cls", b"1")], "a.tar: 'z.cls' labels no image"),
        ([*pairs([0, 1]), ("0001.jpg", face(1))], "'0001.png' and '0001.jpg' are two images of one key"),
        ([*pairs([0, 1]), ("0001.png", face(1))], "'0001.png' and '0001.png' are two images of one key"),
        ([*pairs([0, 1]), ("../z.png", face(1))], "a.tar: member '../z.png' leads upwards with '..'"),
        ([*pairs([0, 1]), ("/z.png", face(1))], "a.tar: member '/z.png' is absolute"),
        (pairs([0, "x"]), "a.tar: 0001.cls: label 'x' is no class (write a whole number from 0 to 999999999)"),
        (pairs([0, -1]), "a.tar: 0001.cls: label '-1' is no class"),
        (pairs([0, ""]), "a.tar: 0001.cls: label '' is no class"),
        (pairs([{"label": 0}, {"label": 1.5}], "json"), "a.tar: 0001.json: label '1.5' is no class"),
        (pairs([{"label": 0}, {"label": True}], "json"), "a.tar: 0001.json: label 'true' is no class"),
        (pairs([{"label": 0}, {"age": 3}], "json"), "a.tar: 0001.json: holds neither label nor identity"),
        (pairs([{"label": 0}, [1]], "json"), "a.tar: 0001.json: holds neither label nor identity"),
        (pairs([{"identity": "a"}, {"identity": 3}], "json"), "a.tar: 0001.json: identity 3 is no name"),
        ([*pairs([0]), ("b.png", face(1)), ("b.json", b"{")], "a.tar: b.json: is no JSON"),
        (
            pairs([{"label": 0}, {"identity": "a"}], "json"),
            "a.tar: 0001.png: its label holds no number, and that of a.tar/0000.png does",
        ),
        (
            pairs([{"label": 0, "identity": "a"}, {"label": 1}], "json"),
            "a.tar: 0001.png: its label holds no name, and that of a.tar/0000.png does",
        ),
        (
            pairs([{"label": 0, "identity": "a"}, {"label": 0, "identity": "b"}], "json"),
            "a.tar: label 0 is 'a' and 'b'",
        ),
        (
            pairs([{"label": 0, "identity": "a"}, {"label": 1, "identity": "a"}], "json"),
            "a.tar: 'a' has two labels",
        ),
    ],
)
def test_bad_shards_are_refused_by_member(members: list[tuple[str, bytes]], message: str, tmp_path: Path) -> None:
    assert message in refusal(make(tmp_path / "a.tar", members))


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device or pipe"),
        (tarfile.FIFOTYPE, "a device or pipe"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
    ],
)
def test_links_and_devices_are_refused(kind: bytes, told: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar", pairs([0, 1]))
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo("z.png")
        entry.type, entry.linkname = kind, "0000.png"
        archive.addfile(entry)
    assert refusal(path).startswith(f"{path}: member 'z.png' is {told}")


def test_folders_inside_are_passed_over(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar", pairs([0, 1]))
    with tarfile.open(path, "a") as archive:
        entry = tarfile.TarInfo("faces")
        entry.type = tarfile.DIRTYPE
        archive.addfile(entry)
    assert len(TarSource(path)) == 2


def test_what_is_no_tar_is_told(tmp_path: Path) -> None:
    plain = make(tmp_path / "a.tar", pairs([0, 1])).read_bytes()
    for data, message in (
        (b"", "a.tar: is empty"),
        (b"<html>" + b"x" * 600, "a.tar: not a tar archive (first bytes '<html>') (give the .tar file itself)"),
        (gzip.compress(plain), "a.tar: is compressed (gzip) (decompress it first)"),
        (b"BZh9", "a.tar: is compressed (bzip2) (decompress it first)"),
    ):
        (tmp_path / "a.tar").write_bytes(data)
        assert message in refusal(tmp_path / "a.tar")
    assert "none.tar: no such file" in refusal(tmp_path / "none.tar")


def test_a_shard_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar", pairs([0, 1, 1]), tarfile.USTAR_FORMAT)
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        end = max(member.offset_data + 512 for member in archive)
    for cut in range(1, end + 1, 37):
        path.write_bytes(whole[:cut])
        assert f"{path}: " in refusal(path), cut
    path.write_bytes(whole[:end])
    assert f"no member and no end mark at byte {end} of {end}: damaged or cut short" in refusal(path)
    path.write_bytes(whole[: end + 512])
    assert len(TarSource(path)) == 3
    path.write_bytes(whole[:1024] + b"damage" + whole[1030:])
    assert "damaged or cut short" in refusal(path)


def test_a_member_that_leads_backwards_does_not_hang(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("0.png")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = b"\xff" * 10 + b"\xfc\x00"  # a size of -1024
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(10_240))
    assert "damaged or cut short" in refusal(tmp_path / "a.tar")


def test_the_digest_notices_what_changed(tmp_path: Path) -> None:
    variants = [[0, 1, 1], [0, 1], [0, 1, 0], [1, 0, 0]]
    digests = [TarSource(make(tmp_path / "a.tar", pairs(labels))).digest for labels in variants]
    (tmp_path / "classes.txt").write_text("ann\nbob\n")
    digests.append(TarSource(make(tmp_path / "a.tar", pairs([0, 1, 1]))).digest)
    assert len(set(digests)) == 5


SAMPLES = [(label, face(number)) for number, label in enumerate((0, 0, 1, 2, 2))]


def test_shards_of_the_standard_library_read_back(tmp_path: Path) -> None:
    names = ["ann", "bob", "c é"]
    write_tar_shards(tmp_path / "a", iter(SAMPLES), names, shard_size=2)
    source = TarSource(tmp_path / "a")
    assert source.names == names and source.warnings == []
    assert [(int(source.labels[k]), source.encoded(k)) for k in range(5)] == SAMPLES
    assert source.sample_name(4) == "faces-000002.tar/000000004.png"
