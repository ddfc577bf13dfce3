"""Broken images by the way a user has to leave them out: stopped at, written down, named in the recipe, counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from bad_inputs import recipe, write_faces
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from safetensors.numpy import load_file

LEFT_OUT = "source: folder, path: faces, leave_out: {file: broken.csv, at_most: 0.1}"


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three people of four images, one of which is none, beside a list of the broken ones."""
    monkeypatch.chdir(tmp_path)
    write_faces(Path("faces"))
    Path("faces/p1/2.png").write_bytes(b"<html>")
    assert run("data", "inspect", "faces", "--broken", "broken.csv").exit_code == 0
    return tmp_path


def test_a_run_stops_at_a_broken_image_and_goes_through_without_it(here: Path) -> None:
    assert Path("broken.csv").read_text() == "path,reason\np1/2.png,p1/2.png: not an image (starts with '<html>')\n"
    assert run(*recipe(Path())).exit_code == 3
    result = run(*recipe(Path(), ("source: folder, path: faces", LEFT_OUT)), "--overwrite")
    assert result.exit_code == 0, result.output
    assert "broken.csv: 1 of 12 images are left out of training" in result.output
    Path("faces/p1/2.png").unlink()
    assert run(*recipe(Path())[:2], "--out", "without").exit_code == 0
    left_out, without = load_file("out/student.safetensors"), load_file("without/student.safetensors")
    assert all((left_out[name] == without[name]).all() for name in without)


def test_a_run_goes_on_with_the_list_it_began_with_and_no_other(here: Path) -> None:
    words = recipe(Path(), ("source: folder, path: faces", LEFT_OUT.replace("0.1", "0.2")))
    assert run(*words).exit_code == 0
    again = run(*words, "--resume")
    assert again.exit_code == 0, again.output
    with open("broken.csv", "a") as stream:
        stream.write("p0/1.png,doubted\n")
    other = run(*words, "--resume")
    assert other.exit_code == 2
    assert "the data changed since it was written" in other.stderr


def test_more_than_the_share_that_is_allowed_is_refused(here: Path) -> None:
    words = recipe(Path(), ("source: folder, path: faces", LEFT_OUT.replace("0.1", "0.05")))
    result = run(*words)
    assert result.exit_code == 2
    assert "broken.csv: leaves out 1 of 12 images, more than 0.05 of them" in result.stderr
    assert not Path("out/student.safetensors").exists()


def test_drawn_faces_have_none_to_leave_out(here: Path) -> None:
    words = recipe(Path(), ("source: folder, path: faces", "source: synthetic, leave_out: {file: broken.csv}"))
    assert "data.leave_out: has no meaning with source: synthetic" in run(*words).stderr
