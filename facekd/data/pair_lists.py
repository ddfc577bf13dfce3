"""Lists of image pairs: LFW text files and CSV or TSV tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from facekd.data.images import shown
from facekd.data.lists import read_rows, read_text, relative_path, unsafe_path
from facekd.errors import InputError

LFW_SUFFIXES = (".jpg", ".png")
MAX_LFW_INDEX = 999_999
_LABELS = {"1": True, "true": True, "same": True, "0": False, "false": False, "different": False}
_COLUMNS = ("path1", "path2", "label")
_PAIRS_FIX = "rows are path1,path2,label[,fold]"


@dataclass
class PairList:
    """Pairs as listed, before any image is looked for.

    Attributes:
        lines: Line number of each pair.
        sides: The two images of each pair, relative to the image root and without suffix for LFW lists.
        genuine: Whether both sides show one person.
        folds: The fold of each pair, or None when the file has none.
        suffixes: What may follow a side on disk, in the order it is tried.
        warnings: What had to be assumed.
    """

    lines: list[int] = field(default_factory=list)
    sides: list[tuple[str, str]] = field(default_factory=list)
    genuine: list[bool] = field(default_factory=list)
    folds: list[int] | None = None
    suffixes: tuple[str, ...] = ("",)
    warnings: list[str] = field(default_factory=list)


def sniff_list(path: Path) -> str:
    """Whether a text list holds ``pairs`` or ``identities`` (a header with the columns path and identity).

    Raises:
        InputError: The file cannot be read as text.
    """
    if path.suffix.lower() not in (".csv", ".tsv"):
        return "pairs"
    rows, _ = read_rows(path)
    header = {name.strip().lower() for name in rows[0][1]}
    return "identities" if {"path", "identity"} <= header and "path2" not in header else "pairs"


def read_lfw_pairs(path: Path) -> PairList:
    """Read an LFW pairs file.

    Lines are ``name, i, j`` for a genuine and ``name, i, name, j`` for an impostor pair, separated by tabs. The first
    line may say ``folds, n`` (each fold: n genuine lines, then n impostor lines) or ``n`` (one such block); without
    it every line must be a pair, as in the RFW lists.

    Raises:
        InputError: Names the line: wrong number of fields, an index that is no image number, an unsafe name, a pair
            of the wrong kind for its block, or counts that differ from the header.
    """
    text, warnings = read_text(path)
    numbered = [(number, line.rstrip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    pairs = PairList(suffixes=LFW_SUFFIXES, warnings=warnings)
    header = _lfw_header(path, *numbered[0])
    for number, line in numbered[1:] if header else numbered:
        where = f"{shown(path)}:{number}"
        sides = _lfw_pair(line, where)
        pairs.lines.append(number)
        pairs.genuine.append(len(sides) == 3)
        first, second = ((sides[0], sides[1]), (sides[-2] if len(sides) == 4 else sides[0], sides[-1]))
        pairs.sides.append((_lfw_stem(*first, where), _lfw_stem(*second, where)))
        if len(sides) == 4 and sides[0] == sides[2]:
            raise InputError(where, f"an impostor pair of one person, '{shown(sides[0])}'", "write it as name, i, j")
    if header:
        _check_blocks(path, pairs, *header)
        if header[0] > 1:
            pairs.folds = [pair // (2 * header[1]) for pair in range(len(pairs.lines))]
    return pairs


def read_table_pairs(path: Path) -> PairList:
    """Read pairs from a CSV or TSV file with the columns ``path1, path2, label[, fold]``.

    With a header the columns may come in any order and others may be present; without one they come in this order.
    A label is 1, true or same for genuine and 0, false or different for impostor.

    Raises:
        InputError: Names the line: wrong number of fields, another label, a fold that is no number, an unsafe path;
            or the table is empty, is a list of identities, or has only one fold.
    """
    rows, warnings = read_rows(path)
    header_line, header = rows[0]
    names = [name.strip().lower() for name in header]
    has_header = "path1" in names or "path2" in names or {"path", "identity"} <= set(names)
    if has_header:
        absent = [column for column in _COLUMNS if names.count(column) != 1]
        if absent:
            what = f"the header '{shown(','.join(header))}' lacks {', '.join(absent)}"
            raise InputError(f"{shown(path)}:{header_line}", what, _PAIRS_FIX)
    elif len(header) not in (3, 4):
        raise InputError(f"{shown(path)}:{header_line}", f"{len(header)} fields instead of 3 or 4", _PAIRS_FIX)
    else:
        names = [*_COLUMNS, "fold"][: len(header)]
    rows = rows[1:] if has_header else rows
    if not rows:
        raise InputError(shown(path), "holds a header and no pairs")
    return _table_pairs(path, rows, names, warnings)


def _table_pairs(path: Path, rows: Sequence[tuple[int, list[str]]], names: list[str], warnings: list[str]) -> PairList:
    columns = [names.index(column) for column in _COLUMNS]
    fold_column = names.index("fold") if "fold" in names else None
    pairs = PairList(warnings=warnings, folds=None if fold_column is None else [])
    for line, fields in rows:
        where = f"{shown(path)}:{line}"
        if len(fields) != len(names):
            what = f"{len(fields)} fields instead of {len(names)}: '{shown(','.join(fields), 80)}'"
            raise InputError(where, what, _PAIRS_FIX)
        first, second, label = (fields[column] for column in columns)
        if label.strip().lower() not in _LABELS:
            raise InputError(where, f"label '{shown(label, 40)}'", f"write one of {', '.join(_LABELS)}")
        pairs.lines.append(line)
        pairs.sides.append((relative_path(first, where), relative_path(second, where)))
        pairs.genuine.append(_LABELS[label.strip().lower()])
        if pairs.folds is not None and fold_column is not None:
            pairs.folds.append(_fold(fields[fold_column].strip(), where))
    if pairs.folds and len(set(pairs.folds)) == 1:
        raise InputError(shown(path), "all pairs are in one fold", "give at least two folds, or leave the column out")
    return pairs


def _fold(text: str, where: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise InputError(where, f"fold '{shown(text, 40)}'", "write a number from 0 up")
    return int(text)


def _lfw_header(path: Path, number: int, line: str) -> tuple[int, int] | None:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) > 2 or not all(re.fullmatch(r"-?[0-9]{1,9}", field) for field in fields):
        return None
    folds, count = (int(field) for field in ["1", *fields][-2:])
    if folds < 1 or count < 1:
        raise InputError(f"{shown(path)}:{number}", f"the header '{shown(line, 40)}' counts no pairs")
    return folds, count


def _lfw_pair(line: str, where: str) -> list[str]:
    fields = [field.strip() for field in line.split("\t")]
    if len(fields) in (3, 4):
        return fields
    fix = "separate the fields with tabs" if len(line.split()) in (2, 3, 4) and len(fields) == 1 else ""
    what = f"{len(fields)} field{'s' * (len(fields) != 1)} instead of 3 (genuine) or 4 (impostor)"
    raise InputError(where, f"{what}: '{shown(line, 80)}'", fix)


def _lfw_stem(name: str, index: str, where: str) -> str:
    reason = unsafe_path(name) or ("holds a slash" if "/" in name else "is no name" if name == "." else None)
    if reason:
        raise InputError(where, f"name '{shown(name, 80)}' {reason}")
    if not re.fullmatch(r"[0-9]{1,6}", index) or not 1 <= int(index) <= MAX_LFW_INDEX:
        raise InputError(where, f"image number '{shown(index, 40)}'", f"write a whole number from 1 to {MAX_LFW_INDEX}")
    return f"{name}/{name}_{int(index):04d}"


def _check_blocks(path: Path, pairs: PairList, folds: int, count: int) -> None:
    expected = folds * 2 * count
    if len(pairs.lines) != expected:
        what = f"the header announces {folds} x ({count} genuine + {count} impostor) = {expected} pairs"
        raise InputError(shown(path), f"{what}, the file holds {len(pairs.lines)}")
    for pair, genuine in enumerate(pairs.genuine):
        if genuine != (pair % (2 * count) < count):
            kinds = ("genuine", "impostor") if genuine else ("impostor", "genuine")
            where = f"{shown(path)}:{pairs.lines[pair]}"
            raise InputError(where, f"{kinds[0]} pair where the header calls for a {kinds[1]} one")
