"""Packing and unpacking: bytes are copied, and work that was stopped ends as if it had not been."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lock_holder import held
from tar_shards import write_tar_shards

from facekd.data.bin_format import read_bin
from facekd.data.image_folder import ImageFolder
from facekd.data.image_headers import header_size, sniff
from facekd.data.image_list import ImageList
from facekd.data.images import decode, encode_jpeg, encode_png, resize
from facekd.data.open_source import open_identities
from facekd.data.record_writer import write_records
from facekd.data.verification import open_verification_set, write_bin
from facekd.engine import resumable
from facekd.engine.resumable import Watched
from facekd.engine.sets import packing
from facekd.engine.sets.conversion import convert_identities, convert_pairs
from facekd.engine.sets.image_sets import identity_image_set, open_image_set
from facekd.engine.sets.packing import Recoding, pack_bin, pack_records, pack_shards, refuse_output
from facekd.errors import DataError, DeviceError, InputError, UsageError

COPY = Recoding()
QUIET = Watched()
LAYOUT = {"Ann": 3, "Bob": 4, "Cy": 2}


class Stopped(Exception):
    """Stands for a signal."""


def stop_at(item: int) -> Watched:
    """Lets ``item`` items be done."""
    calls = iter(range(item))

    def poll() -> None:
        if next(calls, None) is None:
            raise Stopped

    return Watched(poll=poll)


def picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3)).astype(np.uint8)
    return encode_png(pixels) if seed % 3 == 0 else encode_jpeg(pixels)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    root, seed = tmp_path / "faces", 0
    for identity, count in LAYOUT.items():
        (root / identity).mkdir(parents=True)
        for number in range(count):
            data = picture(seed)
            (root / identity / f"{number}.{'png' if sniff(data) == 'png' else 'jpg'}").write_bytes(data)
            seed += 1
    return root


@pytest.fixture
def pairs(faces: Path) -> Path:
    def path(index: int) -> str:
        return ImageFolder(faces).sample_name(index)

    genuine = [(0, 1), (1, 2), (3, 4), (5, 6), (7, 8), (3, 6)] * 2
    impostor = [(0, 3), (1, 4), (2, 7), (5, 8), (0, 8), (6, 2)] * 2
    rows = [f"{path(a)},{path(b)},1,{fold % 4}\n" for fold, (a, b) in enumerate(genuine)]
    rows += [f"{path(a)},{path(b)},0,{fold % 4}\n" for fold, (a, b) in enumerate(impostor)]
    listed = faces.parent / "pairs.csv"
    listed.write_text("path1,path2,label,fold\n" + "".join(rows))
    return listed


def tree(root: Path) -> dict[str, bytes]:
    """Every file at or below a path, by its name."""
    if root.is_file():
        return {root.name: root.read_bytes()}
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def by_identity(root: Path) -> dict[str, list[bytes]]:
    source = open_identities(root)
    found: dict[str, list[bytes]] = {name: [] for name in source.names}
    for index in range(len(source)):
        found[source.names[source.labels[index]]].append(source.encoded(index))
    return found


@pytest.mark.parametrize("header", [False, True])
def test_folder_to_rec_to_folder_keeps_every_byte(faces: Path, tmp_path: Path, header: bool) -> None:
    (tmp_path / "packed").mkdir()
    record = tmp_path / "packed" / "train.rec"
    assert pack_records(open_image_set(faces), record, COPY, header, QUIET) == 9
    assert sorted(tree(record.parent)) == ["classes.txt", "property", "train.idx", "train.rec", "train.sha256"]
    assert convert_identities(open_image_set(record), tmp_path / "back", QUIET) == 0
    assert by_identity(tmp_path / "back") == by_identity(faces) == by_identity(record)
    assert ImageFolder(tmp_path / "back").names == list(LAYOUT)
    assert [path for path in tmp_path.rglob("*.partial")] == []


@pytest.mark.parametrize("size", [None, 2, 3, 9, 100])
def test_folder_to_tar_to_folder_keeps_every_byte(faces: Path, tmp_path: Path, size: int | None) -> None:
    out = tmp_path / ("one.tar" if size is None else "shards")
    assert pack_shards(open_image_set(faces), out, COPY, size, QUIET) == 9
    if size:
        assert len(list(out.glob("*.tar"))) == -(-9 // size)
    convert_identities(open_image_set(out), tmp_path / "back", QUIET)
    assert by_identity(tmp_path / "back") == by_identity(faces)


def test_pairs_to_bin_to_pairs_keeps_every_byte_and_the_folds(faces: Path, pairs: Path, tmp_path: Path) -> None:
    found = open_verification_set(pairs, images=faces)
    assert pack_bin(pairs, found, tmp_path / "a.bin", COPY, QUIET) == 24
    images, genuine = read_bin(tmp_path / "a.bin")
    assert images == [found.images.encoded(index) for index in found.pairs.ravel()]
    assert genuine == found.genuine.tolist()
    packed = open_verification_set(tmp_path / "a.bin")
    convert_pairs(tmp_path / "a.bin", packed, tmp_path / "back", QUIET)
    back = open_verification_set(tmp_path / "back" / "pairs.csv")
    for first, second in ((found, packed), (packed, back)):
        assert np.array_equal(first.genuine, second.genuine)
        for side, other in zip(first.pairs.ravel(), second.pairs.ravel(), strict=True):
            assert first.images.encoded(side) == second.images.encoded(other)
    assert np.array_equal(packed.folds, back.folds)
    pack_bin(tmp_path / "back" / "pairs.csv", back, tmp_path / "again.bin", COPY, QUIET)
    assert (tmp_path / "again.bin").read_bytes() == (tmp_path / "a.bin").read_bytes()


def test_an_image_of_many_pairs_is_stored_once(faces: Path, pairs: Path, tmp_path: Path) -> None:
    found = open_verification_set(pairs, images=faces)
    pack_bin(pairs, found, tmp_path / "a.bin", COPY, QUIET)
    used = set(found.pairs.ravel().tolist())
    assert (tmp_path / "a.bin").stat().st_size < sum(len(found.images.encoded(k)) for k in used) + 12 * 48 + 100


def test_a_list_of_pairs_converts_under_its_own_names(faces: Path, pairs: Path, tmp_path: Path) -> None:
    found = open_verification_set(pairs, images=faces)
    convert_pairs(pairs, found, tmp_path / "out", QUIET)
    again = open_verification_set(tmp_path / "out" / "pairs.csv")
    names = [[found.images.sample_name(k) for k in pair] for pair in found.pairs]
    assert [[again.images.sample_name(k) for k in pair] for pair in again.pairs] == names
    assert np.array_equal(again.folds, found.folds) and np.array_equal(again.subjects, found.subjects)


def test_a_bin_of_one_kind_converts(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", [picture(1), picture(2)], [True])
    convert_pairs(
        tmp_path / "a.bin", open_verification_set(tmp_path / "a.bin", both_kinds=False), tmp_path / "out", QUIET
    )
    assert sorted(tree(tmp_path / "out")) == ["images/000000.jpg", "images/000001.jpg", "pairs.csv"]
    assert (tmp_path / "out" / "pairs.csv").read_text() == (
        "path1,path2,label\nimages/000000.jpg,images/000001.jpg,1\n"
    )


def test_a_pair_labelled_both_ways_cannot_be_listed(tmp_path: Path) -> None:
    first, second = picture(1), picture(2)
    write_bin(tmp_path / "a.bin", [first, second, second, first], [True, False])
    with pytest.raises(InputError) as caught:
        convert_pairs(tmp_path / "a.bin", open_verification_set(tmp_path / "a.bin"), tmp_path / "out", QUIET)
    what = "these images are an earlier pair of the other kind (a list of pairs cannot hold that)"
    assert str(caught.value) == f"{tmp_path}/a.bin: pair 1: {what}"


@pytest.mark.parametrize("header", [False, True])
def test_records_are_those_of_the_plain_writer(faces: Path, tmp_path: Path, header: bool) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    source = ImageFolder(faces)
    samples = [(int(source.labels[k]), source.encoded(k)) for k in range(len(source))]
    write_records(tmp_path / "a" / "x.rec", samples, source.names, insightface_header=header)
    pack_records(open_image_set(faces), tmp_path / "b" / "x.rec", COPY, header, QUIET)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_more_identities_than_a_label_can_tell_apart_are_refused(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "EXACT", 3)
    pack_records(open_image_set(faces), tmp_path / "x.rec", COPY, False, QUIET)
    monkeypatch.setattr(packing, "EXACT", 2)
    with pytest.raises(InputError, match="3 identities: float32 labels tell 2 apart at most .pack fewer of them, or"):
        pack_records(open_image_set(faces), tmp_path / "y.rec", COPY, False, QUIET)
    assert not list(tmp_path.glob("y.*"))


@pytest.mark.parametrize("size", [2, 3, 9, 10])
def test_shards_are_those_of_the_plain_writer(faces: Path, tmp_path: Path, size: int) -> None:
    source = ImageFolder(faces)
    samples = [(int(source.labels[k]), source.encoded(k)) for k in range(len(source))]
    write_tar_shards(tmp_path / "a", samples, source.names, size)
    pack_shards(open_image_set(faces), tmp_path / "b", COPY, size, QUIET)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_a_header_wants_images_identity_by_identity_and_puts_them_so(faces: Path, tmp_path: Path) -> None:
    source = ImageFolder(faces)
    order = [8, 0, 4, 1, 7, 2, 3, 6, 5]
    rows = [f"{source.sample_name(k)},{source.names[source.labels[k]]}\n" for k in order]
    (tmp_path / "list.csv").write_text("path,identity\n" + "".join(rows))
    (tmp_path / "p").mkdir()
    pack_records(open_image_set(tmp_path / "list.csv", faces), tmp_path / "p" / "x.rec", COPY, True, QUIET)
    packed = open_identities(tmp_path / "p" / "x.rec")
    assert packed.labels.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert [packed.encoded(k) for k in (7, 8)] == [source.encoded(8), source.encoded(7)]


Work = Callable[[Path, Watched], object]


def jobs(faces: Path, pairs: Path, tmp_path: Path) -> dict[str, tuple[str, Work]]:
    """Name of what is made, and how, for every kind of work."""
    images = open_image_set(faces)
    found = open_verification_set(pairs, images=faces)
    write_bin(tmp_path / "source.bin", [picture(k) for k in range(20)], [True, False] * 5)
    stored = open_verification_set(tmp_path / "source.bin")
    return {
        "rec": ("x.rec", lambda out, watched: pack_records(images, out, COPY, False, watched)),
        "classic rec": ("x.rec", lambda out, watched: pack_records(images, out, COPY, True, watched)),
        "tar": ("x.tar", lambda out, watched: pack_shards(images, out, COPY, None, watched)),
        "shards": ("x", lambda out, watched: pack_shards(images, out, COPY, 4, watched)),
        "bin": ("x.bin", lambda out, watched: pack_bin(pairs, found, out, COPY, watched)),
        "resized": ("x.rec", lambda out, watched: pack_records(images, out, Recoding(9, 80), False, watched)),
        "folder": ("x", lambda out, watched: convert_identities(images, out, watched)),
        "pairs": ("x", lambda out, watched: convert_pairs(tmp_path / "source.bin", stored, out, watched)),
    }


KINDS = ["rec", "classic rec", "tar", "shards", "bin", "resized", "folder", "pairs"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("at", [0, 1, 2, 4, 5, 8, 9])
def test_stopped_work_goes_on_to_the_same_bytes(
    faces: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, at: int
) -> None:
    monkeypatch.setattr(resumable, "EVERY", 3)
    name, work = jobs(faces, pairs, tmp_path)[kind]
    (tmp_path / "whole").mkdir()
    work(tmp_path / "whole" / name, QUIET)
    (tmp_path / "stopped").mkdir()
    out = tmp_path / "stopped" / name
    stops = at < (20 if kind == "pairs" else 48 if kind == "bin" else 9)
    if stops:
        with pytest.raises(Stopped):
            work(out, stop_at(at))
        assert [path.name for path in out.parent.iterdir()] == [f"{name}.partial"]
        state = json.loads((out.parent / f"{name}.partial" / "state.json").read_text())
        assert state["done"] == at
    done: list[int] = []
    work(out, Watched(progress=lambda phase, item, count: done.append(item)))
    assert done[0] == (at + 1 if stops else 1)
    assert tree(tmp_path / "stopped") == tree(tmp_path / "whole")


@pytest.mark.parametrize("kind", KINDS)
def test_killed_work_goes_on_from_its_last_record(
    faces: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A killed process leaves the files longer than the state says, and the state of some items ago."""
    name, work = jobs(faces, pairs, tmp_path)[kind]
    (tmp_path / "whole").mkdir()
    work(tmp_path / "whole" / name, QUIET)
    (tmp_path / "killed").mkdir()
    out = tmp_path / "killed" / name
    partial = out.with_name(f"{name}.partial")
    with pytest.raises(Stopped):
        work(out, stop_at(3))
    old = (partial / "state.json").read_bytes()
    with pytest.raises(Stopped):
        work(out, stop_at(4))
    (partial / "state.json").write_bytes(old)
    (partial / ".lock").write_text("999999999")
    for path in partial.rglob("*"):
        if path.suffix in (".rec", ".tar", ".bin", ".csv"):
            path.write_bytes(path.read_bytes() + b"half a record")
    work(out, QUIET)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kill_while_things_get_their_names_does_no_harm(
    faces: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    name, work = jobs(faces, pairs, tmp_path)[kind]
    (tmp_path / "whole").mkdir()
    work(tmp_path / "whole" / name, QUIET)
    (tmp_path / "killed").mkdir()

    def stopped(source: Path, target: Path) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("facekd.engine.sets.packing.move", stopped)
        patch.setattr("facekd.engine.sets.conversion.move", stopped)
        with pytest.raises(Stopped):
            work(tmp_path / "killed" / name, QUIET)
    assert not (tmp_path / "killed" / name).exists()
    work(tmp_path / "killed" / name, QUIET)
    assert tree(tmp_path / "killed") == tree(tmp_path / "whole")


def test_another_option_is_refused_naming_both(faces: Path, tmp_path: Path) -> None:
    images, out = open_image_set(faces), tmp_path / "x.rec"
    with pytest.raises(Stopped):
        pack_records(images, out, Recoding(16, 90), False, stop_at(2))
    with pytest.raises(UsageError) as caught:
        pack_records(images, out, Recoding(16, 80), True, QUIET)
    there = "holds unfinished work with quality 90, insightface header False"
    here = "this is quality 80, insightface header True"
    fix = "repeat that command to finish it, or remove the folder"
    assert str(caught.value) == f"{out}.partial: {there}; {here} ({fix})"


def test_another_source_is_refused_naming_both(faces: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "x.tar", shutil.copytree(faces, tmp_path / "other")
    with pytest.raises(Stopped):
        pack_shards(open_image_set(faces), out, COPY, None, stop_at(2))
    with pytest.raises(UsageError, match=rf"source {faces}; this is source {other} "):
        pack_shards(open_image_set(other), out, COPY, None, QUIET)
    (faces / "Ann" / "9.jpg").write_bytes(picture(1))
    with pytest.raises(UsageError, match="unfinished work with digest [0-9a-f]{12}; this is digest [0-9a-f]{12} "):
        pack_shards(open_image_set(faces), out, COPY, None, QUIET)


def test_work_that_lost_bytes_is_refused(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.rec"
    with pytest.raises(Stopped):
        pack_records(open_image_set(faces), out, COPY, False, stop_at(5))
    (tmp_path / "x.rec.partial" / "x.rec").write_bytes(b"")
    with pytest.raises(InputError, match=r"x\.rec: 0 bytes instead of the [0-9]+ that were written \(remove "):
        pack_records(open_image_set(faces), out, COPY, False, QUIET)


@pytest.mark.parametrize("kind", ["rec", "tar", "folder"])
def test_a_broken_image_stops_the_work_with_its_name(faces: Path, pairs: Path, tmp_path: Path, kind: str) -> None:
    (faces / "Bob" / "1.jpg").write_bytes(picture(1)[:-30])
    name, work = jobs(faces, pairs, tmp_path)[kind]
    with pytest.raises(DataError) as caught:
        work(tmp_path / name, QUIET)
    assert str(caught.value).startswith(f"{faces}: Bob/1.jpg: cut short or damaged")
    assert not (tmp_path / name).exists()
    assert json.loads((tmp_path / f"{name}.partial" / "state.json").read_text())["done"] == 4


def test_a_full_disk_leaves_work_that_goes_on(faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "x.rec"

    def full(payload: bytes) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packing, "encode_record", full)
        with pytest.raises(DeviceError) as caught:
            pack_records(open_image_set(faces), out, COPY, False, QUIET)
    fix = "mend that, then repeat the command: it goes on"
    assert str(caught.value) == f"{out}: cannot be written: No space left on device ({fix})"
    assert pack_records(open_image_set(faces), out, COPY, False, QUIET) == 9


def test_resizing_encodes_anew_at_the_quality_asked_for(faces: Path, tmp_path: Path) -> None:
    pack_records(open_image_set(faces), tmp_path / "x.rec", Recoding(16, 70), False, QUIET)
    packed, source = open_identities(tmp_path / "x.rec"), ImageFolder(faces)
    for index in range(9):
        wanted = encode_jpeg(resize(decode(source.encoded(index), ""), (16, 16)), 70)
        assert packed.encoded(index) == wanted and header_size(wanted) == (16, 16)
    assert (tmp_path / "property").read_text() == "3,16,16\n9\n"


def test_hostile_identities_stay_inside_and_keep_their_labels(faces: Path, tmp_path: Path) -> None:
    identities = ["../../evil", "a/b", "con", "Ann", "ann", ".hidden", 'x,"y"', "José", "pairs.csv"]
    source = ImageFolder(faces)
    listed = tmp_path / "list.csv"
    with open(listed, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(
            [("path", "identity"), *((source.sample_name(k), name) for k, name in enumerate(identities))]
        )
    images = open_image_set(listed, faces)
    out = tmp_path / "deep" / "out"
    out.parent.mkdir()
    assert convert_identities(images, out, QUIET) >= 6
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "faces", "list.csv"]
    folder, back = ImageFolder(out), ImageList(out / "identities.csv")
    assert back.names == images.identities
    assert back.labels.tolist() == images.labels.tolist()
    assert [back.encoded(k) for k in range(9)] == [images.encoded(k) for k in range(9)]
    labels = {folder.encoded(k): int(folder.labels[k]) for k in range(9)}
    assert [labels[images.encoded(k)] for k in range(9)] == images.labels.tolist()


def test_numbered_classes_keep_their_labels(faces: Path, tmp_path: Path) -> None:
    source = ImageFolder(faces)
    write_records(tmp_path / "x.rec", [(label, source.encoded(0)) for label in (10, 2, 9, 2)], list("abcdefghijk"))
    (tmp_path / "classes.txt").unlink()
    images = open_image_set(tmp_path / "x.rec")
    assert images.identities == ["2", "9", "10"]
    assert convert_identities(images, tmp_path / "out", QUIET) == 2
    assert ImageFolder(tmp_path / "out").names == ["02", "09", "10"]
    back = ImageList(tmp_path / "out" / "identities.csv")
    assert back.labels.tolist() == images.labels.tolist() == [2, 0, 1, 0]


def test_files_of_one_name_and_wrong_suffixes_are_told_apart(tmp_path: Path) -> None:
    for folder, seed in (("a", 1), ("b", 2), ("c", 3)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(picture(seed))
    (tmp_path / "list.csv").write_text("path,identity\na/1.png,ann\nb/1.png,ann\nc/1.png,bob\n")
    convert_identities(open_image_set(tmp_path / "list.csv"), tmp_path / "out", QUIET)
    assert sorted(tree(tmp_path / "out")) == ["ann/1-2.jpg", "ann/1.jpg", "bob/1.png", "identities.csv"]


def test_a_set_that_names_nobody_cannot_be_packed_by_identity(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", [picture(1), picture(2)], [True])
    with pytest.raises(InputError, match=r"a\.bin: does not say who its images show \(give images with identities\)"):
        pack_records(open_image_set(tmp_path / "a.bin"), tmp_path / "x.rec", COPY, False, QUIET)


def test_only_one_process_works_on_a_folder(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.rec"
    (tmp_path / "x.rec.partial").mkdir()
    with (
        held(tmp_path / "x.rec.partial") as other,
        pytest.raises(UsageError, match=f"{other.pid} is writing x.rec here"),
    ):
        pack_records(open_image_set(faces), out, COPY, False, QUIET)


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("faces", "overlaps with the source"),
        ("faces/Ann", "overlaps with the source"),
        ("faces/new", "overlaps with the source"),
        (".", "overlaps with the source"),
        ("gone/out", "its folder does not exist (make it first)"),
        ("file", "is a file (choose another name)"),
        ("foreign", "was not made by this command (remove it yourself, or choose another name)"),
    ],
)
def test_force_replaces_nothing_it_should_not(faces: Path, tmp_path: Path, out: str, told: str) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "kept").write_text("kept")
    before = tree(tmp_path)
    with pytest.raises(UsageError) as caught:
        refuse_output(tmp_path / out, faces, None, folder=True, force=True)
    assert told in str(caught.value)
    assert tree(tmp_path) == before


def test_force_replaces_a_folder_that_was_made_this_way(faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_identities(open_image_set(faces), out, QUIET)
    (out / "Ann" / "old.jpg").write_bytes(picture(1))
    with pytest.raises(UsageError, match="exists"):
        refuse_output(out, faces, None, folder=True)
    refuse_output(out, faces, None, folder=True, force=True)
    convert_identities(open_image_set(faces), out, QUIET)
    assert "Ann/old.jpg" not in tree(out) and len(tree(out)) == 10


def test_only_one_image_is_read_at_a_time(faces: Path, tmp_path: Path) -> None:
    source, read = ImageFolder(faces), []
    images = identity_image_set(faces, source)

    def encoded(index: int) -> bytes:
        read.append(index)
        return source.encoded(index)

    done: list[int] = []
    watched = Watched(progress=lambda phase, item, count: done.append(len(read)))
    convert_identities(type(images)(**{**vars(images), "encoded": encoded}), tmp_path / "out", watched)
    assert done == list(range(1, 10))
