"""How near the students of the shipped recipes come to what the machine can compute.

Each student takes the bare steps of training, forward and backward on one ready batch as the trainer lays it out, and a
product of two square matrices takes turns with them: what it reaches is the most that arithmetic alone would. A student
computes three times the multiply-accumulates of a forward pass; what it does beside (BatchNorm, activations, pooling)
is time without them. A share is within a round.

    python -m benchmarks.student_speed --out benchmarks/results/student_speed.json
    python -m benchmarks.student_speed --device cuda --batch 512 --out benchmarks/results/student_speed_cuda.json

On an accelerator students compute in bf16 by autocast, and so does the product.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.all_pairs import precise, seconds
from benchmarks.latency import students
from benchmarks.record import hand_over, surroundings
from facekd.models.backbone import build_backbone
from facekd.models.macs import count_macs, count_parameters

BATCH, REPEATS = 32, 5
SIDES = {"cpu": 2048, "cuda": 8192}
"""Side of the matrices, by kind of device: one that keeps it busy."""
PASSES = 3
"""A backward pass computes two products for each of the forward pass."""


def product(side: int, device: str) -> Callable[[], object]:
    """A product of two square matrices."""
    one = torch.rand(side, side, device=device, dtype=torch.float32 if device == "cpu" else torch.bfloat16)
    return lambda: one @ one


def training(student: torch.nn.Module, size: int, batch: int, device: str) -> Callable[[], object]:
    """Forward and backward of a student on one ready batch."""
    module = student.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    pixels = torch.rand(batch, 3, size, size, device=device).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        module.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            found = module(pixels)
        found.float().sum().backward()

    return step


def measured(what: tuple[str, int, int, dict[str, Any]], batch: int, repeats: int, device: str) -> dict[str, Any]:
    """One student and the product in turns; the first of each warms up."""
    backbone, embedding_size, size, options = what
    torch.manual_seed(0)
    student = build_backbone(backbone, embedding_size=embedding_size, input_size=size, options=options)
    macs, side = count_macs(student, size), SIDES[device]
    works = {"student": training(student, size, batch, device), "product": product(side, device)}
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            value = seconds(work, device)
            taken[name] += [value] if turn else []
    rates = {
        "student": [2 * PASSES * macs * batch / value / 1e9 for value in taken["student"]],
        "product": [2 * side**3 / value / 1e9 for value in taken["product"]],
    }
    shares = [own / most for own, most in zip(rates["student"], rates["product"], strict=True)]
    return {
        "parameters": count_parameters(student),
        "macs": macs,
        "images_per_second": precise([batch / value for value in taken["student"]]),
        "gflops": {name: precise(values) for name, values in rates.items()},
        "share": precise(shares),
    }


def report(batch: int, repeats: int, device: str, most: int | None = None) -> dict[str, Any]:
    """Every student, or the first few."""
    chosen = list(students().items())[:most]
    name, on = (
        ("student_speed", "") if device == "cpu" else (f"student_speed_{device}", f" --device {device} --batch {batch}")
    )
    return {
        "benchmark": name,
        "command": f"python -m benchmarks.student_speed{on} --out benchmarks/results/{name}.json",
        "batch": batch,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "seeds": [0],
        "students": {title: measured(what, batch, repeats, device) for title, what in chosen},
        **surroundings("torch"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--repeats", type=int, default=REPEATS)
    parser.add_argument("--device", choices=SIDES, default="cpu")
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    hand_over(report(given.batch, given.repeats, given.device), given.out)


if __name__ == "__main__":
    main()
