"""What exact figures of all pairs cost: against the bare matrix products, and against scikit-learn on all scores.

Prints one JSON object and, with ``--out FILE``, writes it there too. The embeddings are random: people far apart, the
images of one person around a centre. In every round the whole product (block of rows by block of rows, every pair
twice), the half of it in which every pair is once, and the sweep (thresholds at five FPRs, EER, AUC, all genuine pairs)
take turns on the same embeddings, so that a busy machine slows all three; ``ratio`` is within a round. scikit-learn's
``roc_curve`` is compared on a smaller list, whose scores it needs all at once; both run in processes of their own. On
an accelerator the sweep of rounded tiles, the usual one there, takes its turn as well, and so do the products in TF32
and in bf16.

    python -m benchmarks.all_pairs --out benchmarks/results/all_pairs.json
    python -m benchmarks.all_pairs --device cuda --images 1000000 --out benchmarks/results/all_pairs_cuda.json

``--large N ...`` sweeps longer lists besides, at FPRs down to 1e-9, and tells the memory above their embeddings.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import facekd
from benchmarks.data_loading import peak_mib
from benchmarks.record import hand_over
from benchmarks.synthetic_speed import spread
from facekd.metrics.pair_tiles import TILE, TILE_OF_ACCELERATOR
from facekd.metrics.swept_pairs import sweep_all_pairs
from facekd.metrics.tile_products import arithmetic

FPRS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
DEEP_FPRS = (*FPRS, 1e-7, 1e-8, 1e-9)
SWEEP, ROUNDED = "sweep", "sweep of rounded tiles"
PER_SUBJECT = 10
SMALL = 5000


def embeddings(images: int, dim: int, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Unit vectors in float32, and who each shows."""
    labels = np.arange(images) // PER_SUBJECT
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn((int(labels[-1]) + 1, dim), generator=draw)
    rows = centres[labels] + 1.5 * torch.randn((images, dim), generator=draw)
    return torch.nn.functional.normalize(rows), labels


def tile_on(device: torch.device) -> int:
    """Rows of a tile as the sweep takes them."""
    return TILE if device.type == "cpu" else TILE_OF_ACCELERATOR


def whole_product(rows: Tensor) -> None:
    """Every product of two rows, each pair twice, in one block of memory."""
    tile = tile_on(rows.device)
    held = rows.new_empty((tile, len(rows)))
    for block in rows.split(tile):
        torch.mm(block, rows.T, out=held[: len(block)])


def half_product(rows: Tensor) -> None:
    """Every cosine once, and some around the diagonal twice, in one tile of memory."""
    tile = tile_on(rows.device)
    held = rows.new_empty(tile * tile)
    blocks = rows.split(tile)
    for top, block in enumerate(blocks):
        for other in blocks[top:]:
            torch.mm(block, other.T, out=held[: len(block) * len(other)].view(len(block), len(other)))


def seconds(work: Callable[[], object], device: str) -> float:
    """How long it takes, to the end of what it started."""
    began = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


def rounds(images: int, dim: int, repeats: int, device: str) -> dict[str, object]:
    """All ways in turns."""
    rows, labels = embeddings(images, dim)
    works = ways(rows.to(device), labels)
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):
        now = {name: seconds(work, device) for name, work in works.items()}
        for name, value in now.items() if number else ():  # the first round warms up
            taken[name].append(value)
    usual = SWEEP if device == "cpu" else ROUNDED
    shares = {name: [sweep / bare for sweep, bare in zip(taken[usual], taken[name], strict=True)] for name in taken}
    return {
        "usual": usual,
        "seconds": {name: precise(values) for name, values in taken.items()},
        "ratio": {name: precise(shares[name]) for name in taken if name != usual},
    }


def ways(rows: Tensor, labels: np.ndarray) -> dict[str, Callable[[], object]]:
    """What is compared: bare products and sweeps, those of few bits on an accelerator only."""

    def product(tf32: bool, whole: bool) -> None:
        with arithmetic(tf32):
            (whole_product if whole else half_product)(rows)

    bare: dict[str, Callable[[], object]] = {
        "whole product": lambda: product(False, True),
        "half product": lambda: product(False, False),
    }
    plain: dict[str, Callable[[], object]] = {SWEEP: lambda: sweep_all_pairs(rows, labels, FPRS, rounded=False)}
    if rows.device.type == "cpu":
        return bare | plain
    short = rows.to(torch.bfloat16)
    bare |= {"whole product in TF32": lambda: product(True, True), "half in TF32": lambda: product(True, False)}
    bare |= {"whole product in bf16": lambda: whole_product(short), "half in bf16": lambda: half_product(short)}
    return bare | plain | {ROUNDED: lambda: sweep_all_pairs(rows, labels, FPRS, rounded=True)}


def precise(values: list[float]) -> dict[str, object]:
    """Median and quartiles, to the millisecond."""
    found = spread([1000 * value for value in values])
    return {"median": found["median"] / 1000, "iqr": [round(end / 1000, 4) for end in found["iqr"]]}


def tell_one(way: str, images: int, dim: int) -> None:
    """Time and memory of one way on one list; meant for a process of its own."""
    rows, labels = embeddings(images, dim)
    sweep_all_pairs(rows[:200], labels[:200], FPRS[:1])  # what is loaded and set up once
    before, began = peak_mib(), time.perf_counter()
    if way == "deep":
        found = sweep_all_pairs(rows, labels, DEEP_FPRS)
        told = {"seconds": time.perf_counter() - began, "added_mib": peak_mib() - before, "pairs": found.impostors}
        points = [{"fpr": one.fpr, "tpr": one.tpr, "false_accepts": one.false_accepts} for one in found.points]
        print(json.dumps({"images": images, **told, "points": points, "refused": [one.fpr for one in found.refused]}))
        return
    if way == "sweep":
        points = [point.tpr for point in sweep_all_pairs(rows, labels, FPRS).points]
    else:
        from sklearn.metrics import roc_curve

        began = time.perf_counter()
        scores = rows @ rows.T
        upper = torch.triu(torch.ones(len(rows), len(rows), dtype=torch.bool), 1)
        same = torch.as_tensor(labels)[:, None] == torch.as_tensor(labels)
        fpr, tpr, _ = roc_curve(same[upper].numpy(), scores[upper].numpy())
        points = [float(tpr[fpr <= wanted].max()) for wanted in FPRS]
    taken, after = time.perf_counter() - began, peak_mib()
    print(json.dumps({"seconds": taken, "added_mib": after - before, "tpr": points}))


def in_process(way: str, images: int, dim: int) -> dict[str, Any]:
    """What :func:`tell_one` tells, from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.all_pairs", "--tell", way, "--images", str(images), "--dim", str(dim)]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return told


def against_scikit_learn(images: int, dim: int, repeats: int) -> dict[str, object]:
    """Both ways in processes of their own, in turns."""
    found: dict[str, list[dict[str, Any]]] = {"sweep": [], "scikit-learn": []}
    for _ in range(repeats):
        for way, told in found.items():
            told.append(in_process(way, images, dim))
    faster = [b["seconds"] / a["seconds"] for a, b in zip(found["sweep"], found["scikit-learn"], strict=True)]
    return {
        "images": images,
        "seconds": {way: precise([one["seconds"] for one in told]) for way, told in found.items()},
        "added_mib": {
            way: round(float(np.median([one["added_mib"] for one in told])), 1) for way, told in found.items()
        },
        "times_faster": precise(faster),
        "largest_difference_of_tpr": max(
            abs(a - b) for a, b in zip(found["sweep"][0]["tpr"], found["scikit-learn"][0]["tpr"], strict=True)
        ),
    }


def report(images: int, dim: int, repeats: int, device: str, large: Sequence[int]) -> dict[str, object]:
    """Everything measured and everything it depends on."""
    deep = {"large_lists": [in_process("deep", size, dim) for size in large]} if large else {}
    small = {"small_list": against_scikit_learn(SMALL, dim, repeats)} if device == "cpu" else {}
    return {
        "benchmark": "all_pairs" if device == "cpu" else "all_pairs_cuda",
        "images": images,
        "dim": dim,
        "pairs": images * (images - 1) // 2,
        "fprs": FPRS,
        **rounds(images, dim, repeats, device),
        **small,
        **deep,
        "repeats": repeats,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "threads": torch.get_num_threads(),
        "seed": 0,
        "machine": f"{platform.machine()} {platform.system()}",
        "versions": {
            "facekd": facekd.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "numpy", "scikit-learn")},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--large", type=int, nargs="*", default=[], help="lengths of lists to sweep at deep FPRs too")
    parser.add_argument("--tell", choices=["sweep", "scikit-learn", "deep"], help="one way, for a process of its own")
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    if given.tell:
        tell_one(given.tell, given.images, given.dim)
        return
    hand_over(report(given.images, given.dim, given.repeats, given.device, given.large), given.out)


if __name__ == "__main__":
    main()
