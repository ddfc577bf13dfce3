"""``facekd data pack`` and ``facekd data convert`` on the command line."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli

from facekd.data.bin_format import read_bin
from facekd.data.image_folder import ImageFolder
from facekd.data.image_headers import header_size
from facekd.data.images import encode_jpeg, encode_png
from facekd.data.open_source import open_identities
from facekd.data.verification import write_bin
from facekd.engine.sets import conversion, packing


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["data", *(str(word) for word in words)])


def picture(value: int) -> bytes:
    return encode_png(np.full((16, 12, 3), value, np.uint8))


@pytest.fixture(autouse=True)
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for place, identity in enumerate(("Ann", "Bob")):
        Path("faces", identity).mkdir(parents=True)
        for number in (1, 2, 3):
            Path("faces", identity, f"{identity}_000{number}.png").write_bytes(picture(10 * place + number))
    Path("pairs.txt").write_text("Ann\t1\t2\nBob\t1\t3\nAnn\t1\tBob\t1\nAnn\t3\tBob\t2\n")
    return Path("faces")


def test_a_record_comes_with_what_belongs_beside_it() -> None:
    result = run("pack", "faces", "-o", "train.rec")
    assert result.exit_code == 0, result.output
    assert result.output == "wrote train.rec: 6 images of 2 identities, bytes as stored\n"
    assert sorted(path.name for path in Path().iterdir()) == [
        "classes.txt", "faces", "pairs.txt", "property", "train.idx", "train.rec", "train.sha256",
    ]  # fmt: skip
    assert Path("property").read_text() == "2,16,12\n6\n"
    found = open_identities(Path("train.rec"))
    assert found.names == ["Ann", "Bob"]
    assert [found.encoded(k) for k in range(6)] == [ImageFolder(Path("faces")).encoded(k) for k in range(6)]


def test_the_name_of_the_output_says_what_to_make() -> None:
    assert run("pack", "faces", "-o", "one.tar").exit_code == 0
    assert Path("one.tar").is_file() and Path("classes.txt").is_file()
    result = run("pack", "faces", "-o", "shards/", "--shard-size", "4")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("shards").iterdir()) == [
        "classes.txt", "faces-000000.tar", "faces-000001.tar",
    ]  # fmt: skip
    for packed in ("one.tar", "shards"):
        assert open_identities(Path(packed)).names == ["Ann", "Bob"]


def test_pairs_become_a_bin_and_come_back() -> None:
    result = run("pack", "pairs.txt", "--images", "faces", "-o", "pairs.bin")
    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote pairs.bin: 4 pairs of 6 images, bytes as stored\n"
    assert read_bin(Path("pairs.bin"))[1] == [True, True, False, False]
    result = run("convert", "pairs.bin", "plain")
    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote plain: 6 images and pairs.csv, 4 pairs\n"
    assert run("pack", "plain/pairs.csv", "-o", "again.bin").exit_code == 0
    assert Path("again.bin").read_bytes() == Path("pairs.bin").read_bytes()


def test_resizing_is_said() -> None:
    result = run("pack", "faces", "-o", "x.rec", "--size", "14", "--quality", "80")
    assert result.output.endswith("resized to 14x14 and encoded anew as JPEG of quality 80\n")
    assert header_size(open_identities(Path("x.rec")).encoded(0)) == (14, 14)
    result = run("pack", "faces", "-o", "y.tar", "--size", "14", "--force")
    assert result.output.endswith("as JPEG of quality 95\n")


def test_convert_says_when_folders_are_called_otherwise() -> None:
    Path("list.csv").write_text("path,identity\nAnn/Ann_0001.png,../ann\nBob/Bob_0001.png,bob\n")
    result = run("convert", "list.csv", "out", "--images", "faces")
    assert result.exit_code == 0, result.output
    assert result.stdout == "wrote out: 2 images of 2 identities, and identities.csv\n"
    told = "out: 1 folders are not called as their identity, for disks' sake or to keep the order"
    assert result.stderr == f"facekd: warning: {told}\n"
    assert Path("out", "identities.csv").read_text().splitlines()[1].endswith(",../ann")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["pack", "faces", "-o", "x.rec"], "x.rec"),
        (["pack", "faces", "-o", "x/"], "x"),
        (["pack", "pairs.txt", "--images", "faces", "-o", "x.bin"], "x.bin"),
        (["convert", "faces", "x"], "x"),
    ],
)
def test_a_signal_keeps_what_is_done_and_the_same_command_goes_on(
    monkeypatch: pytest.MonkeyPatch, words: list[str], out: str, number: int, code: int
) -> None:
    seen: list[str] = []

    def decode(data: bytes, where: str) -> np.ndarray:
        seen.append(where)
        if len(seen) == 2:
            signal.raise_signal(number)
        return np.zeros((16, 12, 3), np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "decode", decode)
        patch.setattr(conversion, "decode", decode)
        result = run(*words)
    assert result.exit_code == code
    kept = f"stopped; {out}.partial keeps what is done, and the same command goes on with it"
    assert result.stderr.endswith(f"facekd: error: facekd data {words[0]}: {kept}\n")
    assert len(seen) == 2 and Path(f"{out}.partial").is_dir() and not Path(out).exists()
    assert run(*words).exit_code == 0
    assert Path(out).exists() and not Path(f"{out}.partial").exists()


def test_a_broken_image_exits_with_3_and_its_name(faces: Path) -> None:
    whole = encode_jpeg(np.zeros((16, 12, 3), np.uint8))
    (faces / "Bob" / "Bob_0002.png").write_bytes(whole[:-40])
    result = run("pack", "faces", "-o", "x.tar")
    assert result.exit_code == 3
    told = "cut short or damaged: the jpeg does not decode (restore the file)"
    assert result.output == f"facekd: error: faces: Bob/Bob_0002.png: {told}\n"


EXISTS = "exists (choose another name, or add --force)"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pack", "faces", "-o", "full.rec"], f"full.rec: {EXISTS}"),
        (["pack", "faces", "-o", "taken/x.rec"], f"taken/property: {EXISTS}"),
        (["pack", "faces", "-o", "taken/x.tar"], f"taken/classes.txt: {EXISTS}"),
        (["convert", "faces", "taken"], f"taken: {EXISTS}"),
        (["convert", "faces", "faces/new"], "faces/new: overlaps with the source"),
        (["convert", "faces", ".", "--force"], ".: overlaps with the source"),
        (["pack", "faces", "-o", "gone/x.rec"], "gone/x.rec: its folder does not exist (make it first)"),
        (
            ["pack", "faces", "-o", "x"],
            "x: its name does not say what to make (end it in .rec, .tar, .bin, or / for shards)",
        ),
        (
            ["pack", "faces", "-o", "x.bin"],
            "faces: not a verification set (give a .bin, .txt (LFW, CALFW or FaceX-Zoo pairs), .csv or .tsv)",
        ),
        (
            ["pack", "pairs.txt", "--images", "faces", "-o", "x.rec"],
            "pairs.txt: holds pairs, not identities (end OUT in .bin)",
        ),
        (
            ["pack", "faces", "-o", "x.tar", "--insightface-header"],
            "facekd data pack: --insightface-header is for a .rec (leave it out)",
        ),
        (
            ["pack", "faces", "-o", "x.tar", "--shard-size", "2"],
            "facekd data pack: --shard-size is for a folder of shards (end OUT in /)",
        ),
        (
            ["pack", "faces", "-o", "x.rec", "--quality", "80"],
            "facekd data pack: --quality has no meaning without --size (bytes are copied as stored)",
        ),
        (["pack", "nowhere", "-o", "x.rec"], "nowhere: no such file or folder (check the path)"),
        (["convert", "nowhere", "x"], "nowhere: no such file or folder (check the path)"),
        (["convert", "faces", "x", "--images", "faces"], "faces: an image root has no meaning for this set"),
    ],
)
def test_refusals_are_one_line_and_write_nothing(words: list[str], told: str) -> None:
    Path("full.rec").write_text("kept")
    Path("taken").mkdir()
    for name in ("property", "classes.txt"):
        Path("taken", name).write_text("kept")
    before = sorted(str(path) for path in Path().rglob("*"))
    result = run(*words)
    assert result.exit_code == 2
    assert result.output.startswith(f"facekd: error: {told}")
    assert result.output.count("\n") == 1
    assert sorted(str(path) for path in Path().rglob("*")) == before


def test_force_replaces(faces: Path) -> None:
    for name in ("x.rec", "property", "classes.txt", "x.idx", "x.sha256"):
        Path(name).write_text("old")
    assert run("pack", "faces", "-o", "x.rec", "--force").exit_code == 0
    assert len(open_identities(Path("x.rec"))) == 6
    assert run("convert", "x.rec", "out").exit_code == 0
    assert run("convert", "faces", "out").exit_code == 2
    assert run("convert", "faces", "out", "--force").exit_code == 0
    assert ImageFolder(Path("out")).sample_name(0) == "Ann/Ann_0001.png"


def test_another_option_for_unfinished_work_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes, where: str) -> np.ndarray:
        signal.raise_signal(signal.SIGTERM)
        return np.zeros((16, 12, 3), np.uint8)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "decode", decode)
        assert run("pack", "faces", "-o", "x.rec").exit_code == 143
    result = run("pack", "faces", "-o", "x.rec", "--size", "32")
    assert result.exit_code == 2
    told = "holds unfinished work with size None; this is size 32"
    fix = "repeat that command to finish it, or remove the folder"
    assert result.output == f"facekd: error: x.rec.partial: {told} ({fix})\n"


def test_a_bin_of_one_kind_goes_both_ways() -> None:
    write_bin(Path("one.bin"), [picture(1), picture(2)], [True])
    assert run("convert", "one.bin", "plain").exit_code == 0
    assert run("pack", "plain/pairs.csv", "-o", "two.bin").exit_code == 0
    assert Path("one.bin").read_bytes() == Path("two.bin").read_bytes()


def test_help_shows_an_example() -> None:
    for verb in ("pack", "convert"):
        result = run(verb, "-h")
        assert result.exit_code == 0
        assert f"facekd data {verb} " in result.output
