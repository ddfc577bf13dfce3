"""What a model costs: parameters, multiply-accumulates, bytes, and the time one image takes here."""

from __future__ import annotations

import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from facekd.errors import InputError
from facekd.model_names import is_model_name
from facekd.models.embedder import Embedder, TorchEmbedder, model_file
from facekd.models.macs import count_macs
from facekd.models.onnx_file import parse
from facekd.models.onnx_macs import count_onnx_macs
from facekd.models.onnx_model import OnnxEmbedder
from facekd.models.preprocessing_ways import scaling_name
from facekd.models.weights import read_bytes

WARM_UP, RUNS = 2, 9
MOST_SECONDS = 3.0
"""After so long no further run is begun."""


@dataclass(frozen=True)
class ModelFacts:
    """A model beside its figures; what is not known is None.

    Attributes:
        name: What results call it.
        digest: SHA-256 of its file.
        parameters: Values in its parameters.
        macs: Multiply-accumulates of one image.
        bytes: Size of its file.
        embedding_size: Width of the embedding.
        input: What it expects of its images, in words.
        milliseconds: Median time of one image, not mirrored.
        runs: How many runs that is the median of.
        machine: Where they were run.
    """

    name: str
    digest: str
    parameters: int | None = None
    macs: int | None = None
    bytes: int | None = None
    embedding_size: int | None = None
    input: str | None = None
    milliseconds: float | None = None
    runs: int = 0
    machine: str | None = None


def model_facts(embedder: Embedder, path: Path) -> ModelFacts:
    """Look at a model and time it.

    Args:
        embedder: The model.
        path: Where it was loaded from.
    """
    how = embedder.preprocessing
    height, width = how.size
    milliseconds, runs = _latency(embedder)
    return ModelFacts(
        name=embedder.name,
        digest=embedder.digest,
        parameters=embedder.parameters,
        macs=known_macs(embedder),
        bytes=file_bytes(path),
        embedding_size=embedder.embedding_size,
        input=f"{width}x{height} {how.color.upper()}, {scaling_name(how)}",
        milliseconds=milliseconds,
        runs=runs,
        machine=_machine(embedder),
    )


def _latency(embedder: Embedder) -> tuple[float, int]:
    image = torch.zeros((1, 3, *embedder.preprocessing.size), dtype=torch.uint8)
    times: list[float] = []
    began = time.perf_counter()
    for run in range(WARM_UP + RUNS):
        start = time.perf_counter()
        embedder.embed(image).cpu()
        times += [time.perf_counter() - start] if run >= WARM_UP else []
        if times and time.perf_counter() - began > MOST_SECONDS:
            break
    return 1000 * statistics.median(times), len(times)


def known_macs(embedder: Embedder) -> int | None:
    """Multiply-accumulates of one image; None where the model does not show them."""
    if isinstance(embedder, TorchEmbedder) and len(set(embedder.preprocessing.size)) == 1:
        return count_macs(embedder.module, embedder.preprocessing.size[0])
    if isinstance(embedder, OnnxEmbedder):
        images = torch.zeros((embedder.batch or 1, 3, *embedder.preprocessing.size), dtype=torch.uint8)
        return count_onnx_macs(parse(read_bytes(embedder.path), embedder.name), embedder.prepare(images))
    return None


def file_bytes(path: Path) -> int | None:
    """Size of the file of a model, given as ``facekd eval`` takes it; None where it has none here."""
    if is_model_name(path):
        return None
    try:
        return model_file(path).stat().st_size
    except (InputError, OSError):
        return None


def _machine(embedder: Embedder) -> str:
    if isinstance(embedder, TorchEmbedder) and embedder.device.type == "cuda":
        return torch.cuda.get_device_name(embedder.device)
    kind = platform.processor() or platform.machine()
    return f"{kind} CPU (PyTorch: {torch.get_num_threads()} thread{'' if torch.get_num_threads() == 1 else 's'})"
