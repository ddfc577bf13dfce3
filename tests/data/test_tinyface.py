"""TinyFace's layout, and one line for each that is not it."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekd.data.tinyface import NOBODY, is_tinyface, open_tinyface
from facekd.errors import InputError

NAMES = {
    "Probe": ["7_1.jpg", "12_3.jpg"],
    "Gallery_Match": ["12_1.jpg", "7_2.PNG", "12_9.jpg"],
    "Gallery_Distractor": ["5.jpg", "12_77.jpg"],
}


def write(root: Path, **changed: list[str]) -> Path:
    for part, names in {**NAMES, **changed}.items():
        (root / part).mkdir(parents=True)
        for name in names:
            (root / part / name).write_bytes(b"x")
    return root


def test_the_number_before_the_underscore_is_the_person_and_distractors_are_nobody(tmp_path: Path) -> None:
    write(tmp_path / "tiny" / "Testing_Set")
    assert is_tinyface(tmp_path / "tiny") and is_tinyface(tmp_path / "tiny" / "Testing_Set")
    assert not is_tinyface(tmp_path)
    found = open_tinyface(tmp_path / "tiny")
    assert found.images.paths[:3] == ("Probe/12_3.jpg", "Probe/7_1.jpg", "Gallery_Match/12_1.jpg")
    assert found.subjects.tolist() == [12, 7, 12, 12, 7, NOBODY, NOBODY] and found.probes == 2
    assert "2 probes, 3 matches, 2 distractors" in found.warnings[0]
    assert found.digest == open_tinyface(tmp_path / "tiny" / "Testing_Set").digest
    (tmp_path / "tiny" / "Testing_Set" / "Probe" / "7_1.jpg").write_bytes(b"xy")
    assert found.digest != open_tinyface(tmp_path / "tiny").digest


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Probe": ["7_1.jpg", "x_1.jpg"]}, "Probe/x_1.jpg: does not begin with a number and '_'"),
        ({"Gallery_Match": ["7.jpg"]}, "Gallery_Match/7.jpg: does not begin with a number"),
        ({"Probe": ["8_1.jpg"]}, "1 probes have no mate in Gallery_Match, the first Probe/8_1.jpg"),
        ({"Gallery_Distractor": []}, "Gallery_Distractor: holds no images"),
        ({"Gallery_Distractor": ["list.txt"]}, "Gallery_Distractor/list.txt: is no image by its name"),
    ],
)
def test_bad_layouts_are_one_line(changed: dict[str, list[str]], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_tinyface(write(tmp_path / "set", **changed))
    assert message in str(caught.value) and len(caught.value.lines) == 1


def test_another_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Probe").mkdir()
    with pytest.raises(InputError, match="is no TinyFace folder .it holds Probe, Gallery_Match, Gallery_Distractor"):
        open_tinyface(tmp_path)
