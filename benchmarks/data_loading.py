"""What a ``.rec`` costs: time and memory to open 100,000 images, and reading one against decoding the same bytes alone.

Prints one JSON object and, with ``--out FILE``, writes it there too. The images are drawn faces, packed as the classic
packs are; a few hundred repeat, which changes neither offsets nor decoding. Files are opened in a process of their own
each time. Reading and bare decoding take turns on the same images, block by block, so that a busy machine slows both;
``ratio`` is the speed of reading over that of decoding within a pair of blocks. Processor time leaves out waiting, for
other processes and for the disk.

    python -m benchmarks.data_loading --out benchmarks/results/data_loading.json
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

import facekd
from benchmarks.record import hand_over
from facekd.data.images import encode_jpeg
from facekd.data.record_source import RecordSource
from facekd.data.record_writer import write_records
from facekd.data.synthetic import SyntheticFaces

DISTINCT = 256
PER_IDENTITY = 20
QUALITY = 95
WORKERS = 2


def bare_decode(data: bytes) -> np.ndarray:
    """What any reader must do, and nothing else."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


class Places:
    """Runs a function on each index; nothing but a number leaves a worker."""

    def __init__(self, read: Callable[[int], np.ndarray]) -> None:
        self.read = read

    def __getitem__(self, index: int) -> int:
        return len(self.read(index))


def write_pack(folder: Path, count: int) -> None:
    """A pack of ``count`` drawn faces in the classic layout."""
    faces = SyntheticFaces(identities=DISTINCT, samples=1)
    pool = [encode_jpeg(faces.read(index), QUALITY) for index in range(DISTINCT)]
    names = [f"{label:06d}" for label in range(-(-count // PER_IDENTITY))]
    samples = ((index // PER_IDENTITY, pool[index % DISTINCT]) for index in range(count))
    write_records(folder / "train.rec", samples, names, insightface_header=True)


def peak_mib() -> float:
    """The most memory this process ever held, as Linux tells it; what its parent held is not counted."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def tell_opening(folder: Path) -> None:
    """Open a pack and print how long that took and what memory it added; meant for a process of its own."""
    before, began = peak_mib(), time.perf_counter()
    source = RecordSource(folder)
    seconds, after = time.perf_counter() - began, peak_mib()
    print(json.dumps({"images": len(source), "seconds": seconds, "peak_mib": after, "added_mib": after - before}))


def measure_opening(folder: Path, repeats: int) -> dict[str, dict[str, object]]:
    """Opening with the index, and without, where the file is walked."""
    found = {}
    for name in ("with_index", "without_index"):
        if name == "without_index":
            (folder / "train.idx").unlink()
        command = [sys.executable, "-m", "benchmarks.data_loading", "--open", str(folder)]
        told = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(repeats)]
        found[name] = {key: spread([one[key] for one in told]) for key in ("seconds", "peak_mib", "added_mib")}
    return found


def spread(values: Sequence[float]) -> dict[str, object]:
    """Median and the quartiles of repeated measurements."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": round(float(median), 4), "iqr": [round(float(low), 4), round(float(high), 4)]}


def in_turn(
    timed: dict[str, Callable[[Sequence[int]], None]], blocks: Sequence[Sequence[int]], clock: Callable[[], float]
) -> dict[str, object]:
    """Images a second of two ways to read the same blocks, which take turns in who goes first, and their ratio."""
    rates: dict[str, list[float]] = {name: [] for name in timed}
    for turn, block in enumerate(blocks):
        for name in list(timed) if turn % 2 else reversed(list(timed)):
            began = clock()
            timed[name](block)
            rates[name].append(len(block) / (clock() - began))
    ratios = [read / bare for read, bare in zip(rates["read"], rates["decode"], strict=True)]
    return {**{name: spread(found) for name, found in rates.items()}, "ratio": spread(ratios)}


def serially(read: Callable[[int], np.ndarray]) -> Callable[[Sequence[int]], None]:
    """Reading a block in this process."""

    def run(block: Sequence[int]) -> None:
        for index in block:
            read(index)

    return run


class Order:
    """The order in which a loader's workers take images; set anew for each block."""

    def __init__(self) -> None:
        self.block: Sequence[int] = ()

    def __iter__(self) -> Iterator[list[int]]:
        return iter([list(self.block[start : start + 50]) for start in range(0, len(self.block), 50)])


def by_workers(read: Callable[[int], np.ndarray]) -> Callable[[Sequence[int]], None]:
    """Reading a block in worker processes that stay between blocks."""
    from torch.utils.data import DataLoader

    order = Order()
    loader = DataLoader(
        Places(read),
        batch_sampler=order,
        num_workers=WORKERS,
        persistent_workers=True,
        collate_fn=sum,  # type: ignore[arg-type]
    )

    def run(block: Sequence[int]) -> None:
        order.block = block
        for _ in loader:
            pass

    return run


def measure_reading(folder: Path, repeats: int, images: int, seed: int) -> dict[str, object]:
    """Reading against bare decoding, in one process and with workers."""
    cv2.setNumThreads(1)
    source = RecordSource(folder)
    order = np.random.default_rng(seed).permutation(len(source))
    blocks = [np.roll(order, -images * k)[:images].tolist() for k in range(repeats + 1)]
    encoded = {index: source.encoded(index) for block in blocks for index in block}

    def decode(index: int) -> np.ndarray:
        return bare_decode(encoded[index])

    found = {}
    for name, by, clock in (
        ("one process, wall clock", serially, time.perf_counter),
        ("one process, processor time", serially, time.process_time),
        (f"{WORKERS} workers, wall clock", by_workers, time.perf_counter),
    ):
        timed = {"read": by(source.read), "decode": by(decode)}
        in_turn(timed, blocks[:1], clock)
        found[name] = in_turn(timed, blocks[1:], clock)
    return found


def report(count: int, repeats: int, images: int, seed: int) -> dict[str, object]:
    """Everything measured and everything it depends on."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pack(folder, count)
        size = (folder / "train.rec").stat().st_size
        reading = measure_reading(folder, repeats, images, seed)
        opening = measure_opening(folder, 3)
    return {
        "benchmark": "data_loading",
        "command": "python -m benchmarks.data_loading --out benchmarks/results/data_loading.json",
        "images": count,
        "bytes": size,
        "opening": opening,
        "reading": reading,
        "unit": "images/s",
        "repeats": repeats,
        "images_per_repeat": images,
        "seeds": [seed],
        "machine": f"{platform.machine()} {platform.system()}",
        "versions": {
            "facekd": facekd.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "opencv": cv2.__version__,
            "torch": version("torch"),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=100_000, help="images in the file")
    parser.add_argument("--repeats", type=int, default=14)
    parser.add_argument("--images", type=int, default=6000, help="images per repeat")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    parser.add_argument("--open", type=Path, help="only open the pack in this folder and tell what that took")
    given = parser.parse_args()
    if given.open is not None:
        tell_opening(given.open)
        return
    hand_over(report(given.count, given.repeats, given.images, given.seed), given.out)


if __name__ == "__main__":
    main()
