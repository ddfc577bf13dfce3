"""Bad inputs 104 to 124: pairs, ``.bin`` files and templates that cannot be measured on."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from bad_inputs import Case, answer, face, write_model
from ijb_folder import Layout, write_ijb

INSPECT = ["data", "inspect", "pairs.txt", "--images", "faces"]
MEASURE = ["eval", "m.safetensors", "--on", "pairs.txt", "--images", "faces", "--bootstrap", "0", "--device", "cpu"]
Make = Callable[[Path], Sequence[str]]
GENUINE = [f"p{i}\t1\t2" for i in range(3)]
IMPOSTOR = ["p0\t1\tp1\t1", "p1\t2\tp2\t1", "p2\t3\tp0\t2"]
PAIRS = [*GENUINE, *IMPOSTOR]


def people(here: Path) -> None:
    """Three people of four LFW-like images."""
    for identity in range(3):
        (here / "faces" / f"p{identity}").mkdir(parents=True)
        for sample in range(4):
            (here / "faces" / f"p{identity}" / f"p{identity}_{sample + 1:04d}.png").write_bytes(face(identity, sample))


def scored(text: str) -> Make:
    """Measuring a model on a pairs file."""

    def make(here: Path) -> Sequence[str]:
        lfw(text)(here)
        write_model(here / "m.safetensors")
        return MEASURE

    return make


def contradiction(here: Path) -> Sequence[str]:
    people(here)
    rows = ("p0/p0_0001.png,p1/p1_0001.png,1", "p1/p1_0001.png,p0/p0_0001.png,0")
    (here / "faces" / "pairs.csv").write_text("".join(f"{row}\n" for row in ("path1,path2,label", *rows)))
    return ["data", "inspect", "faces/pairs.csv"]


def lfw(text: str | bytes, *words: str) -> Make:
    """Looking at a pairs file."""

    def make(here: Path) -> Sequence[str]:
        people(here)
        (here / "pairs.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
        return words or INSPECT

    return make


def lines(*changed: str) -> str:
    return "".join(f"{line}\n" for line in [*PAIRS, *changed])


def stored(content: object) -> Make:
    """Measuring a model on a .bin."""

    def make(here: Path) -> Sequence[str]:
        write_model(here / "m.safetensors")
        data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=4)
        (here / "set.bin").write_bytes(data)
        return ["eval", "m.safetensors", "--on", "set.bin", "--device", "cpu"]

    return make


class Runs:
    """Pickles as a call of os.system."""

    def __reduce__(self) -> tuple:
        return os.system, ("touch owned",)


def measured(*words: str) -> Make:
    """Measuring a model on the good pairs, with further words."""

    def make(here: Path) -> Sequence[str]:
        people(here)
        (here / "pairs.txt").write_text(lines())
        write_model(here / "m.safetensors")
        return [*MEASURE, *words]

    return make


def templates(change: Callable[[Layout], None]) -> Make:
    """Measuring a model on an IJB folder with other lists."""

    def make(here: Path) -> Sequence[str]:
        write_ijb(here / "ijb", change)
        write_model(here / "m.safetensors")
        return ["eval", "m.safetensors", "--on", "ijb", "--allow-resize", "--cache", "out", "--device", "cpu"]

    return make


def put(name: str, at: int, text: str) -> Callable[[Layout], None]:
    def change(made: Layout) -> None:
        made.lines[name][at - 1] = text.format(*made.lines[name][at - 1].replace(",", " ").split())

    return change


IMAGES = [face(i, s, jpeg=True) for i in range(2) for s in range(2)]

CASES = [
    Case("104-empty", lfw(""), "pairs.txt: is empty"),
    Case("104-header-only", lfw("1\t3\n"), "pairs.txt: the header announces .* = 6 pairs, the file holds 0"),
    Case("105-count", lfw("1\t4\n" + lines()), "the header announces .* = 8 pairs, the file holds 6"),
    Case("106-two-fields", lfw(lines("p0\t1")), "pairs.txt:7: 2 fields"),
    Case("106-five-fields", lfw(lines("p0\t1\tp1\t1\tx")), "pairs.txt:7: 5 fields"),
    Case("106-control-characters", lfw(lines("p0\x1b[31m\t1")), r"pairs.txt:7: .*\\x1b"),
    Case("107-index-0", lfw(lines("p0\t0\t1")), "pairs.txt:7: image number '0'"),
    Case("107-negative", lfw(lines("p0\t-1\t1")), "pairs.txt:7: image number '-1'"),
    Case("107-fraction", lfw(lines("p0\t1.5\t1")), "pairs.txt:7: image number '1.5'"),
    Case("107-huge", lfw(lines("p0\t1000000000000\t1")), "pairs.txt:7: .*1000000000000"),
    Case("108-missing", lfw(lines("p0\t1\t9")), "pairs.txt: 1 image is missing: line 7: faces/p0/p0_0009"),
    Case("109-upwards", lfw(lines("../../etc/passwd\t1\t2")), "pairs.txt:7: .*upwards"),
    Case("109-absolute", lfw(lines("/etc/passwd\t1\t2")), "pairs.txt:7: name '/etc/passwd' is absolute"),
    Case("109-nul", lfw(lines("p\0\t1\t2")), "pairs.txt:7: holds a NUL byte"),
    Case("109-drive", lfw(lines("C:\\\\x\t1\t2")), "pairs.txt:7: name .* holds a backslash"),
    Case("110-one-image", scored(lines("p0\t1\t1")), "1 pairs hold the same image on both sides: 'p0/p0_0001.png'", 0),
    Case("111-twice", scored(lines("p0\t2\t1")), "pairs.txt: 1 pairs repeat an earlier pair", 0),
    Case("112-contradiction", contradiction, "pairs.csv:3: this pair is labelled the other way on line 2"),
    Case(
        "113-all-genuine",
        scored("".join(f"{line}\n" for line in GENUINE)),
        "pairs.txt: 0 impostor pairs: FPR is not defined",
    ),
    Case("114-folds", scored(lines()), "pairs.txt: 3 people are in more than one fold", 0),
    Case("115-windows", lfw(b"\xef\xbb\xbf" + lines().replace("\n", "\r\n").encode() + b"\r\n\r\n"), "images +7", 0),
    Case(
        "115-latin-1",
        lfw(lines("p\xe9\t1\t2").encode("latin-1")),
        "pairs.txt: 2 images are missing: line 7: faces/pé/pé_0001",
    ),
    Case("116-code", stored(Runs()), "set.bin: byte .*system' is refused"),
    Case("117-memo-bomb", stored(b"Nr\xff\xff\xff\x1f0."), "set.bin: byte 6: opcode POP is refused"),
    Case("118-odd-images", stored((IMAGES[:3], [True, False])), "set.bin: 3 images for 2 labels"),
    Case("118-labels", stored((IMAGES, [True, "no"])), "set.bin: label 1: "),
    Case("118-no-images", stored(([*IMAGES[:3], b"<html>"], [True, False])), "set.bin: image 3: not an image"),
    Case("120-zero", measured("--fpr", "0"), "0 is not between 0 and 1"),
    Case("120-one", measured("--fpr", "1"), "1.* is not between 0 and 1"),
    Case("120-negative", measured("--fpr", "-0.1"), "-0.1 is not between 0 and 1"),
    Case(
        "120-too-few",
        measured("--fpr", "1e-6"),
        "FPR 1e-6 refused: it needs 3,000,000 impostor pairs, the set has 3",
        0,
    ),
    Case("121-unknown-template", templates(put("pairs", 5, "{0} 4 0")), "pair_label.txt:5: template 4 has no images"),
    Case("123-label", templates(put("pairs", 5, "{0} {1} 2")), "pair_label.txt:5: label 2"),
    Case("123-negative", templates(put("pairs", 5, "{0} -5 0")), "pair_label.txt:5: template id '-5'"),
    Case(
        "123-huge",
        templates(put("pairs", 5, "1000000000000 {1} 0")),
        "pair_label.txt:5: template 1000000000000 has no images",
    ),
    Case("124-two-columns", templates(put("faces", 3, "{0} {1}")), "face_tid_mid.txt:3: 2 fields instead of 3"),
    Case("124-commas", templates(put("faces", 3, "{0},{1},{2}")), "face_tid_mid.txt:3: 1 field instead of 3"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_a_bad_set_is_told(case: Case, tmp_path: Path) -> None:
    assert answer(case, tmp_path).exit_code == case.code
