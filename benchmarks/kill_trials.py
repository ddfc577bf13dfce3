"""Runs that are killed, starved of disk, stopped or damaged, each compared bit for bit with one that was not.

Reason for length: an arena and the trials in it, which share its private parts.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from benchmarks.killing import Trap, arm, ended, fork
from facekd.data.images import encode_png
from facekd.engine.training import checkpoint, trainer
from facekd.engine.training.checkpoint import load_checkpoint
from facekd.errors import CheckpointError
from facekd.recipe import Recipe, load_recipe

SIDE = 32
DISK = 5
"""Exit code of a full disk."""

Prepare = Callable[[], object]


@dataclass
class Outcome:
    """What came of the trials of one kind.

    Attributes:
        trials: How many.
        identical: Those that ended with the bits of the unbroken run.
        wrong: What happened to the others, or was said that should not be.
        slowest: Seconds of the slowest answer to a signal.
    """

    trials: int = 0
    identical: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0


class Arena:
    """A tiny distillation on a few drawn patterns: its data, its teacher, and its unbroken run.

    Args:
        folder: Where to work.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log.txt"
        _write_faces(self.folder / "faces")
        teacher, student = _recipes(self.folder)
        self.teacher = _loaded(self.folder / "teacher.yaml", teacher)
        self.recipe = _loaded(self.folder / "student.yaml", student)
        self.broken = self.recipe
        self._warm()
        begun = time.perf_counter()
        assert_done(self._start(self.recipe, self.folder / "whole" / "run"), self.log)
        self.seconds = time.perf_counter() - begun
        self.bits = bits(self.folder / "whole" / "run")
        counted = self.folder / "counted" / "run"
        self.events, self.bytes, self.kinds = self._count(counted)
        shutil.rmtree(counted.parent)

    def with_workers(self, workers: int) -> Arena:
        """The same with loading processes in the runs that are broken."""
        other = copy(self)
        recipe = self.recipe.train.model_copy(update={"workers": workers})
        other.broken = self.recipe.model_copy(update={"train": recipe})
        return other

    def _warm(self) -> None:
        """Train the teacher, and import here what that took, so that no child has to."""
        names = self.folder / "modules.txt"

        def run() -> None:
            torch.set_num_threads(1)
            trainer.train(self.teacher, self.folder / "teacher", device="cpu")
            trainer.train(self.recipe, self.folder / "first" / "run", device="cpu")
            names.write_text("\n".join(sys.modules))

        (self.folder / "first").mkdir()
        assert_done(fork(run, self.log), self.log)
        for name in names.read_text().split():
            with suppress(Exception):
                importlib.import_module(name)

    def _start(self, recipe: Recipe, out: Path, prepare: Prepare | None = None, **options: bool) -> int:
        out.parent.mkdir(exist_ok=True)

        def run() -> None:
            torch.set_num_threads(1)
            if prepare is not None:
                prepare()
            trainer.train(recipe, out, device="cpu", **options)

        return fork(run, self.log)

    def _count(self, out: Path) -> tuple[int, int, dict[str, int]]:
        """Events and bytes of an unbroken run, by kind."""
        trap = Trap(str(out.parent))
        told = self.folder / "events.json"

        def run() -> None:
            torch.set_num_threads(1)
            arm(trap)
            trainer.train(self.broken, out, device="cpu")
            told.write_text(json.dumps([trap.events, trap.written, trap.seen]))

        out.parent.mkdir(exist_ok=True)
        assert_done(fork(run, self.log), self.log)
        events, written, seen = json.loads(told.read_text())
        return events, written, seen

    def begin(self, out: Path, prepare: Prepare | None = None) -> int:
        """Start or go on with a broken run, as a user would; the process number."""
        return self._start(self.broken, out, prepare, resume=(out / "recipe.yaml").exists())

    def trial(self, number: int, breaks: Sequence[Callable[[Path], str | None]], outcome: Outcome) -> None:
        """Break one run, finish it, and compare it with the unbroken one.

        Args:
            number: Names the folder.
            breaks: Each starts or goes on with the run and breaks it; answers what was wrong, if anything.
            outcome: What to add to.
        """
        out = self.folder / f"trial-{number}" / "run"
        out.parent.mkdir()
        outcome.trials += 1
        wrong = [told for one in breaks if (told := one(out)) is not None]
        code = ended(self.begin(out))
        if code:
            wrong.append(f"could not be resumed: exit code {code}: {self.last_line()}")
        elif bits(out) != self.bits:
            wrong.append("ended with other bits")
        elif strays(out):
            wrong.append(f"left {strays(out)}")
        outcome.identical += not wrong
        outcome.wrong += [f"trial {number}: {told}" for told in wrong]
        shutil.rmtree(out.parent)

    def last_line(self) -> str:
        """The last line any child said."""
        return self.log.read_text(errors="replace").strip().rsplit("\n", 1)[-1]

    def killed_at(self, event: int, defect: Prepare | None = None) -> Callable[[Path], str | None]:
        """A break: dies at an event of its own."""

        def one(out: Path) -> str | None:
            trap = Trap(str(out.parent), at=event)

            def prepare() -> None:
                arm(trap)
                if defect is not None:
                    defect()

            code = ended(self.begin(out, prepare))
            return None if code in (0, -signal.SIGKILL) else f"exit code {code}: {self.last_line()}"

        return one

    def signalled(self, number: int, after: float, outcome: Outcome) -> Callable[[Path], str | None]:
        """A break: gets a signal so many seconds after it began."""

        def one(out: Path) -> str | None:
            process = self.begin(out)
            time.sleep(after)
            begun = time.perf_counter()
            os.kill(process, number)
            code = ended(process)
            outcome.slowest = max(outcome.slowest, time.perf_counter() - begun)
            expected = {0, -number} if number == signal.SIGKILL else {0, -number, 128 + number}
            return None if code in expected else f"exit code {code}: {self.last_line()}"

        return one

    def starved(self, room: int) -> Callable[[Path], str | None]:
        """A break: the disk is full after so many bytes."""

        def one(out: Path) -> str | None:
            trap = Trap(str(out.parent), room=room)
            code = ended(self.begin(out, lambda: arm(trap)))
            if code not in (0, DISK):
                return f"exit code {code} with a full disk: {self.last_line()}"
            if code and "No space left" not in self.last_line():
                return f"a full disk is told as: {self.last_line()}"
            return f"left {strays(out)}" if strays(out) else None

        return one


def assert_done(process: int, log: Path) -> None:
    """Wait for a child that must end well.

    Raises:
        RuntimeError: It did not.
    """
    code = ended(process)
    if code:
        raise RuntimeError(f"a run that nobody broke ended with {code}: {log.read_text(errors='replace')[-2000:]}")


def strays(out: Path) -> list[str]:
    """Unfinished files a run left."""
    return sorted(path.name for path in out.rglob("*") if ".tmp." in path.name)


def bits(run: Path) -> str:
    """A digest of every tensor and every record a run left."""
    summary = hashlib.sha256()
    last = sorted((run / "checkpoints").glob("step-*.safetensors"))[-1:]
    for path in [*last, *sorted(run.glob("*.safetensors")), *sorted((run / "snapshots").glob("*.safetensors"))]:
        for name, tensor in sorted(load_file(path).items()):
            summary.update(f"{path.name} {name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            summary.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        kept = {
            key: value for key, value in record.items() if key not in ("seconds", "images_per_second", "evaluation")
        }
        summary.update(json.dumps(kept, sort_keys=True).encode())
    return summary.hexdigest()


def losses(run: Path) -> list[float]:
    """The loss of each step a run recorded."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "terms" in record]


def _write_faces(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for identity in range(4):
        (folder / f"p{identity}").mkdir(parents=True)
        pattern = draw.integers(0, 256, (4, 4, 3)).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
        for sample in range(4):
            image = np.clip(pattern + draw.normal(0, 20, pattern.shape), 0, 255).astype(np.uint8)
            (folder / f"p{identity}" / f"{sample}.png").write_bytes(encode_png(image))


def _recipes(folder: Path) -> tuple[dict, dict]:
    """Of the teacher, and of a student that learns from it, with an average, snapshots and evaluations."""
    options = {"channels": "4,8", "blocks": "1,1"}
    teacher = {
        "name": "torture-teacher",
        "student": {"backbone": "resnet_tiny", "embedding_size": 8, "input_size": SIDE, "options": options},
        "data": {"source": "folder", "path": str(folder / "faces"), "augment": {"flip": 0.5, "shift": 0.1}},
        "losses": [{"name": "margin_softmax", "scale": 8.0, "margin": 0.2}],
        "optimizer": {"name": "adamw", "learning_rate": 0.01},
        "schedule": {"name": "cosine", "warmup_epochs": 1.0},
        "train": {"epochs": 12, "batch_size": 4, "log_every": 4},
    }
    inherited = {"name": "margin_softmax", "class_weights": "teacher", "scale": 8.0, "margin": 0.2}
    student = teacher | {
        "name": "torture",
        "teacher": {"weights": str(folder / "teacher")},
        "losses": [inherited, {"name": "l2"}, {"name": "pad", "warmup_epochs": 0.5}],
        "optimizer": {"name": "sgd", "learning_rate": 0.05},
        "train": {
            "epochs": 3,
            "batch_size": 4,
            "log_every": 1,
            "checkpoint_every": 0.5,
            "ema": 0.9,
            "snapshot_every": 1,
        },
        "evaluate": {"sets": [{"synthetic": {"identities": 3, "samples": 2}}], "every": 1.0, "fpr": [0.5]},
    }
    return teacher, student


def _loaded(path: Path, recipe: dict) -> Recipe:
    path.write_text(yaml.safe_dump(recipe))
    return load_recipe(path)


def swept(arena: Arena, count: int, first: int = 0) -> Outcome:
    """Runs that die at events spread evenly over all there are."""
    outcome = Outcome()
    for number, event in enumerate(np.unique(np.linspace(1, arena.events, count).astype(int)).tolist()):
        arena.trial(first + number, [arena.killed_at(event)], outcome)
    return outcome


def killed_often(arena: Arena, count: int, times: int, seed: int = 0) -> Outcome:
    """Runs that die several times at drawn events, before they are left to finish."""
    outcome, draw = Outcome(), random.Random(seed)
    for number in range(count):
        events = [draw.randint(1, arena.events // 2) for _ in range(times)]
        arena.trial(number, [arena.killed_at(event) for event in events], outcome)
    return outcome


def sent(arena: Arena, number: int, count: int, seed: int = 0) -> Outcome:
    """Runs that get a signal at a drawn time."""
    outcome, draw = Outcome(), random.Random(seed)
    for trial in range(count):
        arena.trial(trial, [arena.signalled(number, draw.uniform(0, arena.seconds), outcome)], outcome)
    return outcome


def starved(arena: Arena, count: int) -> Outcome:
    """Runs whose disk is full after so many bytes, spread evenly over all that are written."""
    outcome = Outcome()
    for number, room in enumerate(np.linspace(0, arena.bytes, count).astype(int).tolist()):
        arena.trial(number, [arena.starved(room)], outcome)
    return outcome


def damaged(arena: Arena, flips: int, cuts: int, seed: int = 0) -> Outcome:
    """Newest checkpoints with a flipped bit, cut short or swapped: passed over, each for the one before."""
    folder = arena.folder / "whole" / "run" / "checkpoints"
    older, newest = sorted(folder.glob("step-*.safetensors"))[-2:]
    whole, other, draw = newest.read_bytes(), older.read_bytes(), random.Random(seed)
    outcome = Outcome()

    def one(data: bytes, what: str) -> None:
        newest.write_bytes(data)
        outcome.trials += 1
        try:
            found, told = load_checkpoint(folder)
        except CheckpointError as error:
            outcome.wrong.append(f"{what}: {error}")
            return
        fine = f"step-{found.step:09d}.safetensors" == older.name and len(told) == 1 and newest.name in told[0]
        outcome.identical += fine
        outcome.wrong += [] if fine else [f"{what}: step {found.step}, {told}"]

    for _ in range(flips):
        at = draw.randrange(8 * len(whole))
        data = bytearray(whole)
        data[at // 8] ^= 1 << at % 8
        one(bytes(data), f"bit {at}")
    for _ in range(cuts):
        length = draw.randrange(len(whole))
        one(whole[:length], f"cut to {length} bytes")
    one(other, "swapped")
    one(bytes(len(whole)), "zeros")
    newest.write_bytes(whole)
    return outcome


def forgets_the_optimizer() -> None:
    """A planted defect: what the optimizer remembers is left out of a checkpoint taken up."""
    from facekd.engine.training import session

    session.restore_optimizer = lambda *_: None


def writes_in_place() -> None:
    """A planted defect: one checkpoint, removed before the next is written where it will stand."""
    plain = checkpoint.save_checkpoint

    def save(folder: Path, held: checkpoint.Checkpoint) -> Path:
        for path in folder.glob("step-*.safetensors"):
            path.unlink()
        return plain(folder, held)

    trainer.save_checkpoint = save


def control(arena: Arena, defect: Prepare, count: int) -> Outcome:
    """Runs with a planted defect, which must not all end well."""
    outcome = Outcome()
    plain = arena.begin
    arena.begin = lambda out, prepare=None: plain(out, _both(defect, prepare))  # type: ignore[method-assign]
    try:
        for number, event in enumerate(np.linspace(1, arena.events, count).astype(int).tolist()):
            arena.trial(number, [arena.killed_at(event)], outcome)
    finally:
        arena.begin = plain  # type: ignore[method-assign]
    return outcome


def _both(one: Prepare, other: Prepare | None) -> Prepare:
    def prepare() -> None:
        one()
        if other is not None:
            other()

    return prepare
