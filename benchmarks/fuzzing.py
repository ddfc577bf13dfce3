"""A mutation fuzzer: valid files of a format damaged at random, and what a parser makes of them.

Every execution must end in a value or in one of facekd's own errors of one line, within bounds of processor time and
memory, and start no program, run no code, open no connection and write nowhere else (see `benchmarks.heard`). Draws
follow a seed, so a finding can be made again; it is then cut down to the smallest file that still shows it.
"""

from __future__ import annotations

import os
import random
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.heard import heard, listen
from facekd.errors import FacekdError

NUMBERS = (0, 1, 2, 4, 7, 8, 255, 256, 65535, 2**29 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
WORDS = (b"-1", b"0", b"1e999", b"nan", b"1.5", b"99999999999999999999", b"../x", b"/x", b"\0", b"\xff", b"\r", b"\n")
MOST_BYTES = 1 << 20
PEAK_HELD = 64
"""Executions after which the peak of memory is measured anew, which takes as long as a small file."""
AGAIN = 2
"""Times that a file is read once more before it is called slow: the machine, too, can be slow for a moment."""


@dataclass(frozen=True)
class Parser:
    """A reader of files of one format.

    Attributes:
        name: What it is called in the record.
        parse: Reads a file.
        samples: Valid files.
        suffix: Of their names.
        pieces: Words of the format, which mutations insert.
        share: Executions of a thousand that it gets; quick ones get more.
        megabytes: Memory one file may take.
        seconds: Processor time one file may take.
    """

    name: str
    parse: Callable[[Path], object]
    samples: Sequence[bytes]
    suffix: str = ""
    pieces: Sequence[bytes] = ()
    share: int = 50
    megabytes: int = 64
    seconds: float = 0.05


@dataclass
class Finding:
    """A file that a parser does not stand.

    Attributes:
        parser: Its name.
        what: The error or bound.
        data: The file, cut down.
    """

    parser: str
    what: str
    data: bytes


@dataclass
class Tally:
    """What came out of the executions of one parser."""

    read: int = 0
    refused: int = 0
    findings: list[Finding] = field(default_factory=list)


def _number(data: bytearray, draw: random.Random) -> None:
    """A number, of digits or of bytes, becomes another."""
    digits = list(re.finditer(rb"\d+", data))
    if digits and draw.random() < 0.5:
        found = draw.choice(digits)
        data[found.start() : found.end()] = draw.choice(WORDS) if draw.random() < 0.4 else b"%d" % draw.choice(NUMBERS)
        return
    size = draw.choice((1, 2, 4, 8))
    at = draw.randrange(len(data) + 1)
    order = draw.choice(("little", "big"))
    value = draw.choice(NUMBERS) % (1 << 8 * size)
    data[at : at + size] = value.to_bytes(size, "little" if order == "little" else "big")


def _lines(data: bytearray, draw: random.Random) -> None:
    """Lines of text change places, are lost or repeat."""
    lines = bytes(data).split(b"\n")
    one, other = draw.randrange(len(lines)), draw.randrange(len(lines))
    if draw.random() < 0.4:
        lines[one], lines[other] = lines[other], lines[one]
    elif draw.random() < 0.5:
        del lines[one]
    else:
        lines.insert(other, lines[one])
    data[:] = b"\n".join(lines)


def mutated(parser: Parser, draw: random.Random) -> bytes:
    """One of the parser's samples with one to four changes."""
    data = bytearray(draw.choice(parser.samples))
    for _ in range(draw.randint(1, 4)):
        at, kind = draw.randrange(len(data) + 1), draw.randrange(9)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1 and at < len(data):
            data[at] = draw.randrange(256)
        elif kind == 2:
            del data[at : at + draw.randint(1, 16)]
        elif kind == 3:
            data[at:at] = data[at : at + draw.randint(1, 64)] * draw.choice((1, 1, 1, 20))
        elif kind == 4 and parser.pieces:
            data[at:at] = draw.choice(parser.pieces)
        elif kind == 5:
            other = draw.choice(parser.samples)
            data[at:] = other[draw.randrange(len(other) + 1) :]
        elif kind == 6:
            _lines(data, draw)
        elif kind == 7 and draw.random() < 0.3:
            del data[at:]
        else:
            _number(data, draw)
    return bytes(data[:MOST_BYTES])


def _forget_peak() -> None:
    """Let the system measure the peak from here on, where it can: a larger one before would hide this one."""
    try:
        with open("/proc/self/clear_refs", "w") as stream:
            stream.write("5")
    except OSError:
        return


def _peak() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def outcome(parser: Parser, path: Path, data: bytes) -> str:
    """``read``, ``refused``, or what is wrong with how the parser takes a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(file, data)
    os.close(file)
    before = _peak()
    told, seconds = _timed(parser, path)
    if _peak() - before > parser.megabytes << 20:
        return f"more than {parser.megabytes} MB"
    if seconds > parser.seconds and all(_timed(parser, path)[1] > parser.seconds for _ in range(AGAIN)):
        return f"more than {parser.seconds} s"
    return told


def _timed(parser: Parser, path: Path) -> tuple[str, float]:
    """How the parser takes a file, and the processor time of that."""
    listen(path)
    began = time.process_time()
    try:
        parser.parse(path)
        told = "read"
    except FacekdError as error:
        told = "refused" if error.lines and all(error.lines) else "an error without a line"
    except Exception as error:
        told = f"{type(error).__name__} at {_place(error)}"
    seconds = time.process_time() - began
    events = heard()
    return f"{events[0]} while it reads" if events else told, seconds


def _place(error: Exception) -> str:
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else ""


def smallest(data: bytes, holds: Callable[[bytes], bool]) -> bytes:
    """The file with as much cut out as leaves ``holds`` true.

    Example:
        >>> smallest(b"some bytes with an X in them", lambda data: b"X" in data)
        b'X'
    """
    size = len(data) // 2
    while size:
        at = 0
        while at < len(data):
            shorter = data[:at] + data[at + size :]
            if holds(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


def fuzz(parser: Parser, folder: Path, executions: int, seed: int) -> Tally:
    """Damage and parse so many files; each kind of finding is kept once, cut down.

    Args:
        parser: What to try.
        folder: Where to write the files; best one in memory.
        executions: How many.
        seed: Of the draws.
    """
    tally, draw = Tally(), random.Random(f"{seed} {parser.name}")
    path = folder / f"{parser.name}{parser.suffix}"
    for number in range(executions):
        if number % PEAK_HELD == 0:
            _forget_peak()
        data = mutated(parser, draw)
        told = outcome(parser, path, data)
        if told == "read":
            tally.read += 1
        elif told == "refused":
            tally.refused += 1
        elif all(finding.what != told for finding in tally.findings):
            held = (
                data
                if told.startswith("more")
                else smallest(data, lambda d, told=told: outcome(parser, path, d) == told)
            )
            tally.findings.append(Finding(parser.name, told, held))
    return tally
