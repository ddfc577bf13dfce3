"""Some identities of a data set: chosen by shots, by an attribute, by name; what they are called, and refusals."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from facekd.data.image_folder import ImageFolder
from facekd.data.images import encode_png
from facekd.data.subset import (
    names_by_attribute,
    names_by_shots,
    names_in_file,
    of_identities,
    rows_within,
    without_images,
)
from facekd.errors import InputError

COUNTS = {"ann": 3, "bob": 1, "cid": 2, "dee": 5}


@pytest.fixture
def whole(tmp_path: Path) -> ImageFolder:
    for value, (name, count) in enumerate(COUNTS.items()):
        (tmp_path / "faces" / name).mkdir(parents=True)
        for number in range(count):
            image = np.full((8, 8, 3), 40 * value + number, np.uint8)
            (tmp_path / "faces" / name / f"{number}.png").write_bytes(encode_png(image))
    return ImageFolder(tmp_path / "faces")


def test_it_is_the_whole_without_the_others(whole: ImageFolder) -> None:
    subset = of_identities(whole, {"dee", "ann"}, "here")
    assert subset.names == ["ann", "dee"] and subset.labels.tolist() == [0] * 3 + [1] * 5
    assert subset.columns.tolist() == [0, 3]
    for index, row in enumerate(subset.rows.tolist()):
        assert subset.places[row] == index
        assert np.array_equal(subset.read(index), whole.read(row)) and subset.encoded(index) == whole.encoded(row)
        assert subset.sample_name(index) == whole.sample_name(row)
        assert whole.names[whole.labels[row]] == subset.names[subset.labels[index]]
    assert (np.delete(subset.places, subset.rows) == -1).all() and len(subset) == 8
    assert rows_within(subset, whole).tolist() == subset.rows.tolist()
    assert rows_within(whole, whole).tolist() == list(range(len(whole)))


def test_names_go_to_columns_and_back(whole: ImageFolder) -> None:
    subset = of_identities(whole, ["dee", "bob", "cid"], "here")
    assert [whole.names[column] for column in subset.columns] == subset.names
    twice = of_identities(subset, ["dee", "bob"], "here")
    assert [subset.names[column] for column in twice.columns] == twice.names == ["bob", "dee"]


def test_the_digest_follows_whom_it_keeps_and_not_the_order_they_are_named_in(whole: ImageFolder) -> None:
    digests = {of_identities(whole, names, "here").digest for names in (["ann", "bob"], ["ann", "cid"])}
    assert len(digests | {whole.digest}) == 3
    assert of_identities(whole, ["bob", "ann"], "elsewhere").digest in digests


def test_shots__count_the_images_bounds_included(whole: ImageFolder) -> None:
    assert names_by_shots(whole, 3, None) == ["ann", "dee"]
    assert names_by_shots(whole, None, 2) == ["bob", "cid"]
    assert names_by_shots(whole, 2, 3) == ["ann", "cid"]


def test_attribute__any_of_the_values(whole: ImageFolder, tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("age,identity\nold,ann\nyoung,bob\nold,zoe\nchild,dee\nold,cid\n")
    assert names_by_attribute(whole, table, "age", ["old"]) == ["ann", "cid"]
    assert names_by_attribute(whole, table, "age", ["young", "child"]) == ["bob", "dee"]


def test_file__a_name_a_line(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dee\n\n ann \n")
    assert names_in_file(tmp_path / "names.txt") == ["dee", "ann"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("age\nold\n", "people.csv:1: the header 'age' lacks identity (write one column of each name)"),
        ("identity,age\nann,old\nann,old\n", "people.csv:3: 'ann' has a row already (give one row an identity)"),
        ("identity,age\nann\n", "people.csv:2: 1 fields instead of 2"),
        (
            "identity,age\nann,old\nbob,old\n",
            "people.csv: has no row for 2 identities of the data: 'cid', 'dee' (give one row an identity)",
        ),
    ],
)
def test_attribute__refusals(whole: ImageFolder, tmp_path: Path, text: str, line: str) -> None:
    (tmp_path / "people.csv").write_text(text)
    with pytest.raises(InputError) as told:
        names_by_attribute(whole, tmp_path / "people.csv", "age", ["old"])
    assert str(told.value).removeprefix(f"{tmp_path}/") == line


def test_refusals__name_the_stranger_and_the_double(whole: ImageFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="here: names 1 identities that the data does not have: 'zoe'"):
        of_identities(whole, ["ann", "bob", "zoe"], "here")
    with pytest.raises(InputError, match="here: selects 1 of 4 identities"):
        of_identities(whole, ["ann", "ann"], "here")
    (tmp_path / "names.txt").write_text("ann\nbob\nann\n")
    with pytest.raises(InputError, match="names.txt:3: 'ann' is on line 1 already"):
        names_in_file(tmp_path / "names.txt")


def left_out(folder: Path, *lines: str) -> Path:
    (folder / "broken.csv").write_text("".join(f"{line}\n" for line in lines))
    return folder / "broken.csv"


def test_named_images_are_left_out_and_none_stands_in_for_them(whole: ImageFolder, tmp_path: Path) -> None:
    listed = left_out(tmp_path, "path,reason", "dee/3.png,cut off", "ann/0.png,no image")
    found = without_images(whole, listed, 0.2)
    kept = [whole.sample_name(row) for row in range(len(whole))]
    kept.remove("dee/3.png")
    kept.remove("ann/0.png")
    assert [found.sample_name(index) for index in range(len(found))] == kept
    assert found.names == whole.names and np.bincount(found.labels).tolist() == [2, 1, 2, 4]
    assert found.warnings[-1] == f"{listed}: 2 of 11 images are left out of training"
    fewer = without_images(whole, left_out(tmp_path, "path", "dee/3.png"), 0.2)
    assert len({whole.digest, found.digest, fewer.digest}) == 3


@pytest.mark.parametrize(
    ("lines", "at_most", "told"),
    [
        (["name", "ann/0.png"], 1.0, ":1: the header lacks path"),
        (["path", "ann/7.png"], 1.0, ":2: the data has no image 'ann/7.png'"),
        (["reason,path", "odd"], 1.0, ":2: the data has no image ''"),
        (["path", "ann/0.png", "dee/0.png", "ann/0.png"], 1.0, ":4: 'ann/0.png' is on line 2 already"),
        (["path", "ann/0.png", "ann/1.png"], 0.1, "leaves out 2 of 11 images, more than 0.1 of them"),
        (["path", "bob/0.png"], 1.0, "leaves no image of 'bob'"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    whole: ImageFolder, tmp_path: Path, lines: list[str], at_most: float, told: str
) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        without_images(whole, left_out(tmp_path, *lines), at_most)
