"""Damaged files of every format: read, or refused in one line, within bounds; and the fuzzer finds planted defects."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.fuzzed_parsers import PARSERS
from benchmarks.fuzzing import Parser, fuzz, outcome, smallest
from facekd.errors import InputError

EXECUTIONS = 100_000
"""Over all parsers, as their shares say."""

BY_NAME = {parser.name: parser for parser in PARSERS}


@pytest.mark.slow
@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_damaged_files_are_read_or_refused(parser: Parser, tmp_path: Path) -> None:
    found = fuzz(parser, tmp_path, EXECUTIONS * parser.share // 1000, seed=0)
    assert found.findings == []
    assert found.refused > 0 and found.read > 0


def test_the_shares_are_a_thousand() -> None:
    assert sum(parser.share for parser in PARSERS) == 1000


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_the_files_that_are_damaged_are_valid(parser: Parser, tmp_path: Path) -> None:
    assert {outcome(parser, tmp_path / f"a{parser.suffix}", sample) for sample in parser.samples} == {"read"}


def _records(path: Path) -> list[bytes]:
    """A small format, read with care: a length in two bytes before each value."""
    data, at, found = path.read_bytes(), 0, []
    while at < len(data):
        if at + 2 > len(data) or at + 2 + (length := struct.unpack_from("<H", data, at)[0]) > len(data):
            raise InputError(path.name, f"byte {at}: cut short")
        found.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return found


def unpacks_beyond_the_end(path: Path) -> object:
    return struct.unpack_from("<H", path.read_bytes(), 4)


def trusts_a_length(path: Path) -> object:
    return b"\1" * (struct.unpack_from("<H", path.read_bytes().ljust(2, b"\0"))[0] << 11)


def goes_round_and_round(path: Path) -> None:
    if b"\xff\xff" in path.read_bytes():
        began = time.process_time()
        while time.process_time() < began + 0.15:
            pass


def refuses_without_a_word(path: Path) -> None:
    if b"ab" not in path.read_bytes():
        error = InputError("", "")
        error.what, error.args = "", ("",)
        raise error


def runs_what_it_reads(path: Path) -> object:
    return eval(path.read_bytes()[2:4].decode("latin-1"), {"ab": 1})


def swallows_that_it_started_a_program(path: Path) -> None:
    with contextlib.suppress(Exception):
        os.system("true")


def asks_the_network(path: Path) -> None:
    socket.socket()


def unpickles(path: Path) -> object:
    return pickle.loads(b"cbuiltins\nlen\n.")


def writes_elsewhere(path: Path) -> None:
    (path.parent.parent / "elsewhere").write_bytes(path.read_bytes())


SAMPLE = b"\2\0ab\3\0cde"
DEFECTS = [
    (unpacks_beyond_the_end, "error at test_fuzzing.py"),
    (trusts_a_length, "more than 32 MB"),
    (goes_round_and_round, "more than 0.1 s"),
    (refuses_without_a_word, "an error without a line"),
    (runs_what_it_reads, "exec while it reads"),
    (swallows_that_it_started_a_program, "os.system while it reads"),
    (asks_the_network, "socket.__new__ while it reads"),
    (unpickles, "pickle.find_class while it reads"),
    (writes_elsewhere, "open outside the folder of the file while it reads"),
]


@pytest.mark.parametrize(("parse", "what"), DEFECTS, ids=lambda value: getattr(value, "__name__", value))
def test_negative_control__a_planted_defect_is_found(parse: Callable, what: str, tmp_path: Path) -> None:
    seconds = 0.1 if what.endswith(" s") else 10
    found = fuzz(Parser("planted", parse, [SAMPLE], megabytes=32, seconds=seconds), tmp_path, 100, seed=0)
    assert any(what in finding.what for finding in found.findings), found.findings


def test_what_a_reader_must_not_do_is_kept_from_happening(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    outcome(Parser("planted", writes_elsewhere, [SAMPLE]), tmp_path / "trial" / "a", SAMPLE)
    assert [path.name for path in tmp_path.iterdir()] == ["trial"]
    writes_elsewhere(tmp_path / "trial" / "a")
    assert (tmp_path / "elsewhere").read_bytes() == SAMPLE


def test_a_reader_may_write_beside_its_file_and_import_modules(tmp_path: Path) -> None:
    def reads(path: Path) -> None:
        path.with_name("beside").write_bytes(path.read_bytes())
        sys.modules.pop("colorsys", None)
        importlib.import_module("colorsys")

    assert outcome(Parser("planted", reads, [SAMPLE]), tmp_path / "a", SAMPLE) == "read"


def test_the_same_format_read_with_care_has_no_finding(tmp_path: Path) -> None:
    found = fuzz(Parser("careful", _records, [SAMPLE], seconds=0.1), tmp_path, 500, seed=0)
    assert found.findings == [] and found.read > 5 and found.refused > 50


def test_draws_follow_the_seed(tmp_path: Path) -> None:
    one, again, other = (fuzz(BY_NAME["lfw_pairs"], tmp_path, 300, seed) for seed in (1, 1, 2))
    assert (one.read, one.refused) == (again.read, again.refused) != (other.read, other.refused)


def test_a_finding_is_cut_down() -> None:
    assert smallest(b"0123456789abcdef", lambda data: b"3" in data and b"c" in data) == b"3c"


REGRESSIONS: list[tuple[str, bytes]] = [
    ("list", b","),
    ("text_pairs", b"\xa0"),
    ("text_pairs", b"\x1f1"),
    ("lfw_pairs", b"\xa0"),
    ("ijb_faces", b"\xa0"),
    ("table_pairs", b","),
    ("ijb_subjects", b","),
    ("landmarks", b","),
    (
        "png",
        b"\x89PNG\r\n\x1a\n" + b"\0\0\0\x0dIHDR\0\0\0\x10\0\0\0\x10\x08\2\0\0\0\x90\x91h6" + b"\x7f\xff\xff\xffIDAT",
    ),
]
"""The smallest file of each finding so far, by its parser."""


@pytest.mark.parametrize(("name", "data"), REGRESSIONS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(REGRESSIONS)])
def test_what_was_found_once_is_refused_or_read(name: str, data: bytes, tmp_path: Path) -> None:
    parser = BY_NAME[name]
    assert outcome(parser, tmp_path / f"a{parser.suffix}", data) in ("read", "refused")
