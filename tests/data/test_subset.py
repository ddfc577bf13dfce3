"""Some identities of a data set: chosen by shots, by an attribute, by name; what they are called, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekd.data.image_folder import ImageFolder
from facekd.data.images import encode_png
from facekd.data.subset import SubsetSource, names_by_attribute, names_by_shots, names_in_file, rows_within
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
    subset = SubsetSource(whole, {"dee", "ann"}, "here")
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
    subset = SubsetSource(whole, ["dee", "bob", "cid"], "here")
    assert [whole.names[column] for column in subset.columns] == subset.names
    twice = SubsetSource(subset, ["dee", "bob"], "here")
    assert [subset.names[column] for column in twice.columns] == twice.names == ["bob", "dee"]


def test_the_digest_follows_whom_it_keeps_and_not_the_order_they_are_named_in(whole: ImageFolder) -> None:
    digests = {SubsetSource(whole, names, "here").digest for names in (["ann", "bob"], ["ann", "cid"])}
    assert len(digests | {whole.digest}) == 3
    assert SubsetSource(whole, ["bob", "ann"], "elsewhere").digest in digests


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
        SubsetSource(whole, ["ann", "bob", "zoe"], "here")
    with pytest.raises(InputError, match="here: selects 1 of 4 identities"):
        SubsetSource(whole, ["ann", "ann"], "here")
    (tmp_path / "names.txt").write_text("ann\nbob\nann\n")
    with pytest.raises(InputError, match="names.txt:3: 'ann' is on line 1 already"):
        names_in_file(tmp_path / "names.txt")
