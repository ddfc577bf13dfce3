"""Pairs with labels: CALFW's and CPLFW's two lines a pair, or FaceX-Zoo's two images and a label on one line."""

from __future__ import annotations

import re
from pathlib import Path

from facekd.data.image_folder import IMAGE_SUFFIXES
from facekd.data.images import shown
from facekd.data.lists import read_text, relative_path
from facekd.data.pair_lists import PairList, read_lfw_pairs
from facekd.errors import InputError

FOLDS = 10
LINE = re.compile(r"(\S.*\S|\S)[ \t]+(-?[0-9]{1,6})")


def read_text_pairs(path: Path) -> PairList:
    """Read a text file of pairs: LFW's form, an image and a label on each line as in CALFW and CPLFW, or two images and
    a label as FaceX-Zoo lists every set.

    Raises:
        InputError: As :func:`facekd.data.pair_lists.read_lfw_pairs`, :func:`read_labelled_lines` and
            :func:`read_labelled_pairs`.
    """
    text, _ = read_text(path)
    first = next(line for line in text.split("\n") if line.strip())
    both = first.split()
    if len(both) == 3 and all(Path(image).suffix.lower() in IMAGE_SUFFIXES for image in both[:2]):
        return read_labelled_pairs(path)
    found = LINE.fullmatch(first.strip())
    labelled = found is not None and "." in found[1] and first.count("\t") < 2
    return read_labelled_lines(path) if labelled else read_lfw_pairs(path)


def read_labelled_lines(path: Path) -> PairList:
    """Read CALFW's and CPLFW's form: ``image label`` on two lines a pair; any label but 0 is a genuine pair.

    These files list all genuine pairs first. Cut in the order of the file, folds would hold one kind each; so fold k
    of 10 is the k-th tenth of the genuine pairs and the k-th tenth of the impostor pairs, as the sets are meant.

    Raises:
        InputError: Names the line: another form, an unsafe path, two labels in one pair, or a line left over.
    """
    text, warnings = read_text(path)
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    pairs = PairList(warnings=warnings)
    for both in (lines[at : at + 2] for at in range(0, len(lines), 2)):
        images, labels = zip(*(_line(path, *line) for line in both), strict=True)
        where = f"{shown(path)}:{both[-1][0]}"
        if len(both) == 1:
            raise InputError(where, "the last pair has one line", "give two lines a pair: image and label")
        if bool(labels[0]) != bool(labels[1]):
            raise InputError(where, f"labels {labels[0]} and {labels[1]} in one pair", "repeat the pair's label")
        pairs.lines.append(both[0][0])
        pairs.sides.append(images)
        pairs.genuine.append(bool(labels[0]))
    counts = [pairs.genuine.count(False), pairs.genuine.count(True)]
    seen, folds = [0, 0], []
    for genuine in pairs.genuine:
        folds.append(seen[genuine] * FOLDS // counts[genuine])
        seen[genuine] += 1
    if min(counts) >= FOLDS:
        pairs.folds = folds
    return pairs


def read_labelled_pairs(path: Path) -> PairList:
    """Read FaceX-Zoo's form: ``image image label`` on each line, 1 for a genuine pair, 0 or -1 for any other.

    Raises:
        InputError: Names the line: another form, another label, or an unsafe path.
    """
    text, warnings = read_text(path)
    pairs = PairList(warnings=warnings)
    for number, line in enumerate(text.split("\n"), 1):
        fields, where = line.split(), f"{shown(path)}:{number}"
        if not fields:
            continue
        if len(fields) != 3 or fields[2] not in ("1", "0", "-1"):
            what = f"'{shown(line.strip(), 80)}' is no pair of images and its label"
            raise InputError(
                where, what, "write: one.jpg other.jpg 1, or 0 for two people; paths with spaces need .csv"
            )
        pairs.lines.append(number)
        pairs.sides.append((relative_path(fields[0], where), relative_path(fields[1], where)))
        pairs.genuine.append(fields[2] == "1")
    return pairs


def _line(path: Path, number: int, line: str) -> tuple[str, int]:
    where = f"{shown(path)}:{number}"
    found = LINE.fullmatch(line)
    if found is None:
        raise InputError(where, f"'{shown(line, 80)}' is no image and label", "write: name.jpg 1")
    return relative_path(found[1], where), int(found[2])
