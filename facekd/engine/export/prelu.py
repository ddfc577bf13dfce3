"""PReLU in other words: exact algebra meant for onnxruntime on a CPU.

onnxruntime keeps convolutions in a blocked layout, for which it has no PReLU: every PReLU makes it lay the map out
anew, twice. A depthwise 1x1 convolution with one factor a channel and a ReLU it has, and with slope a and a <= 1

    prelu(x) = a x + relu((1 - a) x)

for x > 0 is a x + (1 - a) x = x, and for x < 0 the second term is zero. Slopes above 1 take

    prelu(x) = relu(x) - a relu(-x)

with depthwise factors -1 and -a. Nothing but rounding differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from facekd.engine.export.graph import drop_unused, replace_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto


def rewrite_prelu(model: ModelProto) -> int:
    """Write every PReLU over a map with channels as depthwise convolutions and ReLU; others stay.

    A PReLU stays where its slopes are computed, are not one number or one a channel, or where the graph does not tell
    that its input is (batch, channels, height, width).

    Args:
        model: Changed in place.

    Returns:
        How many were rewritten.
    """
    from onnx import numpy_helper

    graph = model.graph
    slopes = {weight.name: weight for weight in graph.initializer}
    channels = _channels(model)
    nodes: list[NodeProto] = []
    written: dict[str, str] = {}
    count = 0
    for node in graph.node:
        known = node.op_type == "PRelu" and node.input[1] in slopes and node.input[0] in channels
        slope = _per_channel(numpy_helper.to_array(slopes[node.input[1]]), channels[node.input[0]]) if known else None
        if slope is None:
            nodes.append(node)
            continue
        nodes += _nodes(model, node, slope, count, written)
        count += 1
    if count:
        replace_nodes(model, nodes)
        drop_unused(model)
    return count


def _channels(model: ModelProto) -> dict[str, int]:
    """Channels of every tensor known to have four sides."""
    from onnx.shape_inference import infer_shapes

    graph = infer_shapes(model).graph
    found = {}
    for value in (*graph.value_info, *graph.input):
        sides = value.type.tensor_type.shape.dim
        if len(sides) == 4 and sides[1].dim_value > 0:
            found[value.name] = int(sides[1].dim_value)
    return found


def _per_channel(slope: np.ndarray, channels: int) -> np.ndarray | None:
    """One float32 slope a channel, or None where the slopes are something else."""
    if slope.dtype != np.float32 or not np.isfinite(slope).all():
        return None
    if slope.size == 1:
        return np.full(channels, slope.item(), np.float32)
    along_channels = slope.ndim >= 3 and slope.shape[-3:] == (channels, 1, 1)
    return slope.reshape(channels) if along_channels and slope.size == channels else None


def _nodes(
    model: ModelProto, node: NodeProto, slope: np.ndarray, number: int, written: dict[str, str]
) -> Iterator[NodeProto]:
    from onnx import helper

    x, y, name = node.input[0], node.output[0], f"prelu_{number}"

    def depthwise(source: str, factors: np.ndarray, target: str) -> NodeProto:
        weight = _weight(model, factors, written)
        return helper.make_node(
            "Conv", [source, weight], [target], name=f"{target}_depthwise", group=slope.size, kernel_shape=[1, 1]
        )

    def relu(source: str, target: str) -> NodeProto:
        return helper.make_node("Relu", [source], [target], name=f"{target}_relu")

    if slope.max() <= 1:
        yield depthwise(x, slope, f"{name}_line")
        yield depthwise(x, 1 - slope, f"{name}_rest")
        yield relu(f"{name}_rest", f"{name}_right")
        yield helper.make_node("Add", [f"{name}_line", f"{name}_right"], [y], name=f"{name}_sum")
        return
    yield relu(x, f"{name}_right")
    yield depthwise(x, -np.ones_like(slope), f"{name}_turned")
    yield relu(f"{name}_turned", f"{name}_left")
    yield depthwise(f"{name}_left", -slope, f"{name}_line")
    yield helper.make_node("Add", [f"{name}_right", f"{name}_line"], [y], name=f"{name}_sum")


def _weight(model: ModelProto, factors: np.ndarray, written: dict[str, str]) -> str:
    """The name of a depthwise weight with these factors; equal ones are stored once."""
    from onnx import numpy_helper

    key = factors.tobytes().hex()
    if key not in written:
        written[key] = f"prelu_weight_{len(written)}"
        model.graph.initializer.append(numpy_helper.from_array(factors.reshape(-1, 1, 1, 1), written[key]))
    return written[key]
