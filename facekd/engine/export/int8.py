"""A float graph to one of 8-bit integers that keeps its embeddings: what hurts stays in float.

Each operation is tried alone in integers, on faces, and what it costs in cosine is its harm, in onnxruntime or in
OpenCV, whichever takes it worse (OpenCV 5.0 computes depthwise convolutions of 7 x 7 and more otherwise). Harms add up,
so the worst are left in float until the rest is expected to keep the limit. Weights are int8 in any case, for they do
little harm; an operation left in float takes them back to float when the file is opened. What integers shift all
embeddings by is added back at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facekd.engine.export.graph import add_to_output
from facekd.engine.export.qdq import operations, quantise, quantised_tensors
from facekd.engine.export.ranges import activation_ranges, run_graph, run_in_opencv
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto

MOST_HARM = 0.004
"""Of what integers may cost a mean cosine, as the sum over the operations that run in them."""
TRIED, TRIED_IN_OPENCV = 32, 8
"""Faces each operation is tried on."""
SHIFTED = 128
"""Faces the mean shift is taken from."""
LEAST_FACES = 40


@dataclass(frozen=True)
class Quantised:
    """What became of a graph.

    Attributes:
        faces: How many its ranges rest on.
        integer: Operations that run in integers.
        left: Names of those left in float, and the harm each would have done; the worst first.
        weights: What int8 weights alone cost in mean cosine.
    """

    faces: int
    integer: int
    left: dict[str, float]
    weights: float


def to_int8(
    model: ModelProto,
    pixels: np.ndarray,
    where: str,
    *,
    opencv: bool = False,
    poll: Poll | None = None,
    progress: Progress | None = None,
) -> tuple[ModelProto, Quantised]:
    """A copy of a graph that computes in integers wherever that does little harm.

    Args:
        model: The float graph; every node has a name.
        pixels: float32 (n, 3, height, width), what the graph takes, of faces.
        where: The file, for messages.
        opencv: Try each operation in OpenCV too.
        poll: Called between batches; may raise to stop.
        progress: Told of each operation tried.

    Raises:
        InputError: Nothing in it can run in integers, or the faces are too few.
    """
    known = operations(model)
    if len(pixels) < LEAST_FACES:
        fix = f"give {LEAST_FACES} or more beside those of the checks, which are as many as a fixed --batch"
        raise InputError(where, f"{len(pixels)} faces are too few to take ranges from", fix)
    if not any(operation.weight for operation in known):
        raise InputError(where, "holds nothing that could run in integers", "export it as fp16")
    everything = {operation.name for operation in known}
    weighted = {operation.name for operation in known if operation.weight}
    ranges = activation_ranges(model, quantised_tensors(model, everything), pixels, poll)
    few = pixels[:: max(1, len(pixels) // TRIED)][:TRIED]
    losses, bare = _losses(model, few, opencv, poll), quantise(model, {}, set(), weighted)
    base, harm = [loss(bare) for loss in losses], {}
    for count, name in enumerate(sorted(everything), start=1):
        made = quantise(model, ranges, {name}, weighted)
        harm[name] = max(loss(made) - least for loss, least in zip(losses, base, strict=True))
        if progress:
            progress("try in integers", count, len(everything))
    left = left_in_float(harm)
    chosen = everything - left.keys()
    quantised = quantise(model, ranges, chosen, weighted)
    many = pixels[:: max(1, len(pixels) // SHIFTED)][:SHIFTED]
    add_to_output(quantised, (run_graph(model, many, poll) - run_graph(quantised, many, poll)).mean(axis=0))
    return quantised, Quantised(len(pixels), len(chosen), left, base[0])


def left_in_float(harm: Mapping[str, float], most: float = MOST_HARM) -> dict[str, float]:
    """The operations that do the most harm, the worst first, as many as must go for the others to do little.

    Args:
        harm: What each operation costs in mean cosine when it alone runs in integers.
        most: What the others may cost together.

    Example:
        >>> left_in_float({"a": 0.001, "b": 0.5, "c": 0.004}, most=0.002)
        {'b': 0.5, 'c': 0.004}
    """
    worst = sorted(harm, key=lambda name: (-harm[name], name))
    left: dict[str, float] = {}
    for name in worst:
        if sum(max(0.0, harm[other]) for other in harm if other not in left) <= most:
            break
        left[name] = harm[name]
    return left


def _losses(
    model: ModelProto, pixels: np.ndarray, opencv: bool, poll: Poll | None
) -> list[Callable[[ModelProto], float]]:
    """What a changed graph loses of the embeddings of the float graph, in each runtime that is asked."""
    true, few = run_graph(model, pixels, poll), pixels[:TRIED_IN_OPENCV]
    found: list[Callable[[ModelProto], float]] = [lambda made: _lost(true, run_graph(made, pixels, poll))]
    if opencv:
        found.append(lambda made: _lost_in_opencv(true[: len(few)], made, few))
    return found


def _lost_in_opencv(true: np.ndarray, made: ModelProto, pixels: np.ndarray) -> float:
    """Nothing where OpenCV cannot run the graph, which is told of the finished file."""
    try:
        return _lost(true, run_in_opencv(made, pixels))
    except InputError:
        return 0.0


def _lost(true: np.ndarray, found: np.ndarray) -> float:
    """One minus the mean cosine; an embedding that is zero or not finite has lost everything."""
    found = np.where(np.isfinite(found).all(axis=1, keepdims=True), found, 0).astype(np.float64)
    lengths = np.linalg.norm(true, axis=1) * np.linalg.norm(found, axis=1)
    dot = (true * found).sum(axis=1)
    return float(1 - np.divide(dot, lengths, out=np.zeros_like(dot), where=lengths > 0).mean())
