"""Running a graph on real faces: its embeddings, and the range each of its activations takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from facekd.data.opencv_net import read_net
from facekd.engine.signals import Poll
from facekd.models.onnx_file import open_session

if TYPE_CHECKING:
    from onnx import ModelProto

BINS = 4096
BATCH = 16
PERCENT = 99.999
"""Of the values of an activation, as many lie within its range, counted from either end."""


def activation_ranges(
    model: ModelProto, tensors: Sequence[str], pixels: np.ndarray, poll: Poll | None = None
) -> dict[str, tuple[float, float]]:
    """The range of each activation over faces, without the rarest values at either end.

    Args:
        model: A float graph.
        tensors: Names of activations of it.
        pixels: float32 (n, 3, height, width), what the graph takes.
        poll: Called between batches; may raise to stop.

    Returns:
        By name, the values that 99.999 percent lie above and below; an end beyond zero is zero.
    """
    low = dict.fromkeys(tensors, np.inf)
    high = dict.fromkeys(tensors, -np.inf)
    for batch in _watched(model, tensors, pixels, poll):
        for name, value in batch.items():
            low[name] = min(low[name], float(value.min()))
            high[name] = max(high[name], float(value.max()))
    counts = {name: np.zeros(BINS) for name in tensors}
    edges = {name: np.linspace(low[name], max(high[name], low[name] + 1e-6), BINS + 1) for name in tensors}
    for batch in _watched(model, tensors, pixels, poll):
        for name, value in batch.items():
            counts[name] += np.histogram(value, edges[name])[0]
    return {name: _within(counts[name], edges[name]) for name in tensors}


def _within(counts: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    share = counts.cumsum() / counts.sum()
    rare = 1 - PERCENT / 100
    low = edges[int(np.searchsorted(share, rare, side="right"))]
    high = edges[min(int(np.searchsorted(share, 1 - rare)) + 1, len(edges) - 1)]
    return min(0.0, float(low)), max(0.0, float(high))


def run_graph(model: ModelProto, pixels: np.ndarray, poll: Poll | None = None) -> np.ndarray:
    """The embeddings (n, dim) a graph gives of what it takes, (n, 3, height, width)."""
    return np.concatenate([batch[""] for batch in _watched(model, [], pixels, poll)])


def run_in_opencv(model: ModelProto, pixels: np.ndarray) -> np.ndarray:
    """As `run_graph`, in OpenCV.

    Raises:
        InputError: OpenCV cannot run the graph.
    """
    net = read_net(model.SerializeToString(), "graph")
    return np.concatenate([net.forward(filled)[: len(batch)] for batch, filled in _batches(model, pixels)])


def _batches(model: ModelProto, pixels: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches, and what the graph is given of each: a fixed batch is filled up with faces once more."""
    fixed = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    for start in range(0, len(pixels), fixed or BATCH):
        batch = pixels[start : start + (fixed or BATCH)]
        yield batch, batch[np.arange(fixed) % len(batch)] if fixed else batch


def _watched(
    model: ModelProto, tensors: Sequence[str], pixels: np.ndarray, poll: Poll | None
) -> Iterator[dict[str, np.ndarray]]:
    """Batch by batch, the activations by name; without any, the embeddings under an empty name."""
    from onnx import ValueInfoProto

    watched = type(model).FromString(model.SerializeToString())
    data, output = watched.graph.input[0].name, watched.graph.output[0].name
    wanted = [name for name in tensors if name != data]
    watched.graph.output.extend(ValueInfoProto(name=name) for name in wanted if name != output)
    session = open_session(watched.SerializeToString(), "float graph", threads=torch.get_num_threads())
    for batch, filled in _batches(model, pixels):
        if poll:
            poll()
        values = session.run(wanted or [output], {data: filled})
        kept = [value[: len(batch)] if value.shape[:1] == (len(filled),) else value for value in values]
        yield dict(zip(wanted or [""], kept, strict=True)) | ({data: batch} if data in tensors else {})
