"""File names made from hostile ones: every disk takes them, they stay apart, and the order of labels survives."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from facekd.data.file_names import Unused, image_file_name, safe_name, safe_names
from facekd.data.images import encode_jpeg, encode_png

PIXELS = np.zeros((8, 8, 3), np.uint8)
HOSTILE = [
    "../../etc/passwd", "/abs", "a/b", "a\\b", "C:\\x", "nul", "LPT1.txt", "", " ", ".", "..", ".hidden", "end.", "a ",
    "tab\t", "line\nbreak", "nul\0byte", "\udcff", "x" * 500, "é" * 120, "a:b", 'q"?*<>|', "\u202eevil",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_becomes_one_plain_part_of_a_path(name: str, tmp_path: Path) -> None:
    safe = safe_name(name)
    assert safe != name
    assert len(safe.encode()) <= 120
    assert safe.isprintable() and not set(safe) & set('<>:"/\\|?*')
    assert not safe.startswith(".") and safe == safe.strip() and not safe.endswith(".")
    (tmp_path / safe).mkdir()
    assert (tmp_path / safe).resolve().parent == tmp_path.resolve()


@pytest.mark.parametrize("name", ["Aaron_Eckhart", "0000045", "José María", "李", "-rf", "a.b", "it's", "n°1 (2)"])
def test_an_ordinary_name_is_kept(name: str) -> None:
    assert safe_name(name) == name


def test_hostile_names_stay_apart() -> None:
    assert len({safe_name(name).casefold() for name in HOSTILE}) == len(HOSTILE)
    assert len(set(safe_names(HOSTILE))) == len(HOSTILE)


def test_names_that_differ_in_case_get_different_folders() -> None:
    first, second = safe_names(["Ann", "ann"])
    assert first == "Ann" and second.startswith("ann-")


def test_names_that_are_taken_are_not_given_again() -> None:
    assert safe_names(["a", "pairs.csv"], taken=["pairs.csv"])[1].startswith("pairs.csv-")


def test_folders_sort_as_the_labels_do() -> None:
    rng = random.Random(0)
    for _ in range(100):
        names = [str(number) for number in sorted(rng.sample(range(2000), 30))]
        assert safe_names(names) == sorted(safe_names(names))
        assert [int(name) for name in safe_names(names)] == [int(name) for name in names]
        mixed = rng.sample([*HOSTILE, "Ann", "ann", "Bob", *names], 20)
        assert safe_names(mixed) == sorted(set(safe_names(mixed)))


def test_files_get_the_suffix_of_their_content() -> None:
    jpeg, png = encode_jpeg(PIXELS), encode_png(PIXELS)
    assert [image_file_name(name, jpeg) for name in ("a.jpg", "a.JPEG", "a.png", "a.v2", "a")] == [
        "a.jpg", "a.JPEG", "a.jpg", "a.v2.jpg", "a.jpg",
    ]  # fmt: skip
    assert image_file_name("a.jpg", png) == "a.png"
    assert image_file_name("..", png).endswith(".png")
    assert image_file_name(".png", png) == image_file_name(".png", png).lstrip(".")


def test_a_path_that_comes_again_gets_a_number() -> None:
    unused = Unused()
    assert [unused(path) for path in ("a/x.jpg", "a/X.jpg", "a/x.jpg", "a/x-2.jpg", "b/x.jpg")] == [
        "a/x.jpg", "a/X-2.jpg", "a/x-3.jpg", "a/x-2-2.jpg", "b/x.jpg",
    ]  # fmt: skip
