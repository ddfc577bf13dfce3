"""A tiny distillation to be broken: its data, its teacher, its unbroken run, and the bits that left."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file

from benchmarks.killing import Trap, arm, ended, fork
from facekd.data.images import encode_png
from facekd.engine.training import trainer
from facekd.recipe import Recipe, load_recipe

SIDE = 32
REPLICATES = 20
"""Behind the intervals of the last evaluation: its cost, not its kind, would be most of a run."""
LEAST_TERM, LEAST_GRADIENT = 0.1, 1e-3
"""A run below these has nothing left to learn, and ends alike whatever it loses."""

Prepare = Callable[[], object]


class Arena:
    """A tiny distillation on a few drawn patterns, with an average, a cache, snapshots and evaluations.

    Args:
        folder: Where to work.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        _write_faces(self.folder / "faces")
        teacher, student = _recipes(self.folder)
        self.teacher = _loaded(self.folder / "teacher.yaml", teacher)
        self.recipe = _loaded(self.folder / "student.yaml", student)
        self.defect: Prepare | None = None
        self._warm()
        self._run_whole("whole")
        self.events, self.bytes, self.kinds = self._count()

    def with_training(self, **values: object) -> Arena:
        """The same with other values of ``train``, and with a whole run of its own."""
        train = self.recipe.train.model_copy(update=values)
        other = copy(self)
        other.recipe = self.recipe.model_copy(update={"train": train})
        other._run_whole("-".join(f"{name}-{value}" for name, value in values.items()))
        return other

    def with_defect(self, defect: Prepare) -> Arena:
        """The same with a planted defect in every run, the whole one that the others are compared with too."""
        other = copy(self)
        other.defect = defect
        other._run_whole(getattr(defect, "__name__", "defect"))
        return other

    def learns(self) -> bool:
        """Whether every step of the whole run had something left to learn."""
        steps = [record for record in records(self.whole) if "terms" in record]
        return all(
            max(step["terms"].values()) > LEAST_TERM and step["gradient_norm"] > LEAST_GRADIENT for step in steps
        )

    def begin(self, out: Path, prepare: Prepare | None = None) -> int:
        """Start or go on with a run, as a user would; the process number."""
        out.parent.mkdir(exist_ok=True)

        def run() -> None:
            torch.set_num_threads(1)
            trainer.FINAL_BOOTSTRAP = REPLICATES
            for one in (self.defect, prepare):
                if one is not None:
                    one()
            trainer.train(self.recipe, out, device="cpu", resume=(out / "recipe.yaml").exists())

        return fork(run, log_of(out))

    def bits_of(self, out: Path) -> str:
        """What a run left."""
        return bits(out)

    def new_run(self) -> Path:
        """Where another run may go."""
        return Path(tempfile.mkdtemp(dir=self.folder, prefix="trial-")) / "run"

    def _run_whole(self, name: str) -> None:
        self.whole = self.folder / name / "run"
        began = time.perf_counter()
        end_well(self.begin(self.whole), log_of(self.whole))
        self.seconds = time.perf_counter() - began
        self.bits = bits(self.whole)

    def _warm(self) -> None:
        """Train the teacher, and import here what that took, so that no child has to."""
        names, log = self.folder / "modules.txt", self.folder / "log.txt"

        def run() -> None:
            torch.set_num_threads(1)
            trainer.train(self.teacher, self.folder / "teacher", device="cpu")
            trainer.train(self.recipe, self.folder / "first" / "run", device="cpu")
            names.write_text("\n".join(sys.modules))

        (self.folder / "first").mkdir()
        end_well(fork(run, log), log)
        for name in names.read_text().split():
            with suppress(Exception):
                importlib.import_module(name)

    def _count(self) -> tuple[int, int, dict[str, int]]:
        """Events and bytes of an unbroken run, and events by kind."""
        out, told = self.new_run(), self.folder / "events.json"
        trap = Trap(str(out.parent))

        def prepare() -> None:
            arm(trap)
            plain = trainer.train

            def counted(*arguments: object, **named: object) -> None:
                plain(*arguments, **named)  # type: ignore[arg-type]
                told.write_text(json.dumps([trap.events, trap.written, trap.seen]))

            trainer.train = counted  # type: ignore[assignment]

        end_well(self.begin(out, prepare), log_of(out))
        shutil.rmtree(out.parent)
        events, written, seen = json.loads(told.read_text())
        return events, written, seen


def log_of(out: Path) -> Path:
    """What the processes of a run said."""
    return out.parent / "log.txt"


def last_line(out: Path) -> str:
    """The last line a process of a run said."""
    return log_of(out).read_text(errors="replace").strip().rsplit("\n", 1)[-1]


def end_well(process: int, log: Path) -> None:
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
    for record in records(run):
        kept = {
            key: value for key, value in record.items() if key not in ("seconds", "images_per_second", "evaluation")
        }
        summary.update(json.dumps(kept, sort_keys=True).encode())
    return summary.hexdigest()


def records(run: Path) -> list[dict]:
    """What a run measured."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _write_faces(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for identity in range(4):
        (folder / f"p{identity}").mkdir(parents=True)
        pattern = draw.integers(0, 256, (4, 4, 3)).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
        for sample in range(4):
            image = np.clip(pattern + draw.normal(0, 20, pattern.shape), 0, 255).astype(np.uint8)
            (folder / f"p{identity}" / f"{sample}.png").write_bytes(encode_png(image))


def _recipes(folder: Path) -> tuple[dict, dict]:
    """Of the teacher, and of a student that learns from it."""
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
            "epochs": 2,
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
