"""How many synthetic faces one core draws a second.

Prints one JSON object and, with ``--out FILE``, writes it there too. Faces are taken in shuffled order over more
identities than repeats revisit soon, as a training epoch takes them. ``cpu`` counts the processor time of the process
instead of the wall clock, and so stays comparable on a busy machine.

    python benchmarks/synthetic_speed.py --out benchmarks/results/synthetic_speed.json
"""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

import cv2
import numpy as np

import facekd
from benchmarks.record import hand_over
from facekd.data.synthetic import RENDERER_VERSION, SyntheticFaces


def measure(faces: SyntheticFaces, order: np.ndarray) -> tuple[float, float]:
    """Images a second by wall clock and by processor time."""
    wall, cpu = time.perf_counter(), time.process_time()
    for index in order.tolist():
        faces.read(index)
    return len(order) / (time.perf_counter() - wall), len(order) / (time.process_time() - cpu)


def spread(values: list[float]) -> dict[str, float | list[float]]:
    """Median and the quartiles of repeated measurements."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": round(float(median), 1), "iqr": [round(float(low), 1), round(float(high), 1)]}


def report(repeats: int, images: int, warm_up: int, seed: int) -> dict[str, object]:
    """Everything measured and everything it depends on."""
    cv2.setNumThreads(1)
    faces = SyntheticFaces(identities=200, samples=20, seed=seed)
    order = np.random.default_rng(seed).permutation(len(faces))
    measure(faces, order[:warm_up])
    pairs = [measure(faces, np.roll(order, -images * repeat)[:images]) for repeat in range(repeats)]
    return {
        "benchmark": "synthetic_speed",
        "unit": "images/s",
        "wall": spread([wall for wall, _ in pairs]),
        "cpu": spread([cpu for _, cpu in pairs]),
        "repeats": repeats,
        "images_per_repeat": images,
        "warm_up": warm_up,
        "threads": 1,
        "seed": seed,
        "renderer": RENDERER_VERSION,
        "machine": f"{platform.machine()} {platform.system()}",
        "versions": {
            "facekd": facekd.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--images", type=int, default=200, help="images per repeat")
    parser.add_argument("--warm-up", type=int, default=100, help="images drawn before the clock starts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    hand_over(report(given.repeats, given.images, given.warm_up, given.seed), given.out)


if __name__ == "__main__":
    main()
