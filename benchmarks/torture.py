"""How much a run and its readers stand: kills, full disks, signals, rot, values that are not finite, damaged files.

A tiny distillation is broken, finished, and compared in every tensor and record with an unbroken one; negative controls
train with planted defects and must not end alike. Valid files of every format that facekd reads itself are damaged.
``--scale`` multiplies the number of trials and executions. Linux, CPU; two processes share the work.

    python -m benchmarks.torture --out benchmarks/results/torture.json
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks import kill_trials, planted, rot
from benchmarks.arena import Arena, Prepare
from benchmarks.exported import Exports
from benchmarks.fuzzed_parsers import PARSERS
from benchmarks.fuzzing import Parser, Tally, fuzz
from benchmarks.kill_trials import Break, Broken, tried
from benchmarks.outcome import Outcome
from benchmarks.record import hand_over, surroundings

EXECUTIONS = 5_000_000
LANES = 2
PIECE = 10
"""Trials that are handed to a lane at once."""
MIDDLE = (0.3, 0.8)
"""The events of a run between its first checkpoint and its last: a defect of what a checkpoint holds shows there."""
CONTROLS: dict[str, Prepare] = {
    "draws come from the process": planted.draws_from_the_process,
    "the order begins again": planted.begins_the_order_again,
    "the optimizer is forgotten": planted.forgets_the_optimizer,
    "one file, in place": planted.writes_in_place,
}
IN_PLACE = "one file, in place"
ROT = {"flipped": 10_000, "cut": 1000, "blanked": 500, "swapped": 50}


@dataclass(frozen=True)
class Kind:
    """Trials of one kind.

    Attributes:
        name: What is done.
        arena: To what.
        trials: How each is broken.
        control: Whether a defect is planted.
    """

    name: str
    arena: Broken
    trials: list[Sequence[Break]]
    control: bool = False


def kinds(arena: Arena, scale: float) -> Iterator[Kind]:
    """What is done to runs and exports."""

    def count(most: int) -> int:
        return max(2, round(most * scale))

    yield Kind("killed at a swept event", arena, kill_trials.swept(arena, count(250)))
    yield Kind("killed at a drawn time", arena, kill_trials.sent(arena, count(250)))
    yield Kind("killed five times", arena, kill_trials.killed_five_times(arena, count(100)))
    yield Kind("SIGTERM at a swept event", arena, kill_trials.swept(arena, count(50), signal.SIGTERM))
    yield Kind("SIGINT at a drawn time", arena, kill_trials.sent(arena, count(30), signal.SIGINT))
    yield Kind("disk full after a swept byte", arena, kill_trials.starved(arena, count(70)))
    yield Kind("files no larger than a swept size", arena, kill_trials.limited(arena, count(30)))
    yield Kind("killed, newest checkpoint damaged", arena, kill_trials.rotted(arena, count(100)))
    yield Kind("NaN or an infinity", arena, kill_trials.poisoned(arena, count(60)))
    half = arena.with_training(precision="bf16")
    yield Kind("NaN or an infinity in bf16", half, kill_trials.poisoned(half, count(len(planted.PLACES))))
    exports = Exports(arena)
    yield Kind("export killed at a swept event", exports, kill_trials.swept(exports, count(30)))
    yield Kind("export, SIGTERM at a swept event", exports, kill_trials.swept(exports, count(20), signal.SIGTERM))
    for workers in (1, 2):
        other, plural = arena.with_training(workers=workers), "" if workers == 1 else "es"
        yield Kind(f"killed with {workers} loading process{plural}", other, kill_trials.sent(other, count(30)))
    for name, defect in CONTROLS.items():
        other = arena.with_defect(defect)
        yield Kind(name, other, kill_trials.swept(other, max(4, count(12)), part=MIDDLE), control=True)


def measure(scale: float, seed: int, folder: Path) -> dict[str, Any]:
    """Everything, by two processes.

    Raises:
        RuntimeError: The unbroken run learns too little for a difference to show.
    """
    began = time.perf_counter()
    arena = Arena(folder / "arena")
    if not arena.learns():
        raise RuntimeError("the run that is broken hardly learns, and would end alike whatever it lost")
    asked = list(kinds(arena, scale))
    files = [partial(damage_files, parser, folder, round(EXECUTIONS * scale), seed) for parser in PARSERS]
    rots = [partial(_rot, arena, kind, max(2, round(most * scale)), seed) for kind, most in ROT.items()]
    pieces = [(kind, kind.trials[at : at + PIECE]) for kind in asked for at in range(0, len(kind.trials), PIECE)]
    broken = [partial(tried, kind.arena, piece) for kind, piece in pieces]
    tallies, rotten, outcomes = _parted(shared([*files, *rots, *broken]), len(files), len(rots))
    runs = {kind.name: (Outcome(), kind.control) for kind in asked}
    for (kind, _), outcome in zip(pieces, outcomes, strict=True):
        runs[kind.name][0].add(outcome)
    runs |= {f"newest checkpoint {kind}": (outcome, False) for kind, outcome in zip(ROT, rotten, strict=True)}
    return {
        "benchmark": "torture",
        "command": "python -m benchmarks.torture",
        "seeds": [seed],
        "scale": scale,
        **surroundings("torch", "numpy", "safetensors"),
        "cores": os.cpu_count(),
        "runs": [_row(name, *told, folder) for name, told in runs.items()],
        "files": [_file_row(parser, tally) for parser, tally in zip(PARSERS, tallies, strict=True)],
        "seconds": round(time.perf_counter() - began),
    }


def _parted(found: list[Any], first: int, second: int) -> tuple[list[Any], list[Any], list[Any]]:
    return found[:first], found[first : first + second], found[first + second :]


_jobs: list[Callable[[], Any]] = []


def shared(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """What each job answers; two forked processes take them in turn."""
    _jobs[:] = jobs
    gc.freeze()  # children need not look through what was imported here, nor copy it
    with ProcessPoolExecutor(LANES, get_context("fork")) as pool:
        return list(pool.map(_job, range(len(jobs))))


def _job(place: int) -> Any:
    return _jobs[place]()


def damage_files(parser: Parser, folder: Path, executions: int, seed: int) -> Tally:
    """Damaged files of one format; libjpeg and libpng say on stderr what they think of each, which nobody reads."""
    with _silenced(), tempfile.TemporaryDirectory(dir=folder) as place:
        return fuzz(parser, Path(place), max(20, executions * parser.share // 1000), seed)


@contextmanager
def _silenced() -> Iterator[None]:
    kept = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _rot(arena: Arena, kind: str, count: int, seed: int) -> Outcome:
    folder = arena.new_run().parent / "checkpoints"
    shutil.copytree(arena.whole / "checkpoints", folder)
    return rot.damaged(folder, kind, count, seed)


def _row(name: str, found: Outcome, control: bool, folder: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"what": name, "trials": found.trials, "identical": found.identical, "control": control}
    if control:
        row["unresumable"] = found.unresumable
    if found.slowest:
        row["slowest_answer_seconds"] = round(found.slowest, 2)
    return row | {"wrong": [line.replace(f"{folder}/", "") for line in found.wrong[:5]]}


def _file_row(parser: Parser, found: Tally) -> dict[str, Any]:
    findings = [{"what": one.what, "file": one.data[:400].hex()} for one in found.findings]
    return {"reader": parser.name, "read": found.read, "refused": found.refused, "findings": findings}


def failed(record: dict[str, Any]) -> list[str]:
    """What in a record should not be: a trial with other bits, a finding, a control that ended too well."""
    bad = []
    for row in record["runs"]:
        if row["what"] == IN_PLACE:
            fine = row["unresumable"] > 0
        elif row["control"]:
            fine = 2 * row["identical"] < row["trials"]
        else:
            fine = row["trials"] == row["identical"]
        bad += [] if fine else [row["what"]]
    return bad + [row["reader"] for row in record["files"] if row["findings"]]


def main(words: Sequence[str] | None = None) -> int:
    """The command; exit code 1 where something did not stand it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trials and executions")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        record = measure(given.scale, given.seed, Path(folder))
    hand_over(record, given.out)
    for what in failed(record):
        print(f"does not stand: {what}", file=sys.stderr)
    return 1 if failed(record) else 0


if __name__ == "__main__":
    sys.exit(main())
