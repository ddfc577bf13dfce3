"""Files of landmarks in their three forms, and folders of photographs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekd.data.align import TEMPLATE
from facekd.data.image_folder import ImageFolder
from facekd.data.images import encode_png
from facekd.data.landmark_files import read_landmarks
from facekd.data.photographs import PhotographFolder, open_photographs
from facekd.engine.sets.synthesis import csv_header
from facekd.errors import InputError

FIVE = TEMPLATE.round(2)
NUMBERS = ",".join(str(number) for number in FIVE.ravel())


def written(folder: Path, text: str, name: str = "points.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_without_a_header(tmp_path: Path) -> None:
    found = read_landmarks(written(tmp_path, f"ann/1.jpg,{NUMBERS}\n\n./bob//2.jpg,{NUMBERS}\n"))
    assert (found.layout, found.rows, found.lines.tolist()) == ("5 points", {"ann/1.jpg": 0, "bob/2.jpg": 1}, [1, 3])
    assert found.where("bob/2.jpg").endswith("points.csv:3")
    np.testing.assert_array_equal(found.points, [FIVE, FIVE])


@pytest.mark.parametrize("separator", [",", "\t"])
def test_a_header_says_which_columns_to_read(tmp_path: Path, separator: str) -> None:
    header = ["label", "y1", "x1", "Path", *(f"{axis}_{k}" for axis in "xy" for k in range(2, 6))]
    (x, y) = FIVE.T.tolist()
    row = ["7", str(y[0]), str(x[0]), "a.jpg", *map(str, [*x[1:], *y[1:]])]
    found = read_landmarks(written(tmp_path, "\n".join(separator.join(line) for line in (header, row))))
    np.testing.assert_array_equal(found.points[0], FIVE)


def test_the_list_of_drawn_faces_is_read(tmp_path: Path) -> None:
    row = ["p/0000.png", "p", *map(str, FIVE.ravel()), *["0.5"] * 6]
    found = read_landmarks(written(tmp_path, ",".join(csv_header()) + "\n" + ",".join(row)))
    assert found.rows == {"p/0000.png": 0}
    np.testing.assert_array_equal(found.points[0], FIVE)


@pytest.mark.parametrize("header", [True, False])
def test_sixty_eight_points(tmp_path: Path, header: bool) -> None:
    points = np.random.default_rng(0).uniform(0, 100, (68, 2)).round(3)
    names = ",".join(["path", *(f"{axis}{k}" for k in range(68) for axis in "xy")]) + "\n"
    text = (names if header else "") + "a.jpg," + ",".join(map(str, points.ravel()))
    found = read_landmarks(written(tmp_path, text))
    assert found.layout == "68 points"
    np.testing.assert_allclose(found.points[0, [0, 2, 4]], [points[36:42].mean(axis=0), points[30], points[54]])


@pytest.mark.parametrize("box", ["", "10\t11\t90\t99\t"])
def test_a_face2rec2_list_has_five_x_then_five_y(tmp_path: Path, box: str) -> None:
    numbers = "\t".join(str(number) for number in FIVE.T.ravel())
    found = read_landmarks(written(tmp_path, f"0\tann/1.jpg\t3\t{box}{numbers}\n", "train.lst"))
    assert found.layout == "face2rec2"
    np.testing.assert_array_equal(found.points[0], FIVE)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a.jpg,{NUMBERS}\nb.jpg,{NUMBERS.rsplit(',', 2)[0]}", "points.csv:2: a path and 8 numbers, 4 points instead"),
        (f"a.jpg,{NUMBERS.rsplit(',', 2)[0]}", "points.csv:1: a path and 8 numbers, 4 points"),
        (f"a.jpg,{NUMBERS.replace('56.03', 'nan')}", "points.csv:1: nan is no coordinate of an image"),
        (f"a.jpg,{NUMBERS}\nb.jpg,{NUMBERS.replace('56.03', '-inf')}", "points.csv:2: -inf is no coordinate"),
        (f"a.jpg,{NUMBERS.replace('56.03', '1e300')}", "points.csv:1: 1e300 is no coordinate"),
        (f"a.jpg,{NUMBERS.replace('56.03', 'left')}", "points.csv:1: 'left' is no number"),
        (f"a.jpg,{NUMBERS.replace('56.03', '')}", "points.csv:1: '' is no number"),
        (f"a.jpg,{NUMBERS}\na.jpg,{NUMBERS}", "points.csv:2: 'a.jpg' is listed on line 1 already"),
        (f"../a.jpg,{NUMBERS}", r"points.csv:1: path '../a.jpg' leads upwards"),
        (f"/etc/passwd,{NUMBERS}", "points.csv:1: path '/etc/passwd' is absolute"),
        ("path,x1,y1\n", "points.csv:1: the header names 1 points with x and y"),
        ("path,x1,y1,x2,y2,x3,y3,x4,y4,x5\n", "the header names 5 points with x and y"),
        ("image,x1,y1\n", "points.csv:1: the header 'image,x1,y1' has no column path"),
        (",".join(csv_header()), "points.csv: holds a header and no rows"),
        ("a.jpg", "points.csv:1: a path and 0 numbers"),
        ("1\ta.jpg\t3\n", "points.csv:1: says that its image is aligned already"),
        ("0\ta.jpg\t3\n", "points.csv:1: has no landmarks"),
        ("0\ta.jpg\t3\t1\t2\t3\t4\n0\tb.jpg\n", "points.csv:1: has no landmarks"),
        ("", "points.csv: is empty"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        read_landmarks(written(tmp_path, text))
    assert len(refused.value.lines) == 1


def test_a_folder_of_photographs_has_no_identities(tmp_path: Path) -> None:
    image = np.full((9, 9, 3), 7, np.uint8)
    for name in ("b.png", "a.PNG", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(encode_png(image))
    source = open_photographs(tmp_path)
    assert isinstance(source, PhotographFolder)
    assert (source.names, source.labels.tolist(), len(source)) == ([""], [0, 0], 2)
    assert [source.sample_name(k) for k in range(2)] == ["a.PNG", "b.png"]
    assert np.array_equal(source.read(1), image)
    assert source.encoded(0) == encode_png(image)
    assert source.warnings == [f"{tmp_path}: 1 files are no images and left out: 'notes.txt'"]
    before = source.digest
    (tmp_path / "c.png").write_bytes(encode_png(image))
    assert PhotographFolder(tmp_path).digest != before


def test_folders_of_identities_stay_what_they_are(tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encode_png(np.zeros((9, 9, 3), np.uint8)))
    (tmp_path / "cover.png").write_bytes(b"")
    assert isinstance(open_photographs(tmp_path), ImageFolder)
    with pytest.raises(InputError, match="no such file"):
        open_photographs(tmp_path / "none")


def test_a_folder_without_photographs_or_with_a_way_out_is_refused(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(InputError, match="inside: holds no images"):
        PhotographFolder(inside)
    (tmp_path / "secret.png").write_bytes(encode_png(np.zeros((9, 9, 3), np.uint8)))
    (inside / "a.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="leads out of"):
        open_photographs(inside)
