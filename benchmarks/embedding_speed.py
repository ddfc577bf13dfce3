"""What embedding images costs beside the bare forward passes of the same model and beside decoding alone.

``FOLDER`` is the folder of benchmarks.lfw_models. In every round these take turns on the same images, in batches of the
same size: decoding alone; the bare passes of image and mirror, float pixels ready in memory, by PyTorch or onnxruntime
as they come; and what ``facekd embed`` and ``facekd eval`` do, from files to embeddings. ``ratio`` is the last by the
bare passes, within a round; decoding overlaps with them where there is a core for it.

    python -m benchmarks.embedding_speed FOLDER --out benchmarks/results/embedding_speed.json
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.all_pairs import precise
from benchmarks.lfw_models import MODELS
from benchmarks.record import hand_over, surroundings
from facekd.data.images import to_chw
from facekd.data.open_source import open_identities
from facekd.engine.embed import embed_images
from facekd.engine.precision import precision_told
from facekd.models.embedder import Embedder, TorchEmbedder, in_precision, load_embedder
from facekd.models.onnx_model import OnnxEmbedder

MEASURED = {
    "EdgeFace-XS, ONNX": "fp32",
    "MobileFaceNet (foamliu), PyTorch": "fp32",
    "MobileFaceNet (foamliu), PyTorch, bf16": "bf16",
}
"""What is measured -> its precision."""


def bare(embedder: Embedder, batches: list[torch.Tensor]) -> Callable[[], None]:
    """The passes of image and mirror and nothing else."""
    ready = [embedder.preprocessing.apply(shown) for batch in batches for shown in (batch, batch.flip(3))]
    if isinstance(embedder, OnnxEmbedder):
        arrays, name = [pixels.contiguous().numpy() for pixels in ready], embedder.session.get_inputs()[0].name

        def run_graph() -> None:
            for pixels in arrays:
                embedder.session.run(None, {name: pixels})

        return run_graph
    assert isinstance(embedder, TorchEmbedder)
    short, kind = embedder.precision == "bf16", embedder.device.type
    held = [pixels.to(embedder.device).contiguous(memory_format=torch.channels_last) for pixels in ready]

    @torch.no_grad()
    def run_module() -> None:
        for pixels in held:
            with torch.autocast(kind, torch.bfloat16, enabled=short):
                embedder.module(pixels)
        if kind == "cuda":
            torch.cuda.synchronize()

    return run_module


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def measure(folder: Path, name: str, *, images: int, batch: int, repeats: int, device: str) -> dict[str, Any]:
    """One model: decoding, bare passes and the whole, in turns."""
    file, seen = MODELS[name.removesuffix(", bf16")]
    embedder = in_precision(load_embedder(folder / "models" / file, **seen, device=device), MEASURED[name])
    source = open_identities(folder / "lfw_test.csv", folder / "lfw112")
    pixels = [to_chw(source.read(index)) for index in range(images)]
    batches = [torch.from_numpy(np.stack(pixels[at : at + batch])) for at in range(0, images, batch)]
    works: dict[str, Callable[[], object]] = {
        "decode": lambda: [source.read(index) for index in range(images)],
        "bare passes": bare(embedder, batches),
        "embed": lambda: embed_images(embedder, source.read, images, batch_size=batch),
    }
    taken: dict[str, list[float]] = {way: [] for way in works}
    for number in range(repeats + 1):
        now = {way: seconds(work) for way, work in works.items()}
        for way, value in now.items() if number else ():  # the first round warms up
            taken[way].append(value)
    ratios = [whole / passes for whole, passes in zip(taken["embed"], taken["bare passes"], strict=True)]
    return {
        "model": name,
        **precision_told(embedder, source.read, len(source)),
        "images_per_second": round(images / float(np.median(taken["embed"])), 1),
        "seconds": {way: precise(values) for way, values in taken.items()},
        "ratio": precise(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    how = {"images": given.images, "batch": given.batch, "repeats": given.repeats, "device": given.device}
    record = {
        "benchmark": "embedding_speed",
        "command": "python -m benchmarks.embedding_speed FOLDER",
        "seeds": [],
        **how,
        "rows": [measure(given.folder, name, **how) for name in MEASURED],
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        **surroundings("torch", "onnxruntime", "opencv-python"),
    }
    hand_over(record, given.out)


if __name__ == "__main__":
    main()
