"""Labelled pairs: CALFW's folds hold both kinds although the file lists one after the other; FaceX-Zoo's lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekd.data.images import encode_png
from facekd.data.verification import open_verification_set
from facekd.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(60):
        (tmp_path / f"Ann B_{number:04d}.png").write_bytes(encode_png(np.full((8, 8, 3), number, np.uint8)))
    return tmp_path


def listing(folder: Path, text: str) -> Path:
    path = folder / "pairs.txt"
    path.write_text(text)
    return path


def pair(first: int, second: int, label: object = 1) -> str:
    return f"Ann B_{first:04d}.png {label}\nAnn B_{second:04d}.png {label}\n"


def test_folds_hold_a_tenth_of_each_kind(folder: Path) -> None:
    text = "".join(pair(i, i + 1, 7) for i in range(30)) + "".join(pair(i, i + 20, 0) for i in range(20))
    found = open_verification_set(listing(folder, text))
    assert found.genuine.tolist() == [True] * 30 + [False] * 20
    for fold in range(10):
        inside = found.folds == fold
        assert (found.genuine & inside).sum() == 3 and (~found.genuine & inside).sum() == 2
    assert np.flatnonzero(found.folds == 1).tolist() == [3, 4, 5, 32, 33]
    assert found.images.sample_name(0) == "Ann B_0000.png" and found.pairs[0].tolist() == [0, 1]


def test_few_pairs_get_drawn_folds_and_a_warning(folder: Path) -> None:
    found = open_verification_set(listing(folder, pair(0, 1) + pair(2, 3, 0) + pair(4, 5) + pair(6, 7, 0)))
    assert any("stratified folds were drawn" in warning for warning in found.warnings)


def test_tabs_and_crlf_are_read(folder: Path) -> None:
    text = pair(0, 1).replace(" 1\n", "\t1\r\n") + pair(2, 3, 0).replace(" 0\n", "\t0\r\n")
    assert open_verification_set(listing(folder, text)).genuine.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (pair(0, 1) + "Ann B_0002.png 0\n", "pairs.txt:3: the last pair has one line"),
        (pair(0, 1).replace("0001.png 1", "0001.png 0"), "pairs.txt:2: labels 1 and 0 in one pair"),
        (pair(0, 1) + "Ann B_0002.png\n", "pairs.txt:3: 'Ann B_0002.png' is no image and label"),
        (pair(0, 1) + "../up.png 0\nAnn B_0003.png 0\n", "pairs.txt:3"),
        (pair(0, 99) + pair(1, 2, 0), "Ann B_0099.png"),
        (pair(0, 1) + pair(2, 3), "0 impostor pairs"),
    ],
)
def test_every_fault_is_named_with_its_line(folder: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.").replace("(", r"\(")):
        open_verification_set(listing(folder, text))


def line_pair(first: int, second: int, label: object, space: str = " ") -> str:
    return f"p_{first:04d}.png{space}p_{second:04d}.PNG{space}{label}\n"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    for number in range(60):
        for suffix in ("png", "PNG"):
            (tmp_path / f"p_{number:04d}.{suffix}").write_bytes(encode_png(np.full((8, 8, 3), number, np.uint8)))
    return tmp_path


@pytest.mark.parametrize("space", [" ", "\t"])
def test_pairs_on_one_line_keep_their_order_as_folds(plain: Path, space: str) -> None:
    lines = [line_pair(2 * i, 2 * i + 1, (1, 0, 1, -1)[i % 4], space) for i in range(20)]
    found = open_verification_set(listing(plain, "\r\n".join(line.strip() for line in lines) + "\r\n\r\n"))
    assert found.genuine.tolist() == [True, False] * 10 and found.folds.tolist() == [i // 2 for i in range(20)]
    assert found.images.sample_name(int(found.pairs[3][1])) == "p_0007.PNG"
    assert not any("folds were drawn" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line_pair(0, 1, 1) + line_pair(2, 3, 2), "pairs.txt:2: 'p_0002.png p_0003.PNG 2' is no pair"),
        (line_pair(0, 1, 1) + "p_0000.png 1\n", "pairs.txt:2: 'p_0000.png 1' is no pair"),
        (line_pair(0, 1, 1) + "../p_0000.png p_0001.png 0\n", "pairs.txt:2"),
        (line_pair(0, 1, 1) + line_pair(1, 99, 0), "p_0099.PNG"),
        (line_pair(0, 1, 1), "0 impostor pairs"),
    ],
)
def test_every_fault_of_a_pair_is_named_with_its_line(plain: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace(".", r"\.")):
        open_verification_set(listing(plain, text))
