"""Bad inputs 35 to 73: images, packs and landmarks nobody should train on."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from bad_inputs import Case, answer, face, recipe, write_faces
from click.testing import CliRunner
from facekd_cli.main import cli

from facekd.data.images import encode_png
from facekd.data.record_heads import pack_image
from facekd.data.recordio import encode_record

INSPECT = ["data", "inspect"]
Make = Callable[[Path], Sequence[str]]


def with_image(data: bytes, name: str = "1.png") -> Make:
    """Training on faces of which one is these bytes."""

    def make(here: Path) -> Sequence[str]:
        write_faces(here / "faces")
        (here / "faces" / "p1" / "1.png").unlink()
        (here / "faces" / "p1" / name).write_bytes(data)
        return recipe(here)

    return make


def png_claiming(height: int, width: int) -> bytes:
    """A small PNG whose header says it is large."""
    data = encode_png(np.zeros((4, 4, 3), np.uint8))
    head = struct.pack(">II", width, height) + data[24:29]
    return data[:16] + head + struct.pack(">I", zlib.crc32(b"IHDR" + head)) + data[33:]


def no_folder(here: Path) -> Sequence[str]:
    return recipe(here)


def empty_folder(here: Path) -> Sequence[str]:
    (here / "faces").mkdir()
    return recipe(here)


def one_identity(here: Path) -> Sequence[str]:
    write_faces(here / "faces", identities=1)
    return recipe(here, ("batch_size: 6", "batch_size: 2"))


def one_image_where_pairs_are_drawn(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "faces" / "lonely").mkdir()
    (here / "faces" / "lonely" / "0.png").write_bytes(face(9, 0))
    return recipe(here, ("batch_size: 6", "batch_size: 6, images_per_identity: 2"))


def of_list(*rows: str) -> Make:
    """Training on a list."""

    def make(here: Path) -> Sequence[str]:
        write_faces(here / "faces")
        (here / "faces" / "list.csv").write_text("".join(f"{row}\n" for row in ("path,identity", *rows)))
        return recipe(here, ("source: folder, path: faces", "source: list, path: faces/list.csv"))

    return make


GOOD_ROWS = [f"p{identity}/{sample}.png,p{identity}" for identity in range(3) for sample in range(4)]


def odd_names(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    for number, name in enumerate(("a b.png", "a\tb.png", "-rf.png", "é.png", "n" * 250 + ".png")):
        (here / "faces" / "p1" / name).write_bytes(face(1, 10 + number))
    return [*recipe(here), "--dry-run"]


def name_of_other_bytes(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "faces" / "p1" / os.fsdecode(b"\xff.png")).write_bytes(b"<html>")
    return recipe(here)


def symlink_loop(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "faces" / "p1" / "loop.png").symlink_to("loop.png")
    return recipe(here)


def folder_loop(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "faces" / "p1" / "again").symlink_to("../../faces")
    return [*recipe(here), "--dry-run"]


def one_face_under_two_names(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "faces" / "p2" / "0.png").write_bytes(face(1, 0))
    return [*INSPECT, "faces"]


def folders_of_one_name(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "faces" / "P1").mkdir()
    (here / "faces" / "P1" / "0.png").write_bytes(face(5, 0))
    return [*INSPECT, "faces"]


def other_data_on_resume(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    words = recipe(here)
    assert CliRunner().invoke(cli, words).exit_code == 0
    (here / "faces" / "p1" / "9.png").write_bytes(face(1, 9))
    return [*words, "--resume"]


def record(label: object, key: int, image: bytes) -> bytes:
    return encode_record(pack_image(label, key, image))


def records(change: Callable[[bytearray], object] | None = None, idx: str | None = "", heads: bytes = b"") -> Make:
    """Training on a .rec of twelve images, changed; ``idx`` replaces the index, None leaves it out."""

    def make(here: Path) -> Sequence[str]:
        (here / "faces").mkdir()
        data, offsets = bytearray(heads), []
        for identity in range(3):
            for sample in range(4):
                offsets.append(len(data))
                data += record(float(identity), len(offsets), face(identity, sample))
        if change:
            change(data)
        (here / "faces" / "train.rec").write_bytes(data)
        if idx is not None:
            text = idx or "".join(f"{key}\t{at}\n" for key, at in enumerate(offsets, 1))
            (here / "faces" / "train.idx").write_text(text)
        return recipe(here, ("source: folder, path: faces", "source: record, path: faces/train.rec"))

    return make


def set_bytes(at: int, new: bytes) -> Callable[[bytearray], object]:
    def change(data: bytearray) -> None:
        data[at : at + len(new)] = new

    return change


def second_magic(data: bytearray) -> None:
    data[data.index(data[:4], 4)] ^= 1


def cut(data: bytearray) -> None:
    del data[-100:]


def archive_for_records(here: Path) -> Sequence[str]:
    (here / "faces").mkdir()
    with zipfile.ZipFile(here / "faces" / "train.rec", "w") as target:
        target.writestr("a.png", face(0, 0))
    (here / "faces" / "train.idx").write_text("1\t0\n")
    return [*INSPECT, "faces/train.rec"]


def html_for_records(here: Path) -> Sequence[str]:
    (here / "faces").mkdir()
    (here / "faces" / "train.rec").write_bytes(b"<html><body>404 not found</body></html>\n")
    (here / "faces" / "train.idx").write_text("1\t0\n")
    return [*INSPECT, "faces/train.rec"]


def climbing_tar(here: Path) -> Sequence[str]:
    import io
    import tarfile

    with tarfile.open(here / "faces.tar", "w", format=tarfile.USTAR_FORMAT) as target:
        for name, data in (("../x.jpg", face(0, 0, jpeg=True)), ("../x.cls", b"0")):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            target.addfile(entry, io.BytesIO(data))
    return [*INSPECT, "faces.tar"]


def landmarks(row: str) -> Make:
    def make(here: Path) -> Sequence[str]:
        write_faces(here / "photos", identities=2, samples=1)
        (here / "points.csv").write_text(f"path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\n{row}\n")
        return ["data", "align", "photos", "out", "--landmarks", "points.csv"]

    return make


JPEG = face(0, 0, 96, jpeg=True)

CASES = [
    Case("35-missing", no_folder, "faces: no such file or folder .check data.path"),
    Case("35-empty", empty_folder, "faces: holds no identities"),
    Case("36-one-identity", one_identity, "faces: only one identity, 'p0'"),
    Case("36-one-image", one_image_where_pairs_are_drawn, "identities .* fewer than . images: .* again in a batch", 0),
    Case(
        "37-missing-images",
        of_list(*GOOD_ROWS, *(f"gone/{n}.png,p1" for n in range(5))),
        "list.csv: 5 images are missing: line 14: faces/gone/0.png; .*; and 2 more",
    ),
    Case("38-zero-bytes", with_image(b""), "faces/p1/1.png: zero bytes", 3),
    Case("39-html", with_image(b"<html>404</html>"), "faces/p1/1.png: not an image .starts with '<html>", 3),
    Case("40-truncated-jpeg", with_image(JPEG[: len(JPEG) // 2], "1.jpg"), "faces/p1/1.jpg: cut short or damaged", 3),
    Case("42-81-megapixels", with_image(png_claiming(9000, 9000)), "1.png: 9000x9000 pixels: 81 MP > 64 MP", 3),
    Case(
        "43-1600-megapixels", with_image(png_claiming(40_000, 40_000)), "1.png: 40000x40000 pixels: 1600 MP > 64 MP", 3
    ),
    Case(
        "44-one-pixel",
        with_image(encode_png(np.zeros((1, 1, 3), np.uint8))),
        "1.png: 1x1 pixels is too small .at least 8x8",
        3,
    ),
    Case("44-thin", with_image(encode_png(np.zeros((3, 200, 3), np.uint8))), "1.png: 200x3 pixels is too small", 3),
    Case("47-gif", with_image(b"GIF89a" + bytes(40), "1.gif"), "1 files are no images and left out: 'p1/1.gif'", 0),
    Case("47-gif-by-another-name", with_image(b"GIF89a" + bytes(40)), "1.png: GIF is not accepted", 3),
    Case("47-jpeg-2000", with_image(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40)), "1.png: JPEG 2000 is not", 3),
    Case("47-fits", with_image(b"SIMPLE  =                    T" + bytes(80)), "1.png: FITS is not accepted", 3),
    Case("50-odd-names", odd_names, "training images", 0),
    Case("50-name-of-other-bytes", name_of_other_bytes, r"faces/p1/\\udcff.png: not an image", 3),
    Case("51-link-to-itself", symlink_loop, "faces/p1/loop.png: cannot be read: Too many levels of symbolic links"),
    Case("51-folder-in-itself", folder_loop, "faces/p1/again: is a folder inside an identity"),
    Case("52-list-climbs", of_list(*GOOD_ROWS, "../../x.png,p1"), r"list.csv:14: path '\.\./\.\./x.png' leads upwards"),
    Case("53-one-image-two-people", one_face_under_two_names, "duplicates +1: 0 within an identity, 1 across two", 0),
    Case("54-case", folders_of_one_name, "identities +4", 0),
    Case(
        "56-data-changed",
        other_data_on_resume,
        "checkpoint of step 2: the data changed since it was written",
        shown="warning: the images are 32x32 pixels",
    ),
    Case("58-no-idx", records(idx=None), "train.idx is missing; 12 records were found by walking the file", 0),
    Case("59-rec-cut", records(cut), r"train.rec: record 12, byte \d+: a length of \d+ leads beyond the end"),
    Case("60-magic", records(set_bytes(0, b"\0\0\0\0")), "train.rec: not RecordIO"),
    Case("60-magic-of-the-second", records(second_magic), r"train.rec: record 2, byte \d+: "),
    Case(
        "61-length",
        records(set_bytes(4, b"\xff\xff\xff\x1f")),
        "train.rec: record 1, byte 0: a length of 536870911 leads",
    ),
    Case(
        "62-flag",
        records(set_bytes(8, struct.pack("<I", 10**9))),
        "train.rec: record 1, byte 0: announces 1000000000 labels",
    ),
    Case("64-idx-text", records(idx="one\ttwo\n"), r"train.idx:1: 'one\\ttwo' is not KEY<TAB>OFFSET"),
    Case("64-idx-negative", records(idx="1\t-4\n"), r"train.idx:1: '1\\t-4' is not KEY"),
    Case("64-idx-beyond", records(idx="1\t99999999\n"), "train.idx:1: offset 99999999 leads beyond the .rec"),
    Case("64-idx-twice", records(idx="1\t0\n1\t0\n"), "train.idx:2: offset 0 repeats an earlier line"),
    Case(
        "66-label-fraction",
        records(set_bytes(12, struct.pack("<f", 3.7))),
        "train.rec: record 1: label 3.7 is no class",
    ),
    Case(
        "66-label-nan",
        records(set_bytes(12, struct.pack("<f", float("nan")))),
        "train.rec: record 1: label nan is no class",
    ),
    Case(
        "55-label-negative", records(set_bytes(12, struct.pack("<f", -1))), "train.rec: record 1: label -1 is no class"
    ),
    Case("67-html", html_for_records, "train.rec: not RecordIO .first bytes '<html>'"),
    Case("68-zip", archive_for_records, "train.rec: is zip, not RecordIO .unpack it first"),
    Case("69-tar-climbs", climbing_tar, r"faces.tar: member '\.\./x.jpg' leads upwards"),
    Case("71-four-points", landmarks("p0/0.png,1,1,2,2,3,3,4,4"), "points.csv:2: a path and 8 numbers, 4 points"),
    Case("71-nan", landmarks("p0/0.png,1,1,nan,2,3,3,4,4,5,5"), "points.csv:2: nan is no coordinate of an image"),
    Case(
        "71-outside",
        landmarks("p0/0.png,1000,10,2000,10,1500,15,1000,20,2000,20\np1/0.png,8,8,24,8,16,16,10,24,22,24"),
        r"points.csv:2: 'p0/0.png': point 1, .1000.0, 10.0., is far outside",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_bad_training_data_is_told(case: Case, tmp_path: Path) -> None:
    assert answer(case, tmp_path).exit_code == case.code
