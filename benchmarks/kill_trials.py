"""Runs and exports killed, starved of disk, stopped or poisoned, each compared bit for bit with an unbroken one."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from benchmarks.arena import Arena, Prepare, last_line, records, strays
from benchmarks.killing import Trap, arm, ended
from benchmarks.outcome import Outcome
from benchmarks.planted import PLACES, poison
from benchmarks.rot import WAYS, damage_newest
from facekd.engine.training.checkpoint import any_finished, load_checkpoint

NON_FINITE, DISK = 4, 5
"""Exit codes of a value that is not finite, and of a full disk."""
ANSWER = 5.0
"""Seconds within which a signal is to be answered."""
LEAST_FILE = 4096
"""Bytes that the process has for its own last words, whatever else it may not write."""
TRIES = 20
"""How often a signal is sent to runs that had ended by then, sooner each time."""
CLOCKS = 200
"""Bytes by which runs may differ: the digits of their clocks."""


class Broken(Protocol):
    """What is begun, broken and gone on with: runs, or exports.

    Attributes:
        events: Of an unbroken one.
        bits: What an unbroken one leaves.
    """

    events: int
    bits: str

    def new_run(self) -> Path:
        """Where another may go."""

    def begin(self, out: Path, prepare: Prepare | None = None) -> int:
        """Start or go on, as a user would; the process number."""

    def bits_of(self, out: Path) -> str:
        """What one left."""


Break = Callable[[Path, Outcome], str | None]
"""Starts or goes on with a run and breaks it; answers what was wrong, if anything."""


def tried(arena: Broken, trials: Sequence[Sequence[Break]]) -> Outcome:
    """Break runs, finish each, and compare it with the unbroken one."""
    outcome = Outcome()
    for trial in trials:
        out = arena.new_run()
        outcome.trials += 1
        wrong = [told for one in trial if (told := one(out, outcome)) is not None]
        code = ended(arena.begin(out))
        if code:
            outcome.unresumable += 1
            wrong.append(f"could not be resumed: exit code {code}: {last_line(out)}")
        elif arena.bits_of(out) != arena.bits:
            wrong.append("ended with other bits")
        elif strays(out.parent):
            wrong.append(f"left {strays(out.parent)}")
        outcome.identical += not wrong
        outcome.wrong += wrong
        shutil.rmtree(out.parent)
    return outcome


def struck(arena: Broken, event: int = 0, *, near: str = "", number: int = signal.SIGKILL) -> Break:
    """A break: gets a signal at an event of its own, or at the first one near a path."""

    def one(out: Path, outcome: Outcome) -> str | None:
        told = out.parent / "struck.txt"
        told.unlink(missing_ok=True)
        trap = Trap(str(out.parent), at=event, near=near, number=number, told=str(told))
        code = ended(arena.begin(out, lambda: arm(trap)))
        after = time.monotonic()
        if not told.exists():
            return None if code == 0 else f"exit code {code}: {last_line(out)}"
        return answered(out, code, number, after - float(told.read_text()), outcome)

    return one


def signalled(arena: Broken, after: float, number: int) -> Break:
    """A break: gets a signal so many seconds after it began; sooner where it has ended by then."""

    def one(out: Path, outcome: Outcome) -> str | None:
        for tries in range(TRIES):
            process = arena.begin(out)
            time.sleep(after * 0.7**tries)
            sent = time.monotonic()
            os.kill(process, number)
            code = ended(process)
            if code:
                return answered(out, code, number, time.monotonic() - sent, outcome)
            shutil.rmtree(out)
        return f"ended {TRIES} times without an answer to signal {number}"

    return one


def answered(out: Path, code: int, number: int, seconds: float, outcome: Outcome) -> str | None:
    """What is wrong with how a signal was answered, if anything.

    Args:
        out: The run.
        code: How it ended.
        number: The signal.
        seconds: From the one to the other.
        outcome: Remembers the slowest.
    """
    if number == signal.SIGKILL:
        return None if code == -number else f"exit code {code}: {last_line(out)}"
    outcome.slowest = max(outcome.slowest, seconds)
    begun, done = (out / "recipe.yaml").exists(), code == 0 or (out / "student.safetensors").exists()
    if seconds > ANSWER:
        return f"signal {number} was answered after {seconds:.1f} s"
    if code not in (0, 128 + number) and not (code == -number and (done or not begun)):
        return f"signal {number} ended it with exit code {code}: {last_line(out)}"
    measured = records(out) if (out / "metrics.jsonl").exists() else []
    steps = [record["step"] for record in measured if "terms" in record]
    if code == 128 + number and steps and load_checkpoint(out / "checkpoints")[0].step < steps[-1]:
        return f"signal {number} lost what was done up to step {steps[-1]}"
    return None


def starved_of(arena: Broken, room: int) -> Break:
    """A break: the disk is full after so many bytes."""

    return _refused(arena, lambda out: lambda: arm(Trap(str(out.parent), room=room)), "No space left")


def limited_to(arena: Broken, size: int) -> Break:
    """A break: the system lets no file grow beyond so many bytes."""
    return _refused(
        arena, lambda out: lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)), "File too large"
    )


def _refused(arena: Broken, prepare: Callable[[Path], Prepare], told: str) -> Break:
    def one(out: Path, outcome: Outcome) -> str | None:
        code = ended(arena.begin(out, prepare(out)))
        if code != DISK:
            return f"exit code {code} where nothing more can be written: {last_line(out)}"
        if told not in last_line(out):
            return f"a full disk is told as: {last_line(out)}"
        return f"left {strays(out.parent)}" if strays(out.parent) else None

    return one


def damaged_at(arena: Broken, event: int, kind: str, seed: int) -> Break:
    """A break: killed at an event, and the newest checkpoint is damaged before anybody goes on."""
    kill = struck(arena, event)

    def one(out: Path, outcome: Outcome) -> str | None:
        wrong = kill(out, outcome)
        found = sorted((out / "checkpoints").glob("step-*.safetensors"))
        if wrong is None and len(found) > 1:
            damage_newest(found, kind, seed)
        return wrong

    return one


def poisoned_at(arena: Broken, place: str, step: int, value: float) -> Break:
    """A break: a value that is not finite turns up somewhere in a step."""

    def one(out: Path, outcome: Outcome) -> str | None:
        code = ended(arena.begin(out, lambda: poison(place, step, value)))
        told, checkpoints = last_line(out), out / "checkpoints"
        if code != NON_FINITE or not re.search(PLACES[place].told, told):
            return f"{value} in the {place} at step {step}: exit code {code}: {told}"
        kept = load_checkpoint(checkpoints)[0].step if any_finished(checkpoints) else 0
        return f"{value} in the {place} at step {step}: step {kept} was kept" if kept > step else None

    return one


def swept(arena: Broken, count: int, number: int = signal.SIGKILL, part: tuple[float, float] = (0.0, 1.0)) -> list:
    """Runs struck at events spread evenly over a part of all there are."""
    first, last = (round(share * arena.events) for share in part)
    return [[struck(arena, event, number=number)] for event in np.linspace(max(1, first), last, count).astype(int)]


def sent(arena: Arena, count: int, number: int = signal.SIGKILL, seed: int = 0) -> list:
    """Runs that get a signal at a drawn time."""
    draw = random.Random(f"{seed} {number}")
    return [[signalled(arena, draw.uniform(0, arena.seconds), number)] for _ in range(count)]


def killed_five_times(arena: Arena, count: int, seed: int = 0) -> list:
    """Runs killed while they resume, at the end of an epoch, and thrice at drawn events."""
    draw, trials = random.Random(seed), []
    for _ in range(count):
        breaks = [struck(arena, draw.randint(1, arena.events // 2)) for _ in range(3)]
        breaks.insert(draw.randint(1, 3), struck(arena, draw.randint(1, 12)))
        breaks.insert(draw.randint(0, 4), struck(arena, near="snapshots"))
        trials.append(breaks)
    return trials


def starved(arena: Arena, count: int) -> list:
    """Runs whose disk is full after so many bytes, spread evenly over all that are written."""
    most = arena.bytes - CLOCKS
    return [[starved_of(arena, room)] for room in np.linspace(0, most, count).astype(int).tolist()]


def limited(arena: Arena, count: int) -> list:
    """Runs that may write no file beyond so many bytes, spread evenly up to the size of the largest."""
    most = max(path.stat().st_size for path in arena.whole.rglob("*") if path.is_file())
    return [[limited_to(arena, size)] for size in np.linspace(LEAST_FILE, most - 1, count).astype(int).tolist()]


def rotted(arena: Arena, count: int) -> list:
    """Runs killed late, whose newest checkpoint is then damaged in one of the ways in turn."""
    events, kinds = np.linspace(0.6 * arena.events, arena.events, count).astype(int).tolist(), list(WAYS)
    return [[damaged_at(arena, event, kinds[n % len(kinds)], n)] for n, event in enumerate(events)]


def poisoned(arena: Arena, count: int, steps: int = 8) -> list:
    """Runs in which NaN or an infinity turns up: every place in turn, at steps and with values in turn."""
    values, names = (float("nan"), float("inf"), -float("inf")), list(PLACES)
    each = [(names[n % len(names)], n // len(names), n) for n in range(count)]
    rounds = max(2, -(-count // len(names)))
    return [
        [poisoned_at(arena, name, (steps - 1) * turn // (rounds - 1), values[(n + turn) % 3])] for name, turn, n in each
    ]
