"""How large a model is, and how long one face and a batch take it on this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facekd.data.opencv_net import OpenedNet, open_net
from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.engine.model_facts import file_bytes, known_macs
from facekd.engine.parity import probe_images
from facekd.engine.progress import Progress
from facekd.errors import ExportError, InputError
from facekd.models.embedder import Embedder, TorchEmbedder
from facekd.models.onnx_file import open_session
from facekd.models.onnx_model import OnnxEmbedder, load_onnx

WARM_UP = 3
CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class Timing:
    """What is timed, and how.

    Attributes:
        batch: Faces in the larger batch; one face is measured as well. A file of a fixed batch is measured at that.
        repeats: How often each is measured; the larger batch a third as often.
        threads: Of each runtime; as many as each likes when 0.
        opencv: Measure ONNX files in OpenCV, too.
        export: Measure a PyTorch model as the file that an export of it makes, too.
    """

    batch: int = 32
    repeats: int = 30
    threads: int = 0
    opencv: bool = True
    export: bool = True


TIMING = Timing()


@dataclass(frozen=True)
class Latency:
    """How long one forward pass took, many times over.

    Attributes:
        runtime: ``torch``, ``onnxruntime`` or ``opencv``.
        device: ``cpu`` or ``cuda``.
        batch: Faces in it.
        repeats: How often it was measured.
        median: Seconds.
        quartiles: Seconds that a quarter, and three quarters, took at most.
        slowest: Seconds that one in twenty took or more.
        images_per_second: Of the median.
    """

    runtime: str
    device: str
    batch: int
    repeats: int
    median: float
    quartiles: tuple[float, float]
    slowest: float
    images_per_second: float


def measure(forward: Callable[[], object], ran: tuple[str, str], batch: int, repeats: int) -> Latency:
    """Time a forward pass, after a few that are not counted.

    Args:
        forward: Runs it, and returns once it is done.
        ran: The runtime and the device, for the record.
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
    return Latency(*ran, batch, repeats, middle, (low, high), slowest, batch / middle)


def bench(
    embedder: Embedder, path: Path, timing: Timing = TIMING, *, progress: Progress | None = None
) -> dict[str, Any]:
    """Size and latency of a model.

    Args:
        embedder: The model.
        path: Where it was loaded from.
        timing: What is timed, and how.
        progress: Told of each measurement.

    Returns:
        What ``facekd bench --json`` writes: ``model``, ``digest``, ``parameters``, ``macs`` (None where the model does
        not show them), ``bytes``, ``exported_bytes`` (of the float32 file made of a PyTorch model to run it in
        onnxruntime and OpenCV, else None), ``threads``, ``latency`` and ``notes``.
    """
    found: list[Latency] = []
    notes: list[str] = []
    fixed = embedder.batch if isinstance(embedder, OnnxEmbedder) else None
    sizes = [fixed] if fixed else list(dict.fromkeys([1, timing.batch]))
    runners: dict[tuple[str, str], Prepare] = {}
    file = embedder if isinstance(embedder, OnnxEmbedder) else None
    with tempfile.TemporaryDirectory() as folder:
        if isinstance(embedder, TorchEmbedder):
            runners[("torch", embedder.device.type)] = lambda images: _torch_pass(embedder, images, timing.threads)
            file = _exported(embedder, Path(folder), notes) if timing.export else None
        exported_bytes = file.path.stat().st_size if file is not None and file is not embedder else None
        if file is not None:
            runners |= _file_runners(file, timing, notes)
        for ran, prepare in runners.items():
            for size in sizes:
                images = torch.from_numpy(probe_images(size, embedder.preprocessing.size))
                repeats = timing.repeats if size == 1 else max(3, timing.repeats // 3)
                found.append(measure(prepare(images), ran, size, repeats))
                if progress:
                    progress("measure", len(found), len(runners) * len(sizes))
    return {
        "model": embedder.name,
        "digest": embedder.digest,
        "parameters": embedder.parameters,
        "macs": known_macs(embedder),
        "bytes": file_bytes(path),
        "exported_bytes": exported_bytes,
        "threads": timing.threads,
        "latency": [asdict(entry) for entry in found],
        "notes": notes,
    }


Prepare = Callable[[torch.Tensor], Callable[[], object]]


def _exported(embedder: TorchEmbedder, folder: Path, notes: list[str]) -> OnnxEmbedder | None:
    """The float32 file that an export of the model makes, or None and a note."""
    path = folder / "exported.onnx"
    try:
        export_onnx(embedder, path, Form(), opencv=False)
    except (ExportError, InputError) as error:
        notes.append(f"measured in torch alone, for its export fails: {error.what}")
        return None
    return load_onnx(path, embedder.name, cuda=embedder.device.type == "cuda")


def _file_runners(embedder: OnnxEmbedder, timing: Timing, notes: list[str]) -> dict[tuple[str, str], Prepare]:
    """What runs a file, by runtime and device: images to a forward pass on them, preprocessing done before."""
    timed = with_threads(embedder, timing.threads)
    device = "cuda" if CUDA in timed.session.get_providers() else "cpu"
    runners: dict[tuple[str, str], Prepare] = {("onnxruntime", device): lambda images: _session_pass(timed, images)}
    if timing.opencv:
        try:
            net = open_net(embedder.path, threads=timing.threads)
            net.forward(
                embedder.prepare(torch.from_numpy(probe_images(embedder.batch or 1, embedder.preprocessing.size)))
            )
            runners[("opencv", "cpu")] = lambda images: _net_pass(net, embedder.prepare(images))
        except InputError as error:
            notes.append(error.what)
    return runners


def with_threads(embedder: OnnxEmbedder, threads: int) -> OnnxEmbedder:
    """The same model in a session of so many threads; of as many as onnxruntime likes for 0."""
    data, cuda = embedder.path.read_bytes(), CUDA in embedder.session.get_providers()
    return replace(embedder, session=open_session(data, str(embedder.path), threads=threads, cuda=cuda))


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
