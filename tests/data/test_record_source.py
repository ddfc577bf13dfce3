"""Every layout of ``.rec`` face packs, what it is held against, and what is refused by record."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import facekd.data.record_writer as writer_module
from facekd.data.images import encode_png
from facekd.data.record_heads import HEADER, pack_image
from facekd.data.record_source import RecordSource, find_records
from facekd.data.record_writer import write_records
from facekd.data.recordio import RecordReader, RecordWriter, read_index
from facekd.errors import DataError, DeviceError, InputError, UsageError


def face(number: int) -> bytes:
    return encode_png(np.full((8, 8, 3), number, np.uint8))


def with_labels(labels: Sequence[float], image: bytes) -> bytes:
    return HEADER.pack(len(labels), 0.0, 0, 0) + struct.pack(f"<{len(labels)}f", *labels) + image


def make(folder: Path, records: Sequence[tuple[int, bytes]], index: bool = True) -> Path:
    """A ``train.rec`` of (key, payload) in the order given."""
    folder.mkdir(exist_ok=True)
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    for key, payload in records:
        writer.write(key, payload)
    (folder / "train.rec").write_bytes(stream.getvalue())
    if index:
        (folder / "train.idx").write_text("".join(writer.index))
    return folder / "train.rec"


def layout_1(images: list[tuple[int, bytes]], identities: int) -> list[tuple[int, bytes]]:
    """(key, payload) as the classic packs have them; the ranges of identities are wrong on purpose."""
    after = len(images) + 1
    return [
        *((key, payload) for key, (_, payload) in enumerate(images, 1)),
        (0, pack_image((float(after), float(after + identities)), 0, b"")),
        *((after + k, pack_image((1.0, 1.0), 0, b"")) for k in range(identities)),
    ]


SCALAR = [(label, pack_image(float(label), 0, face(number))) for number, label in enumerate((0, 0, 1, 2, 2))]
ALIGNED = [(label, with_labels((label, 1.0), face(number))) for number, label in enumerate((0, 0, 1, 2, 2))]
MASK = [(label, with_labels((label, *range(236)), face(number))) for number, label in enumerate((0, 0, 1, 2, 2))]
SHUFFLED = [3, 0, 4, 1, 2]

LAYOUTS = {
    "1, classic": layout_1(SCALAR, 3),
    "1, with aligned flag": layout_1(ALIGNED, 3),
    "2 and 3, keys from 0": list(enumerate(payload for _, payload in SCALAR)),
    "4, shuffled": [(key, SCALAR[key][1]) for key in SHUFFLED],
    "5, mask": layout_1(MASK, 3),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_in_the_order_of_the_keys(layout: str, tmp_path: Path) -> None:
    source = RecordSource(make(tmp_path, LAYOUTS[layout]))
    assert len(source) == 5 and source.warnings == []
    assert source.labels.tolist() == [0, 0, 1, 2, 2] and source.labels.dtype == np.int64
    assert source.names == ["0", "1", "2"]
    assert [source.encoded(k) for k in range(5)] == [face(k) for k in range(5)]
    assert source.read(3)[0, 0].tolist() == [3, 3, 3]
    first = 1 if layout[0] in "15" else 0
    assert [source.sample_name(k) for k in range(5)] == [f"train.rec:{first + k}" for k in range(5)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_without_index_the_file_is_walked_and_said_so(layout: str, tmp_path: Path) -> None:
    path = make(tmp_path, LAYOUTS[layout], index=False)
    source = RecordSource(path)
    order = SHUFFLED if layout[0] == "4" else range(5)
    assert [source.encoded(k) for k in range(5)] == [face(k) for k in order]
    count = len(LAYOUTS[layout])
    assert source.warnings == [f"{path}: train.idx is missing; {count} records were found by walking the file"]
    if layout[0] != "4":
        assert source.digest == RecordSource(make(tmp_path / "b", LAYOUTS[layout])).digest


def test_labels_need_not_be_gapless_and_sort_as_numbers(tmp_path: Path) -> None:
    labels = (10, 9, 200, 10)
    source = RecordSource(make(tmp_path, [(k, pack_image(float(v), k, face(k))) for k, v in enumerate(labels)]))
    assert source.names == ["9", "10", "200"] and source.labels.tolist() == [1, 0, 2, 1]


def test_an_image_that_holds_the_magic_word_comes_back_whole(tmp_path: Path) -> None:
    word = bytes.fromhex("0a23d7ce")
    images = [face(k) + bytes(-len(face(k)) % 4) + word + b"tail" for k in range(2)]
    source = RecordSource(make(tmp_path, [(k, pack_image(float(k), 0, image)) for k, image in enumerate(images)]))
    assert [source.encoded(k) for k in range(2)] == images and source.read(1)[0, 0, 0] == 1
    strange = HEADER.pack(0, 1.0, 0xCED7230A, 0)
    source = RecordSource(make(tmp_path, [(0, pack_image(0.0, 0, face(0))), (1, strange + face(1))]))
    assert source.labels.tolist() == [0, 1] and source.encoded(1) == face(1)


@pytest.mark.parametrize(("images", "stated"), [(16_880_352, 16_880_352.0), (16_777_216, 16_777_216.0)])
def test_a_header_that_float32_rounded_down_loses_no_image(images: int, stated: float, tmp_path: Path) -> None:
    assert float(np.float32(images + 1)) == stated  # true is images + 1
    records = [(key, pack_image(float(label), 0, face(label))) for label, key in enumerate((1, images - 1, images))]
    header = (0, with_labels((stated, stated + 3), b""))
    identities = [(images + 1 + k, with_labels((1.0, 1.0), b"")) for k in range(3)]
    source = RecordSource(make(tmp_path, [*records, header, *identities]))
    assert [source.sample_name(k) for k in range(3)] == [f"train.rec:{key}" for key in (1, images - 1, images)]
    assert source.warnings == []


def test_a_header_that_float32_holds_is_taken_at_its_word(tmp_path: Path) -> None:
    records = [*layout_1(SCALAR, 4), (10, pack_image(1.0, 0, face(9)))]
    source = RecordSource(make(tmp_path, records))
    assert len(source) == 5
    beyond, identities = source.warnings
    assert "1 images lie beyond those that its header counts and are left out, the first is record 10" in beyond
    assert "its header says 4 identities, and 3 have images" in identities


def test_records_without_an_image_are_counted(tmp_path: Path) -> None:
    hollow = [(label, pack_image(float(label), 0, b"")) for label, _ in SCALAR[:1]] + SCALAR[1:]
    source = RecordSource(make(tmp_path, layout_1(hollow, 3)))
    assert len(source) == 4
    assert (
        "1 records that its header counts hold no image and are left out, the first is record 1" in source.warnings[0]
    )
    source = RecordSource(make(tmp_path, list(enumerate(payload for _, payload in hollow))))
    assert "1 records hold no image and are left out, the first is record 0" in source.warnings[0]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (pack_image(float("nan"), 0, face(0)), "record 2: label nan is no class (1 such records)"),
        (pack_image(float("inf"), 0, face(0)), "record 2: label inf is no class"),
        (pack_image(3.5, 0, face(0)), "record 2: label 3.5 is no class"),
        (pack_image(-1.0, 0, face(0)), "record 2: label -1 is no class"),
        (pack_image(16_777_216.0, 0, face(0)), "record 2: label 1.67772e+07 is no class"),
        (with_labels((2.5, 1.0), face(0)), "record 2: label 2.5 is no class"),
        (b"short", "record 2, byte "),
        (b"short", "5 bytes are too few for a header (this is no image record)"),
        (HEADER.pack(7, 0.0, 0, 0) + bytes(12), "announces 7 labels, and has room for 3 (restore the file)"),
        (HEADER.pack(2**32 - 1, 0.0, 0, 0) + bytes(12), "announces 4294967295 labels, and has room for 3"),
    ],
)
@pytest.mark.parametrize("index", [True, False])
def test_a_bad_record_is_refused_by_its_number(payload: bytes, message: str, index: bool, tmp_path: Path) -> None:
    records = [(0, SCALAR[0][1]), (1, SCALAR[2][1]), (2, payload), (3, SCALAR[3][1])]
    path = make(tmp_path, records, index=index)
    with pytest.raises(InputError) as caught:
        RecordSource(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_an_index_that_does_not_fit_is_refused_or_said(tmp_path: Path) -> None:
    path = make(tmp_path, list(enumerate(payload for _, payload in SCALAR)))
    keys, offsets = read_index(tmp_path / "train.idx", path.stat().st_size)
    lines = [f"{key}\t{offset}\n" for key, offset in zip(keys, offsets, strict=True)]
    (tmp_path / "train.idx").write_text("".join(lines[:1] + lines[2:]))
    left_out = int(offsets[2] - offsets[1])
    assert RecordSource(path).warnings == [f"{path}: train.idx leaves {left_out} bytes of records out"]
    (tmp_path / "train.idx").write_text("".join(lines[:4]))
    size = path.stat().st_size
    assert RecordSource(path).warnings == [f"{path}: train.idx leaves {size - int(offsets[4])} bytes of records out"]
    (tmp_path / "train.idx").write_text(f"{lines[0]}1\t{offsets[1] + 4}\n")
    with pytest.raises(InputError, match=f"train.rec: record 1, byte {offsets[1] + 4}: bad magic"):
        RecordSource(path)

    path = make(tmp_path, list(enumerate(payload for _, payload in SCALAR)))
    data, second = bytearray(path.read_bytes()), int(offsets[1])
    data[4:8] = struct.pack("<I", second + 60)  # the first record now swallows the second
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"train.idx: record 1, byte {second}, lies within record 0, byte 0"):
        RecordSource(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3,112,112\n", None),
        ("3,112,112,3\n5\n", None),
        ("3,112,112\n5\nshuffled\n2020-01-01\n", None),
        ("4,112,112\n", "property: says 4 classes, and 3 have images"),
        ("3,112,112\n6\n", "property: says 6 images, and there are 5"),
    ],
)
def test_the_property_file_is_held_against_the_images(text: str, message: str | None, tmp_path: Path) -> None:
    path = make(tmp_path, LAYOUTS["1, classic"])
    (tmp_path / "property").write_text(text)
    warnings = RecordSource(path).warnings
    assert warnings == [] if message is None else warnings == [f"{tmp_path}/{message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2,112,112\n", "train.rec: record 4: label 2, and "),
        ("3,112\n", "property:1: '3,112' is not CLASSES,HEIGHT,WIDTH (mend or remove it)"),
        ("<html>", "property:1: '<html>' is not CLASSES,HEIGHT,WIDTH"),
        ("3,-1,112", "property:1: '3,-1,112' is not"),
    ],
)
def test_a_property_file_that_contradicts_or_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = make(tmp_path, LAYOUTS["1, classic"])
    (tmp_path / "property").write_text(text)
    with pytest.raises(InputError) as caught:
        RecordSource(path)
    assert message in str(caught.value)


def test_names_come_from_classes_txt(tmp_path: Path) -> None:
    path = make(tmp_path, LAYOUTS["4, shuffled"])
    before = RecordSource(path).digest
    (tmp_path / "classes.txt").write_text("ann\nbob\ncy\ndee\n")
    source = RecordSource(path)
    assert source.names == ["ann", "bob", "cy"] and source.digest != before
    for text, message in (
        ("ann\nbob\n", "classes.txt: names 2 classes, and .*train.rec holds label 2"),
        ("ann\n\ncy\n", "classes.txt:2: an empty line"),
        ("ann\nbob\nann\n", "classes.txt:3: 'ann' is on line 1 already"),
    ):
        (tmp_path / "classes.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            RecordSource(path)


def test_the_digest_notices_added_removed_moved_and_relabelled_images(tmp_path: Path) -> None:
    payloads = [pack_image(float(label), 0, face(number)) for number, label in enumerate((0, 0, 1))]
    longer = pack_image(1.0, 0, face(2) + b"x" * 4)
    variants = [
        payloads,
        [*payloads, payloads[2]],
        payloads[1:],
        [payloads[0], pack_image(1.0, 0, face(1)), payloads[2]],
        [payloads[2], payloads[0], payloads[1]],
        [payloads[0], payloads[1], longer],
    ]
    digests = [RecordSource(make(tmp_path, list(enumerate(variant)))).digest for variant in variants]
    assert len(set(digests)) == len(variants)
    assert RecordSource(make(tmp_path / "elsewhere", list(enumerate(payloads)))).digest == digests[0]


def test_folders_name_one_file(tmp_path: Path) -> None:
    path = make(tmp_path, LAYOUTS["4, shuffled"])
    assert find_records(tmp_path) == path == find_records(path)
    (tmp_path / "val.rec").write_bytes(path.read_bytes())
    assert find_records(tmp_path) == path
    path.rename(tmp_path / "other.rec")
    with pytest.raises(InputError, match="holds 2 .rec files: other.rec, val.rec .name one of them"):
        find_records(tmp_path)
    for name in ("other.rec", "val.rec"):
        (tmp_path / name).unlink()
    with pytest.raises(InputError, match="holds train.idx without its .rec .fetch the .rec too"):
        RecordSource(tmp_path)
    with pytest.raises(InputError, match="train.idx: is an index, not the records"):
        RecordSource(tmp_path / "train.idx")
    (tmp_path / "train.idx").unlink()
    with pytest.raises(InputError, match="holds no .rec"):
        RecordSource(tmp_path)
    with pytest.raises(InputError, match="none.rec: no such file"):
        RecordSource(tmp_path / "none.rec")


def test_packs_that_nothing_can_be_learned_from_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="only one identity, '0'"):
        RecordSource(make(tmp_path, [(0, SCALAR[0][1]), (1, SCALAR[1][1])]))
    with pytest.raises(InputError, match="holds no images"):
        RecordSource(make(tmp_path, [(0, with_labels((1.0, 1.0), b""))]))


def test_reading_an_image_that_is_none_names_file_and_record(tmp_path: Path) -> None:
    records = [(0, SCALAR[0][1]), (1, pack_image(1.0, 0, b"<html>")), (2, pack_image(1.0, 0, face(3)[:-20]))]
    source = pickle.loads(pickle.dumps(RecordSource(make(tmp_path, records))))
    with pytest.raises(DataError, match="train.rec: record 1: not an image"):
        source.read(1)
    with pytest.raises(DataError, match="train.rec: record 2: cut short or damaged"):
        source.read(2)


SAMPLES = [(label, face(number)) for number, label in enumerate((0, 0, 1, 2, 2))]
SET = ["classes.txt", "property", "train.idx", "train.rec", "train.sha256"]


@pytest.mark.parametrize("header", [False, True])
def test_what_is_written_reads_back_without_a_warning(header: bool, tmp_path: Path) -> None:
    told = write_records(tmp_path / "train.rec", iter(SAMPLES), ["ann", "bob", "cé"], insightface_header=header)
    assert (told.images, told.warnings) == (5, [])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == SET
    assert (tmp_path / "property").read_text() == "3,8,8\n5\n"
    assert (tmp_path / "train.sha256").read_text() == f"{told.digest}  train.rec\n"
    assert hashlib.sha256((tmp_path / "train.rec").read_bytes()).hexdigest() == told.digest
    source = RecordSource(tmp_path)
    assert source.warnings == [] and source.names == ["ann", "bob", "cé"]
    assert [(int(source.labels[k]), source.encoded(k)) for k in range(5)] == SAMPLES
    reader = RecordReader(tmp_path / "train.rec")
    keys, offsets = read_index(tmp_path / "train.idx", reader.size)
    if not header:
        assert keys.tolist() == [0, 1, 2, 3, 4]
        assert reader.read(0) == HEADER.pack(0, 0.0, 0, 0) + face(0)
        return
    assert keys.tolist() == [1, 2, 3, 4, 5, 0, 6, 7, 8]
    stored = [reader.read(int(at)) for at in offsets[5:]]
    assert [struct.unpack("<2f", payload[24:]) for payload in stored] == [(6, 9), (1, 3), (3, 4), (4, 6)]
    assert all(HEADER.unpack(payload[:24])[:2] == (2, 0.0) for payload in stored)


def test_the_same_samples_make_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_records(tmp_path / folder / "train.rec", SAMPLES, ["a", "b", "c"])
    for name in SET:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    ("samples", "names", "header", "message"),
    [
        ([], ["a"], False, "train.rec: no images to write"),
        ([(1, face(0))], ["a"], False, "image 0: label 1 has no name (there are 1 names)"),
        ([(-1, face(0))], ["a"], False, "image 0: label -1 has no name"),
        ([(0, face(0)), (0, b"<html>")], ["a"], False, "image 1: not an image"),
        ([(1, face(0)), (0, face(1))], ["a", "b"], True, "image 1: label 0 after 1 (give images identity by identity)"),
        ([(0, face(0))], ["a\nb"], False, "cannot hold the identities 'a\\nb' (rename them)"),
        ([(0, face(0))], ["a", "a"], False, "the identities 'a' are there twice"),
    ],
)
def test_what_cannot_be_written_leaves_nothing_behind(
    samples: list[tuple[int, bytes]], names: list[str], header: bool, message: str, tmp_path: Path
) -> None:
    with pytest.raises((InputError, DataError)) as caught:
        write_records(tmp_path / "train.rec", samples, names, insightface_header=header)
    assert message in str(caught.value) and not list(tmp_path.iterdir())


def test_a_set_is_never_written_over_and_a_full_disk_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "classes.txt").write_text("kept\n")
    with pytest.raises(UsageError, match="classes.txt: exists"):
        write_records(tmp_path / "train.rec", SAMPLES, ["a", "b", "c"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["classes.txt"]
    (tmp_path / "classes.txt").unlink()

    def full(*_: object) -> str:
        raise DeviceError("train.sha256", "cannot be written: No space left on device")

    real = writer_module.write_text
    monkeypatch.setattr(
        writer_module, "write_text", lambda path, text: (full if path.suffix == ".sha256" else real)(path, text)
    )
    with pytest.raises(DeviceError, match="No space left"):
        write_records(tmp_path / "train.rec", SAMPLES, ["a", "b", "c"])
    assert not list(tmp_path.iterdir())


def test_images_of_several_sizes_are_said(tmp_path: Path) -> None:
    odd = encode_png(np.zeros((9, 10, 3), np.uint8))
    told = write_records(tmp_path / "train.rec", [*SAMPLES, (0, odd)], ["a", "b", "c"])
    assert told.warnings == [f"{tmp_path}/train.rec: 1 images are not 8x8, the size in the property file"]


def test_a_header_that_float32_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "EXACT", 9)
    write_records(tmp_path / "train.rec", SAMPLES, ["a", "b", "c"], insightface_header=True)
    (tmp_path / "b").mkdir()
    monkeypatch.setattr(writer_module, "EXACT", 8)
    with pytest.raises(InputError, match="float32 numbers 8 records at most .write the records without it"):
        write_records(tmp_path / "b" / "train.rec", SAMPLES, ["a", "b", "c"], insightface_header=True)
    write_records(tmp_path / "b" / "train.rec", SAMPLES, ["a", "b", "c"])
