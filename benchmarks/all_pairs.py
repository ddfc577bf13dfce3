"""What exact figures of all pairs cost: against the bare matrix products, and against scikit-learn on all scores.

Prints one JSON object and, with ``--out FILE``, writes it there too. The embeddings are random: people far apart, the
images of one person around a centre. In every round the whole product (block of rows by block of rows, every pair
twice), the half of it in which every pair is once, and the sweep (thresholds at five FPRs, EER, AUC, all genuine pairs)
take turns on the same embeddings, so that a busy machine slows all three; ``ratio`` is within a round. scikit-learn's
``roc_curve`` is compared on a smaller list, whose scores it needs all at once; both run in processes of their own.

    python -m benchmarks.all_pairs --out benchmarks/results/all_pairs.json
    python -m benchmarks.all_pairs --device cuda --images 200000 --out benchmarks/results/all_pairs_cuda.json
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import facekd
from benchmarks.data_loading import peak_mib
from benchmarks.record import hand_over
from benchmarks.synthetic_speed import spread
from facekd.metrics.pair_tiles import TILE
from facekd.metrics.swept_pairs import sweep_all_pairs

FPRS = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
PER_SUBJECT = 10
SMALL = 5000


def embeddings(images: int, dim: int, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Unit vectors in float32, and who each shows."""
    labels = np.arange(images) // PER_SUBJECT
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn((int(labels[-1]) + 1, dim), generator=draw)
    rows = centres[labels] + 1.5 * torch.randn((images, dim), generator=draw)
    return torch.nn.functional.normalize(rows), labels


def whole_product(rows: Tensor) -> None:
    """Every cosine, each pair twice, in one block of memory."""
    held = rows.new_empty((TILE, len(rows)))
    for block in rows.split(TILE):
        torch.mm(block, rows.T, out=held[: len(block)])


def half_product(rows: Tensor) -> None:
    """Every cosine once, and some around the diagonal twice, in one tile of memory."""
    held = rows.new_empty(TILE * TILE)
    blocks = rows.split(TILE)
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
    """The three in turns."""
    rows, labels = embeddings(images, dim)
    rows = rows.to(device)
    taken: dict[str, list[float]] = {"whole product": [], "half product": [], "sweep": []}
    for number in range(repeats + 1):
        now = {
            "whole product": seconds(lambda: whole_product(rows), device),
            "half product": seconds(lambda: half_product(rows), device),
            "sweep": seconds(lambda: sweep_all_pairs(rows, labels, FPRS), device),
        }
        for name, value in now.items() if number else ():  # the first round warms up
            taken[name].append(value)
    shares = {name: [sweep / bare for sweep, bare in zip(taken["sweep"], taken[name], strict=True)] for name in taken}
    return {
        "seconds": {name: precise(values) for name, values in taken.items()},
        "ratio": {name: precise(shares[name]) for name in ("whole product", "half product")},
    }


def precise(values: list[float]) -> dict[str, object]:
    """Median and quartiles, to the millisecond."""
    found = spread([1000 * value for value in values])
    return {"median": found["median"] / 1000, "iqr": [round(end / 1000, 4) for end in found["iqr"]]}


def tell_one(way: str, images: int, dim: int) -> None:
    """Time and memory of one way on one list; meant for a process of its own."""
    rows, labels = embeddings(images, dim)
    sweep_all_pairs(rows[:200], labels[:200], FPRS[:1])  # what is loaded and set up once
    before, began = peak_mib(), time.perf_counter()
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


def against_scikit_learn(images: int, dim: int, repeats: int) -> dict[str, object]:
    """Both ways in processes of their own, in turns."""
    found: dict[str, list[dict[str, object]]] = {"sweep": [], "scikit-learn": []}
    for _ in range(repeats):
        for way, told in found.items():
            command = [sys.executable, "-m", "benchmarks.all_pairs", "--tell", way, "--images", str(images)]
            out = subprocess.run([*command, "--dim", str(dim)], check=True, capture_output=True, text=True).stdout
            told.append(json.loads(out))
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


def report(images: int, dim: int, repeats: int, device: str) -> dict[str, object]:
    """Everything measured and everything it depends on."""
    small = {"small_list": against_scikit_learn(SMALL, dim, repeats)} if device == "cpu" else {}
    return {
        "benchmark": "all_pairs" if device == "cpu" else "all_pairs_cuda",
        "images": images,
        "dim": dim,
        "pairs": images * (images - 1) // 2,
        "fprs": FPRS,
        **rounds(images, dim, repeats, device),
        **small,
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
    parser.add_argument("--tell", choices=["sweep", "scikit-learn"], help="one way, for a process of its own")
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    if given.tell:
        tell_one(given.tell, given.images, given.dim)
        return
    hand_over(report(given.images, given.dim, given.repeats, given.device), given.out)


if __name__ == "__main__":
    main()
