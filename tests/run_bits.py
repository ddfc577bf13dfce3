"""What a run left, bit for bit, and how to break one off."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import torch
from safetensors.torch import load_file

from facekd.engine.training.trainer import Listener


def bits(run: Path) -> dict[str, torch.Tensor]:
    """Every tensor a run left: its student, its classifier, and its last checkpoint."""
    last = sorted((run / "checkpoints").glob("step-*.safetensors"))[-1]
    found = {f"checkpoint.{name}": tensor for name, tensor in load_file(last).items()}
    return found | {f"student.{name}": tensor for name, tensor in load_file(run / "student.safetensors").items()}


def same(one: Path, other: Path) -> bool:
    a, b = bits(one), bits(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def steps(run: Path) -> list[dict]:
    """The training records of a run without their clocks."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    clocks = ("seconds", "images_per_second")
    return [{k: v for k, v in r.items() if k not in clocks} for r in records if "terms" in r]


def stop_at(step: int) -> Listener:
    """A listener that sends the process a signal once ``step`` is recorded."""

    def listen(record: dict, total: int) -> None:
        if record["step"] == step and "terms" in record:
            signal.raise_signal(signal.SIGTERM)

    return Listener(step=listen)
