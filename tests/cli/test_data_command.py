"""``facekd data synth`` writes a whole folder or nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli

from facekd.data.image_folder import ImageFolder
from facekd.data.image_list import ImageList
from facekd.data.images import decode, read_bytes
from facekd.data.synthetic import QUALITY_FACTORS, contact_sheet, render_face
from facekd.engine.sets import synthesis


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["data", "synth", *(str(word) for word in words)])


def test_the_folder_holds_the_faces_and_what_is_known_of_them(tmp_path: Path) -> None:
    out = tmp_path / "faces"
    result = run(out, "--identities", "3", "--samples", "2", "--seed", "4", "--first-identity", "7")
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]
    folder, listed = ImageFolder(out), ImageList(out / "faces.csv")
    assert folder.names == listed.names == ["synthetic-000007", "synthetic-000008", "synthetic-000009"]
    assert len(folder) == len(listed) == 6
    assert np.array_equal(folder.read(3), render_face(4, 8, 1).image)
    with open(out / "faces.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    face = render_face(4, 9, 0)
    assert rows[4]["path"] == "synthetic-000009/0000.png"
    assert rows[4]["identity"] == "synthetic-000009"
    assert float(rows[4]["nose_x"]) == pytest.approx(float(face.landmarks[2, 0]), abs=1e-3)
    for name in QUALITY_FACTORS:
        assert float(rows[4][name]) == pytest.approx(face.quality[name], abs=1e-3)


def test_the_sheet_is_the_contact_sheet(tmp_path: Path) -> None:
    sheet = tmp_path / "faces.png"
    result = run("--sheet", sheet, "--identities", "2", "--samples", "3", "--seed", "1", "--first-identity", "5")
    assert result.exit_code == 0, result.output
    assert [path.name for path in tmp_path.iterdir()] == ["faces.png"]
    assert np.array_equal(decode(read_bytes(sheet), "sheet"), contact_sheet([5, 6], 3, 1))


def test_an_empty_folder_and_a_partial_one_are_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "faces"
    out.mkdir()
    (tmp_path / "faces.partial").mkdir()
    (tmp_path / "faces.partial" / "left.png").write_bytes(b"x")
    assert run(out, "--identities", "2", "--samples", "1").exit_code == 0
    assert sorted(path.name for path in tmp_path.rglob("*.png")) == ["0000.png", "0000.png"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "nothing to write"),
        (["full"], "is not empty"),
        (["file"], "is a file"),
        (["absent/faces"], "is not a folder"),
        (["--sheet", "sheet.jpg"], "a contact sheet is a PNG"),
        (["--sheet", "sheet.png", "--identities", "200", "--samples", "100"], "do not fit"),
        (["new", "--identities", "2", "--first-identity", "4294967295"], "first_identity"),
        (["new", "--identities", "0"], "--identities"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full", "kept").write_text("kept")
    Path("file").write_text("kept")
    result = run(*words)
    assert result.exit_code == 2
    assert told in result.output
    assert result.output.startswith("facekd: error: ")
    assert result.output.count("\n") == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "kept"]


def test_trouble_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: np.ndarray) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synthesis, "encode_png", refuse)
    result = run(tmp_path / "faces", "--identities", "2", "--samples", "1")
    assert result.exit_code == 5
    assert "No space left on device" in result.output
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example() -> None:
    for words in (["data", "-h"], ["data", "synth", "-h"]):
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0
        assert "facekd data synth" in result.output
