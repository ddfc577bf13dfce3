"""How much a run and its readers stand: kills, full disks, signals, rot, and damaged files.

The first lane breaks a tiny distillation, finishes it and compares every tensor and record with an unbroken run; its
negative controls train with planted defects and must not end alike. The second damages valid files of every format
that facekd reads itself. ``--scale`` multiplies the number of trials and executions. Linux, CPU; the two lanes run
beside each other.

    python -m benchmarks.torture --out benchmarks/results/torture.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import facekd
from benchmarks import kill_trials
from benchmarks.fuzzed_parsers import PARSERS
from benchmarks.fuzzing import fuzz
from benchmarks.kill_trials import Arena, Outcome
from benchmarks.record import hand_over

EXECUTIONS = 5_000_000
CONTROLS = {
    "the optimizer is forgotten": kill_trials.forgets_the_optimizer,
    "one file, in place": kill_trials.writes_in_place,
}


def trials(scale: float) -> list[tuple[str, int, Callable[[Arena], Outcome]]]:
    """What is done to runs: its name, the loading processes of the run, and how."""

    def count(most: int) -> int:
        return max(2, round(most * scale))

    return [
        ("killed at a swept event", 0, lambda arena: kill_trials.swept(arena, count(250))),
        ("killed at a drawn time", 0, lambda arena: kill_trials.sent(arena, signal.SIGKILL, count(150))),
        ("killed five times", 0, lambda arena: kill_trials.killed_often(arena, count(40), 5)),
        ("disk full after a swept byte", 0, lambda arena: kill_trials.starved(arena, count(60))),
        ("SIGTERM at a drawn time", 0, lambda arena: kill_trials.sent(arena, signal.SIGTERM, count(40))),
        ("SIGINT at a drawn time", 0, lambda arena: kill_trials.sent(arena, signal.SIGINT, count(20))),
        ("killed with 1 loading process", 1, lambda arena: kill_trials.sent(arena, signal.SIGKILL, count(30))),
        ("killed with 2 loading processes", 2, lambda arena: kill_trials.sent(arena, signal.SIGKILL, count(30))),
        ("newest checkpoint damaged", 0, lambda arena: kill_trials.damaged(arena, count(10_000), count(1000))),
    ]


def break_runs(folder: Path, scale: float) -> list[dict[str, Any]]:
    """The first lane: a row for each kind of break, then one for each planted defect."""
    arena, rows = Arena(folder / "arena"), []
    broken = {0: arena, **{workers: arena.with_workers(workers) for workers in (1, 2)}}
    for name, workers, run in trials(scale):
        rows.append(_row(name, run(broken[workers]), control=False))
    for name, defect in CONTROLS.items():
        rows.append(_row(name, kill_trials.control(arena, defect, max(6, round(24 * scale))), control=True))
    return rows


def _row(name: str, found: Outcome, *, control: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"what": name, "trials": found.trials, "identical": found.identical, "control": control}
    if found.slowest:
        row["slowest_answer_seconds"] = round(found.slowest, 2)
    return row | {"wrong": found.wrong[:5]}


def damage_files(folder: Path, executions: int, seed: int) -> list[dict[str, Any]]:
    """The second lane: a row for each reader."""
    rows = []
    for parser in PARSERS:
        found = fuzz(parser, folder, max(20, executions * parser.share // 100), seed)
        findings = [{"what": one.what, "file": one.data[:400].hex()} for one in found.findings]
        rows.append({"reader": parser.name, "read": found.read, "refused": found.refused, "findings": findings})
    return rows


def measure(scale: float, seed: int, folder: Path) -> dict[str, Any]:
    """Both lanes beside each other; the files of the second are damaged in a process of its own."""
    words = [sys.executable, "-m", "benchmarks.torture", "--only-files", "--scale", str(scale), "--seed", str(seed)]
    began, told = time.perf_counter(), folder / "files.json"
    with open(folder / "noise.txt", "wb") as noise:  # libjpeg and libpng say on stderr what they think of each file
        lane = subprocess.Popen([*words, "--out", str(told)], stdout=noise, stderr=noise)
    runs = break_runs(folder, scale)
    if lane.wait():
        raise RuntimeError((folder / "noise.txt").read_text(errors="replace")[-2000:])
    return {
        "benchmark": "torture",
        "command": "python -m benchmarks.torture",
        "seeds": [seed],
        "scale": scale,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.platform()},
        "versions": {
            "facekd": facekd.__version__,
            **{name: version(name) for name in ("torch", "numpy", "safetensors")},
        },
        "runs": runs,
        "files": rows_of(told),
        "seconds": round(time.perf_counter() - began),
    }


def rows_of(path: Path) -> list[dict[str, Any]]:
    """What the second lane handed over."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["files"]
    return rows


def failed(record: dict[str, Any]) -> list[str]:
    """What in a record should not be: a trial with other bits, a finding, a control that ended well."""
    bad = [row["what"] for row in record["runs"] if (row["trials"] == row["identical"]) == row["control"]]
    return bad + [row["reader"] for row in record["files"] if row["findings"]]


def main(words: Sequence[str] | None = None) -> int:
    """The command; exit code 1 where something did not stand it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="the JSON file to write")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the trials and executions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-files", action="store_true", help="the second lane alone")
    given = parser.parse_args(words)
    memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        if given.only_files:
            rows = damage_files(Path(folder), round(EXECUTIONS * given.scale), given.seed)
            hand_over({"files": rows}, given.out)
            return 0
        record = measure(given.scale, given.seed, Path(folder))
    hand_over(record, given.out)
    return 1 if failed(record) else 0


if __name__ == "__main__":
    sys.exit(main())
