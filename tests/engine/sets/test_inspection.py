"""What a set of images holds, on sets whose every figure is known, and checks of them against their checksums."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tar_shards import write_tar_shards

from facekd.data.identities import IdentitySource
from facekd.data.image_folder import ImageFolder
from facekd.data.images import encode_jpeg, encode_png
from facekd.data.open_source import open_identities
from facekd.data.record_writer import write_records
from facekd.data.verification import write_bin
from facekd.engine.sets import inspection
from facekd.engine.sets.checking import check
from facekd.engine.sets.image_sets import ImageSet, identity_image_set, open_image_set
from facekd.engine.sets.inspection import inspect
from facekd.engine.sets.suggestion import batch_size, input_size, sampling, suggest
from facekd.errors import DataError, InputError
from facekd.recipe import load_recipe

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def picture(value: int, size: tuple[int, int] = (16, 12)) -> bytes:
    return encode_png(np.full((*size, 3), value, np.uint8))


def folder(root: Path, layout: dict[str, list[bytes]]) -> Path:
    for identity, images in layout.items():
        (root / identity).mkdir(parents=True)
        for number, data in enumerate(images):
            (root / identity / f"{number}.png").write_bytes(data)
    return root


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    layout = {
        "Ann": [picture(1), picture(2), picture(1), picture(3)],
        "Bob": [picture(4), picture(1), b"<html>"],
        "ann": [picture(5, (8, 9))],
    }
    return folder(tmp_path / "faces", layout)


def test_every_figure_of_a_small_folder(faces: Path) -> None:
    found = inspect(open_image_set(faces))
    assert found.report() == {
        "format": "folder",
        "images": 8,
        "identities": 3,
        "broken": 1,
        "duplicates": 2,
        "size": None,
        "images_per_identity": {"min": 1, "median": 3.0, "max": 4},
    }
    assert found.broken == [("Bob/2.png", "Bob/2.png: not an image (starts with '<html>')")]
    assert found.sizes == {(16, 12): 6, (8, 9): 1}
    assert (found.doubles.within, found.doubles.across) == (1, 1)
    assert found.doubles.pairs == [("Ann/0.png", "Bob/1.png")]
    assert found.singles() == ["ann"]
    assert found.histogram() == [(1, 1, 1), (2, 3, 1), (4, 7, 1)]
    assert any("'Ann' and 'ann' differ in case only" in warning for warning in found.warnings)


def test_one_size_is_told(tmp_path: Path) -> None:
    root = folder(tmp_path / "faces", {"a": [picture(1)], "b": [picture(2)]})
    assert inspect(open_image_set(root)).report()["size"] == [16, 12]


def test_a_list_reads_below_its_root(faces: Path) -> None:
    listed = faces.parent / "list.csv"
    listed.write_text("path,identity\nAnn/0.png,x\nBob/0.png,y\n")
    report = inspect(open_image_set(listed, faces)).report()
    assert (report["format"], report["images"], report["identities"], report["broken"]) == ("list", 2, 2, 0)


def test_a_bin_counts_every_stored_image_and_knows_no_identity(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", [picture(k) for k in (1, 2, 1, 3)], [True, True])
    assert inspect(open_image_set(tmp_path / "a.bin")).report() == {
        "format": "bin",
        "images": 4,
        "identities": 0,
        "broken": 0,
        "duplicates": 1,
        "size": [16, 12],
        "images_per_identity": {"min": None, "median": None, "max": None},
    }


def test_a_bin_with_what_is_no_image_is_still_looked_at(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", [picture(1), picture(2)], [True])
    data = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(data.replace(picture(2), b"<html>".ljust(len(picture(2)))))
    found = inspect(open_image_set(tmp_path / "a.bin"))
    assert found.broken == [("image 1", "image 1: not an image (starts with '<html>')")]


def test_pairs_lists_count_the_images_they_name_once(tmp_path: Path) -> None:
    root = folder(tmp_path, {"Ann": [], "Bob": []})
    for name in ("Ann", "Bob"):
        for number in (1, 2):
            (root / name / f"{name}_000{number}.png").write_bytes(picture(number + 2 * (name == "Bob")))
    (root / "pairs.txt").write_text("Ann\t1\t2\nAnn\t1\tBob\t1\n")
    (root / "pairs.csv").write_text("Ann/Ann_0001.png,Bob/Bob_0002.png,0\n")
    text, table = (inspect(open_image_set(root / name)).report() for name in ("pairs.txt", "pairs.csv"))
    assert (text["format"], text["images"], text["identities"]) == ("lfw-pairs", 3, 2)
    assert (table["format"], table["images"], table["identities"]) == ("pairs", 2, 2)


def test_no_more_than_some_pairs_are_kept_and_all_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspection, "MOST_KEPT", 2)
    root = folder(tmp_path / "faces", {"a": [picture(1)] + [b"x"] * 4, "b": [picture(1)] * 5})
    found = inspect(open_image_set(root))
    assert len(found.broken) == 4
    assert (found.doubles.count, found.doubles.across, len(found.doubles.pairs)) == (8, 5, 2)


def test_images_are_read_one_at_a_time_and_none_twice(faces: Path) -> None:
    read: list[int] = []
    source = ImageFolder(faces)
    seen = identity_image_set(faces, source)

    def encoded(index: int) -> bytes:
        read.append(index)
        return source.encoded(index)

    watched = ImageSet(**{**vars(seen), "encoded": encoded})
    told: list[tuple[str, int, int]] = []
    inspect(watched, progress=lambda *call: told.append(call))
    assert read == list(range(8))
    assert told[-1] == ("inspect", 8, 8)


def test_an_image_that_is_gone_is_broken(faces: Path) -> None:
    opened = open_image_set(faces)
    (faces / "Ann" / "3.png").unlink()
    found = inspect(opened)
    assert [name for name, _ in found.broken] == ["Ann/3.png", "Bob/2.png"]
    assert "no such file" in found.broken[0][1]
    assert found.doubles.count == 2


@pytest.mark.parametrize(
    ("name", "told"),
    [("gone", "no such file or folder"), ("a.txt", "no such file or folder"), ("empty", "holds no identities")],
)
def test_what_cannot_be_opened_is_refused(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=told):
        open_image_set(tmp_path / name)


def test_an_image_root_is_for_lists(faces: Path) -> None:
    with pytest.raises(InputError, match="an image root has no meaning for this set"):
        open_image_set(faces, faces)


def sections(text: str) -> dict[str, str]:
    """Top-level sections of a small YAML text, by name."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line and not line.startswith((" ", "#")):
            name = line.partition(":")[0]
            found[name] = ""
        if found:
            found[name] += line + "\n"
    return found


def test_the_suggested_data_section_is_one_the_strict_loader_takes(faces: Path, tmp_path: Path) -> None:
    odd = shutil.copytree(faces, tmp_path / "odd: 'n\\ame' #\"1\" é")
    listed = tmp_path / "no.csv"
    listed.write_text("path,identity\nAnn/0.png,x\nBob/0.png,y\n")
    source = ImageFolder(folder(tmp_path / "two", {"a": [picture(1)], "b": [picture(2)]}))
    samples = [(int(source.labels[k]), source.encoded(k)) for k in range(2)]
    write_records(tmp_path / "x.rec", samples, source.names)
    write_tar_shards(tmp_path / "shards", samples, source.names)
    tried = ((faces, None), (odd, None), (listed, odd), (tmp_path / "x.rec", None), (tmp_path / "shards", None))
    for path, images in tried:
        text = suggest(inspect(open_image_set(path, images)), path, images)
        parts = sections(text)
        assert list(parts) == ["data", "student", "train"]
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text(
            f"name: tried\n{parts['data']}student:\n  backbone: resnet_tiny\n{parts['student'].partition(chr(10))[2]}"
            f"train:\n  epochs: 1\n{parts['train'].partition(chr(10))[2]}"
            "losses:\n  - name: margin_softmax\noptimizer: {learning_rate: 0.1}\n"
        )
        loaded = load_recipe(recipe)
        assert loaded.data.source == open_image_set(path, images).format
        assert loaded.data.path == str(path)
        assert loaded.data.images == (str(images) if images else None)
        assert loaded.data.versions == 8
        assert loaded.train.batch_size <= 8
        assert loaded.student.input_size == 32


def test_a_verification_set_is_suggested_for_evaluation(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", [picture(1), picture(2)], [True])
    text = suggest(inspect(open_image_set(tmp_path / "a.bin")), tmp_path / "a.bin")
    base = (RECIPES / "baseline" / "mobilefacenet.yaml").read_text().replace("REQUIRED", "faces")
    (tmp_path / "recipe.yaml").write_text(base + text)
    assert load_recipe(tmp_path / "recipe.yaml").evaluate.sets[0].path == str(tmp_path / "a.bin")


def counted(images: list[int], size: tuple[int, int] = (112, 112)) -> inspection.Inspection:
    sizes = inspection.Counter({size: sum(images)})
    names = [str(number) for number in range(len(images))]
    doubles = inspection.Doubles()
    return inspection.Inspection("folder", sum(images), names, np.array(images), [], sizes, doubles, [])


def test_the_rules_of_the_suggestion() -> None:
    assert [input_size(counted([1, 1], size)) for size in ((112, 112), (250, 200), (100, 96), (20, 20))] == [
        112, 112, 96, 32,
    ]  # fmt: skip
    assert all(2 <= batch_size(images) <= max(2, images) for images in range(2, 3000))
    assert sampling(counted([1, 1, 9])).startswith("even")
    assert sampling(counted([1, 1, 10])).startswith("uneven")
    assert "versions: 8" in suggest(counted([9_999, 10_000]), Path("faces"))
    assert "versions" not in suggest(counted([10_000, 10_000]), Path("faces"))


def test_a_first_check_writes_checksums_and_a_second_one_agrees(tmp_path: Path) -> None:
    root = folder(tmp_path / "faces", {"a": [picture(1)], "b": [picture(2)]})
    before = ImageFolder(root).digest
    assert not check(open_image_set(root)).compared
    assert (root / ".checksums").read_text().startswith("facekd checksums 1\n")
    assert ImageFolder(root).digest == before
    assert check(open_image_set(root)).compared


def jpeg_with_a_flip() -> tuple[bytes, bytes]:
    """A JPEG, and the same with one bit of its last scan byte flipped, which still decodes."""
    whole = encode_jpeg(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    return whole, whole[:-20] + bytes([whole[-20] ^ 1]) + whole[-19:]


def test_a_flipped_bit_is_found_by_the_second_check_and_not_by_decoding(tmp_path: Path) -> None:
    whole, flipped = jpeg_with_a_flip()
    root = folder(tmp_path / "faces", {"a": [whole], "b": [picture(2)]})
    check(open_image_set(root))
    (root / "a" / "0.png").write_bytes(flipped)
    assert not inspect(open_image_set(root)).broken
    with pytest.raises(DataError) as caught:
        check(open_image_set(root))
    fix = "restore them, or accept this state with --write"
    assert str(caught.value) == f"{root}: not what .checksums says: 1 changed: 'a/0.png' ({fix})"
    check(open_image_set(root), write=True)
    assert check(open_image_set(root)).compared


def test_missing_and_new_images_are_named_with_their_number(tmp_path: Path) -> None:
    root = folder(tmp_path / "faces", {"a": [picture(k) for k in range(6)], "b": [picture(9)]})
    check(open_image_set(root))
    for number in range(1, 5):
        (root / "a" / f"{number}.png").unlink()
    (root / "b" / "x.png").write_bytes(picture(7))
    with pytest.raises(DataError, match=r"4 missing: 'a/1.png', 'a/2.png', 'a/3.png' and 1 more; 1 new: 'b/x.png'"):
        check(open_image_set(root))


def test_broken_images_are_refused_and_nothing_is_written(faces: Path) -> None:
    (faces / "Ann" / "1.png").write_bytes(picture(2)[:40])
    with pytest.raises(DataError) as caught:
        check(open_image_set(faces))
    assert str(caught.value).startswith(f"{faces}: 2 of 8 images broken, first Ann/1.png: ")
    assert caught.value.exit_code == 3
    assert not (faces / ".checksums").exists()


def test_a_stopped_check_writes_nothing(faces: Path) -> None:
    class Stopped(Exception):
        pass

    def poll() -> None:
        raise Stopped

    before = sorted(path.name for path in faces.rglob("*"))
    with pytest.raises(Stopped):
        check(open_image_set(faces), poll=poll)
    assert sorted(path.name for path in faces.rglob("*")) == before


def test_a_damaged_side_car_is_refused_until_written_again(tmp_path: Path) -> None:
    root = folder(tmp_path / "faces", {"a": [picture(1)], "b": [picture(2)]})
    (root / ".checksums").write_text("facekd checksums 1\n")
    with pytest.raises(InputError, match="is damaged"):
        check(open_image_set(root))
    check(open_image_set(root), write=True)
    assert check(open_image_set(root)).compared


def test_the_real_faces(shared_data: Path) -> None:
    source: IdentitySource = open_identities(shared_data / "lfw_test.csv", shared_data / "lfw112")
    report = inspect(identity_image_set(shared_data / "lfw_test.csv", source)).report()
    assert (report["images"], report["identities"], report["broken"], report["size"]) == (2307, 1189, 0, [112, 112])
    report = inspect(open_image_set(shared_data / "formats" / "small_lfw.bin")).report()
    assert (report["images"], report["duplicates"], report["broken"]) == (20, 3, 0)
