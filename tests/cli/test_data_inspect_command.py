"""``facekd data inspect`` and ``facekd data check`` on the command line."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli

from facekd.data.images import encode_jpeg, encode_png
from facekd.data.verification import write_bin
from facekd.engine.sets import checking, inspection


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["data", *(str(word) for word in words)])


def picture(value: int) -> bytes:
    return encode_png(np.full((16, 12, 3), value, np.uint8))


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    root = tmp_path / "faces"
    for identity, values in {"Ann": [1, 2], "[red]Bob": [1, 3, 4]}.items():
        (root / identity).mkdir(parents=True)
        for value in values:
            (root / identity / f"{value}.png").write_bytes(picture(value))
    return root


def test_json_has_exactly_these_keys(faces: Path) -> None:
    result = run("inspect", faces, "--json", "-")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "format": "folder",
        "images": 5,
        "identities": 2,
        "broken": 0,
        "duplicates": 1,
        "size": [16, 12],
        "images_per_identity": {"min": 2, "median": 2.5, "max": 3},
    }
    assert list(json.loads(result.stdout)) == [
        "format", "images", "identities", "broken", "duplicates", "size", "images_per_identity",
    ]  # fmt: skip
    assert "For a recipe:" in result.stderr


def test_the_terminal_shows_what_was_found(faces: Path) -> None:
    (faces / "Ann" / "9.png").write_bytes(b"<html>")
    result = run("inspect", faces)
    assert result.exit_code == 0, result.output
    assert f"warning: {faces}: same image under two identities: Ann/1.png and [red]Bob/1.png" in result.stderr.replace(
        "[red]Bob/1.png and Ann/1.png", "Ann/1.png and [red]Bob/1.png"
    )
    text = " ".join(result.stdout.split())
    for told in (
        "images 6",
        "broken 1",
        "16x12 (5)",
        "duplicates 1: 0 within an identity, 1 across two",
        "images of each 3 to 3, median 3",
        "Broken: Ann/9.png: not an image (starts with '<html>')",
        'data: source: folder path: "',
        "batch_size: 4",
    ):
        assert told in text


def test_an_identity_with_one_image_is_named_as_it_is_written(faces: Path) -> None:
    (faces / "[bold]Cy").mkdir()
    (faces / "[bold]Cy" / "7.png").write_bytes(picture(7))
    text = " ".join(run("inspect", faces).stdout.split())
    assert "with one image 1: '[bold]Cy'" in text


def test_item_045_transparent_images_are_counted(faces: Path) -> None:
    assert "alpha" not in run("inspect", faces).stderr
    for name in ("5.png", "6.png"):
        drawn = cv2.imencode(".png", np.full((16, 12, 4), int(name[0]), np.uint8))[1]
        (faces / "Ann" / name).write_bytes(drawn.tobytes())
    for verb in ("inspect", "check"):
        result = run(verb, faces)
        assert result.exit_code == 0
        assert f"facekd: warning: {faces}: 2 images have an alpha channel, which is dropped\n" in result.stderr


def test_long_lists_are_cut(faces: Path) -> None:
    for number in range(12):
        (faces / "Ann" / f"x{number}.png").write_bytes(b"x")
        for identity in ("Ann", "[red]Bob"):
            (faces / identity / f"y{number}.png").write_bytes(picture(30 + number))
    result = run("inspect", faces)
    assert result.stdout.count("not an image") == 10
    assert "and 2 more" in result.stdout
    assert result.stderr.count("same image under two identities") == 10
    assert "and 3 more such images" in result.stderr


def test_a_verification_set_without_impostors_can_be_looked_at(tmp_path: Path) -> None:
    write_bin(tmp_path / "a.bin", [picture(1), picture(2)], [True])
    result = run("inspect", tmp_path / "a.bin")
    assert result.exit_code == 0, result.output
    assert "not known" in result.stdout
    assert f'- {{path: "{tmp_path}/a.bin"}}' in result.stdout


def test_check_says_what_it_did(faces: Path) -> None:
    first, second = run("check", faces), run("check", faces)
    assert first.exit_code == second.exit_code == 0
    side = faces / ".checksums"
    told = f"{faces}: 5 images decode; unverified: nothing to compare with; wrote {side}\n"
    assert first.output == told
    assert second.output == f"{faces}: 5 images decode; all as {side} says\n"


def test_a_set_that_cannot_be_written_beside_is_decoded_all_the_same(
    faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking.os, "access", lambda path, mode: mode != os.W_OK)
    result = run("check", faces)
    assert result.exit_code == 0
    told = f"unverified: nothing to compare with; {faces} cannot be written to"
    assert result.output == f"{faces}: 5 images decode; {told}\n"
    (faces / "Ann" / "1.png").write_bytes(b"x")
    assert run("check", faces).exit_code == 3
    assert not (faces / ".checksums").exists()


def test_check_exits_with_3_when_something_changed(faces: Path) -> None:
    run("check", faces)
    (faces / "Ann" / "1.png").write_bytes(picture(9))
    result = run("check", faces)
    assert result.exit_code == 3
    told = "not what .checksums says: 1 changed: 'Ann/1.png' (restore them, or accept this state with --write)"
    assert result.output == f"facekd: error: {faces}: {told}\n"
    assert run("check", faces, "--write").exit_code == 0
    assert run("check", faces).exit_code == 0


def test_item_041_a_jpeg_cut_and_ended_again_is_unverified_without_a_checksum_and_found_with_one(faces: Path) -> None:
    path = faces / "Ann" / "5.jpg"
    whole = encode_jpeg(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    cut = whole[: len(whole) // 2] + b"\xff\xd9"
    path.write_bytes(cut)
    alone = run("check", faces)
    assert alone.exit_code == 0 and "6 images decode; unverified: nothing to compare with" in alone.output
    path.write_bytes(whole)
    assert run("check", faces, "--write").exit_code == 0
    path.write_bytes(cut)
    found = run("check", faces)
    assert found.exit_code == 3 and "1 changed: 'Ann/5.jpg'" in found.stderr


def test_check_exits_with_3_when_an_image_is_broken(faces: Path) -> None:
    (faces / "Ann" / "1.png").write_bytes(picture(1)[:60])
    result = run("check", faces)
    assert result.exit_code == 3
    told = "1 of 5 images broken, first Ann/1.png: cut short or damaged: the png does not decode (restore the file)"
    fix = "(restore or remove them; facekd data inspect lists them)"
    assert result.output == f"facekd: error: {faces}: {told} {fix}\n"
    assert not (faces / ".checksums").exists()


@pytest.mark.parametrize(("verb", "module"), [("inspect", inspection), ("check", checking)])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly(
    faces: Path, monkeypatch: pytest.MonkeyPatch, verb: str, module: object, number: int, code: int
) -> None:
    def decode(data: bytes, where: str) -> np.ndarray:
        signal.raise_signal(number)
        return np.zeros((16, 12, 3), np.uint8)

    monkeypatch.setattr(module, "decode", decode)
    result = run(verb, faces)
    assert result.exit_code == code
    assert result.output == f"facekd: error: facekd data {verb}: stopped; nothing was written\n"
    assert not (faces / ".checksums").exists()


@pytest.mark.parametrize("verb", ["inspect", "check"])
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["gone"], "gone: no such file or folder (check the path)"),
        (["faces", "--images", "faces"], "faces: an image root has no meaning for this set (leave --images out)"),
        (["bad.bin"], "bad.bin: byte 0"),
    ],
)
def test_refusals(faces: Path, monkeypatch: pytest.MonkeyPatch, verb: str, words: list[str], told: str) -> None:
    monkeypatch.chdir(faces.parent)
    Path("bad.bin").write_bytes(b"<html>")
    result = run(verb, *words)
    assert result.exit_code == 2
    assert result.output.startswith(f"facekd: error: {told}")
    assert result.output.count("\n") == 1


def test_help_shows_an_example() -> None:
    for verb in ("inspect", "check"):
        result = run(verb, "-h")
        assert result.exit_code == 0
        assert f"facekd data {verb} faces/" in result.output
