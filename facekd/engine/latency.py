"""How large a model is, and how long one face and a batch take it on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facekd.data.opencv_net import OpenedNet, open_net
from facekd.engine.model_facts import file_bytes, known_macs
from facekd.engine.parity import probe_images
from facekd.engine.progress import Progress
from facekd.errors import InputError
from facekd.models.embedder import Embedder, TorchEmbedder
from facekd.models.onnx_file import open_session
from facekd.models.onnx_model import OnnxEmbedder

WARM_UP = 3


@dataclass(frozen=True)
class Latency:
    """How long one forward pass took, many times over.

    Attributes:
        runtime: ``torch``, ``onnxruntime`` or ``opencv``.
        batch: Faces in it.
        repeats: How often it was measured.
        median: Seconds.
        quartiles: Seconds that a quarter, and three quarters, took at most.
        slowest: Seconds that one in twenty took or more.
        images_per_second: Of the median.
    """

    runtime: str
    batch: int
    repeats: int
    median: float
    quartiles: tuple[float, float]
    slowest: float
    images_per_second: float


def measure(forward: Callable[[], object], runtime: str, batch: int, repeats: int) -> Latency:
    """Time a forward pass, after a few that are not counted.

    Args:
        forward: Runs it, and returns once it is done.
        runtime: Who runs it, for the record.
        batch: Faces in it.
        repeats: How often to measure.
    """
    for _ in range(WARM_UP):
        forward()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        forward()
        seconds.append(time.perf_counter() - began)
    low, middle, high, slowest = (float(value) for value in np.percentile(seconds, [25, 50, 75, 95]))
    return Latency(runtime, batch, repeats, middle, (low, high), slowest, batch / middle)


def bench(
    embedder: Embedder,
    path: Path,
    *,
    batch: int = 32,
    repeats: int = 30,
    threads: int = 0,
    opencv: bool = True,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Size and latency of a model.

    Args:
        embedder: The model.
        path: Where it was loaded from.
        batch: Faces in the larger batch; one face is measured as well. A file of a fixed batch is measured at that.
        repeats: How often each is measured; the larger batch a third as often.
        threads: Of each runtime; as many as each likes when 0.
        opencv: Measure an ONNX file in OpenCV, too.
        progress: Told of each measurement.

    Returns:
        What ``facekd bench --json`` writes: ``model``, ``digest``, ``parameters``, ``macs`` (None where the model does
        not show them), ``bytes``, ``threads``, ``latency`` and ``notes``.
    """
    found: list[Latency] = []
    notes: list[str] = []
    fixed = embedder.batch if isinstance(embedder, OnnxEmbedder) else None
    sizes = [fixed] if fixed else list(dict.fromkeys([1, batch]))
    runners = _runners(embedder, threads, opencv, notes)
    for runtime, prepare in runners.items():
        for size in sizes:
            images = torch.from_numpy(probe_images(size, embedder.preprocessing.size))
            found.append(measure(prepare(images), runtime, size, repeats if size == 1 else max(3, repeats // 3)))
            if progress:
                progress("measure", len(found), len(runners) * len(sizes))
    return {
        "model": embedder.name,
        "digest": embedder.digest,
        "parameters": embedder.parameters,
        "macs": known_macs(embedder),
        "bytes": file_bytes(path),
        "threads": threads,
        "latency": [asdict(entry) for entry in found],
        "notes": notes,
    }


Prepare = Callable[[torch.Tensor], Callable[[], object]]


def _runners(embedder: Embedder, threads: int, opencv: bool, notes: list[str]) -> dict[str, Prepare]:
    """What runs the model, by runtime: images to a forward pass on them, preprocessing done before."""
    if isinstance(embedder, TorchEmbedder):
        return {"torch": lambda images: _torch_pass(embedder, images, threads)}
    if not isinstance(embedder, OnnxEmbedder):
        return {}
    timed = with_threads(embedder, threads)
    runners: dict[str, Prepare] = {"onnxruntime": lambda images: _session_pass(timed, images)}
    if opencv:
        try:
            net = open_net(embedder.path)
            net.forward(
                embedder.prepare(torch.from_numpy(probe_images(embedder.batch or 1, embedder.preprocessing.size)))
            )
            runners["opencv"] = lambda images: _net_pass(net, embedder.prepare(images))
        except InputError as error:
            notes.append(error.what)
    return runners


def with_threads(embedder: OnnxEmbedder, threads: int) -> OnnxEmbedder:
    """The same model in a session of so many threads; of as many as onnxruntime likes for 0."""
    data = embedder.path.read_bytes()
    return replace(embedder, session=open_session(data, str(embedder.path), threads=threads))


def _torch_pass(embedder: TorchEmbedder, images: torch.Tensor, threads: int) -> Callable[[], object]:
    if threads:
        torch.set_num_threads(threads)
    pixels = embedder.preprocessing.apply(images.to(embedder.device)).contiguous(memory_format=torch.channels_last)

    def forward() -> object:
        with torch.inference_mode():
            out = embedder.module(pixels)
            if embedder.device.type == "cuda":
                torch.cuda.synchronize()
            return out

    return forward


def _session_pass(embedder: OnnxEmbedder, images: torch.Tensor) -> Callable[[], object]:
    name, pixels = embedder.session.get_inputs()[0].name, embedder.prepare(images)
    return lambda: embedder.session.run(None, {name: pixels})


def _net_pass(net: OpenedNet, pixels: np.ndarray) -> Callable[[], object]:
    return lambda: net.forward(pixels)
