"""A float graph to one of 8-bit integers: QuantizeLinear and DequantizeLinear around what runs in integers.

Weights are int8, one scale a channel, symmetric; activations uint8, one scale and zero point a tensor; biases int32.
Convolutions, products with constant matrices, and sums of two maps run in integers; what is left out keeps float
arithmetic. A ReLU or a clip behind a quantised operation is done by the bounds of uint8 itself and goes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from facekd.engine.export.graph import drop_unused, replace_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

WEIGHTED = ("Conv", "Gemm", "MatMul")
BOUNDED = ("Relu", "Clip")
Ranges = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Operation:
    """One operation that can run in integers.

    Attributes:
        name: Of its node.
        inputs: Its activations.
        output: Its result, behind a ReLU or clip that nothing else reads before.
        weight: Its constant weight, or an empty string for a sum.
        axis: Of the weight's output channels.
        bound: The node of that ReLU or clip, or an empty string.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    weight: str
    axis: int
    bound: str


def operations(model: ModelProto) -> list[Operation]:
    """Every operation of a graph that can run in integers, in the order of the graph; its nodes have names."""
    graph = model.graph
    weights = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    outputs = {value.name for value in graph.output}
    readers = Counter(name for node in graph.node for name in node.input)
    bounded = {node.input[0]: node for node in graph.node if node.op_type in BOUNDED}
    found = []
    for node in graph.node:
        if node.op_type in WEIGHTED and len(node.input) > 1 and node.input[1] in weights:
            inputs, weight = (node.input[0],), node.input[1]
            if node.input[0] in weights or (node.op_type == "MatMul" and len(weights[weight]) != 2):
                continue
        elif node.op_type == "Add" and not any(name in weights for name in node.input):
            inputs, weight = tuple(node.input), ""
        else:
            continue
        output, bound = node.output[0], ""
        after = bounded.get(output)
        if after is not None and readers[output] == 1 and output not in outputs and _constant_bounds(after, weights):
            output, bound = after.output[0], after.name
        found.append(Operation(node.name, inputs, output, weight, _axis(node), bound))
    return found


def quantised_tensors(model: ModelProto, chosen: Set[str]) -> list[str]:
    """The activations that become uint8 when these operations run in integers."""
    outputs = {value.name for value in model.graph.output}
    found: dict[str, None] = {}
    for operation in operations(model):
        if operation.name in chosen:
            found.update(dict.fromkeys(operation.inputs))
            if operation.output not in outputs:
                found[operation.output] = None
    return list(found)


def quantise(model: ModelProto, ranges: Ranges, chosen: Set[str], stored: Set[str] = frozenset()) -> ModelProto:
    """A copy of a float graph in which some operations run in integers.

    Args:
        model: Its nodes have names.
        ranges: The least and largest value of each of `quantised_tensors`.
        chosen: Names of the operations that run in integers.
        stored: Names of weighted operations that run in float and only keep their weight as int8.
    """
    quantised = type(model).FromString(model.SerializeToString())
    graph = quantised.graph
    known = operations(quantised)
    tensors = quantised_tensors(quantised, chosen)
    gone = {op.bound for op in known if op.name in chosen and op.bound and ranges[op.output][0] >= 0}
    writer = _Writer(quantised)
    nodes: list[NodeProto] = []
    nodes += writer.pairs(tensors, ranges, [graph.input[0].name])
    by_name = {op.name: op for op in known}
    for node in graph.node:
        if node.name in gone:
            nodes += writer.pairs(tensors, ranges, node.output)
            continue
        op = by_name.get(node.name)
        if op is not None and op.weight and op.name in (chosen | stored):
            scale = writer.scales.get(op.inputs[0]) if op.name in chosen else None
            nodes += writer.weigh(node, op, scale)
        for index, name in enumerate(node.input):
            node.input[index] = writer.read_as.get(name, name)
        if op is not None and op.bound in gone:
            node.output[0] = op.output
        nodes.append(node)
        if op is None or op.bound not in gone:
            nodes += writer.pairs(tensors, ranges, node.output)
    replace_nodes(quantised, nodes)
    drop_unused(quantised)
    return quantised


def _axis(node: NodeProto) -> int:
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _constant_bounds(node: NodeProto, weights: Mapping[str, tuple[int, ...]]) -> bool:
    return all(not name or name in weights for name in node.input[1:])


class _Writer:
    """The constants and nodes of quantisation; equal constants are stored once."""

    def __init__(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        self.graph = model.graph
        self.values = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}
        self.read_as: dict[str, str] = {}
        self.scales: dict[str, float] = {}
        self._stored: dict[tuple, str] = {}

    def constant(self, value: np.ndarray, kind: str) -> str:
        from onnx import numpy_helper

        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._stored:
            self._stored[key] = f"q8_{kind}{len(self._stored)}"
            self.graph.initializer.append(numpy_helper.from_array(value, self._stored[key]))
        return self._stored[key]

    def pairs(self, tensors: list[str], ranges: Ranges, names: list[str]) -> Iterator[NodeProto]:
        """Quantise and dequantise what has just been computed, where it is wanted so."""
        from onnx import helper

        for name in names:
            if name not in tensors:
                continue
            low, high = min(ranges[name][0], 0.0), max(ranges[name][1], 0.0)
            scale = np.float32(max((high - low) / 255, 1e-12))
            zero = np.uint8(np.clip(round(-low / float(scale)), 0, 255))
            given = [self.constant(np.array(scale), "s"), self.constant(np.array(zero), "z")]
            yield helper.make_node("QuantizeLinear", [name, *given], [f"{name}_q"])
            yield helper.make_node("DequantizeLinear", [f"{name}_q", *given], [f"{name}_d"])
            self.read_as[name] = f"{name}_d"
            self.scales[name] = float(scale)

    def weigh(self, node: NodeProto, op: Operation, scale: float | None) -> Iterator[NodeProto]:
        """Put an int8 weight, and where the input's scale is given an int32 bias, in place of the float ones.

        Without it, the weight becomes float again by a cast and a product, which runtimes do once, when they open the
        file; behind DequantizeLinear, onnxruntime would round the input of a product with it as well.
        """
        from onnx import TensorProto, helper

        weight = self.values[op.weight]
        steps = weight_steps(weight, op.axis)
        shape = [1] * weight.ndim
        shape[op.axis] = -1
        whole = np.clip(np.rint(weight / steps.reshape(shape)), -127, 127).astype(np.int8)
        names = [self.constant(whole, "w"), self.constant(steps if scale else steps.reshape(shape), "s")]
        node.input[1] = f"{node.name}_w"
        if scale is None:
            yield helper.make_node("Cast", names[:1], [f"{node.name}_c"], to=TensorProto.FLOAT)
            yield helper.make_node("Mul", [f"{node.name}_c", names[1]], [f"{node.name}_w"])
            return
        names.append(self.constant(np.zeros(steps.size, np.int8), "z"))
        yield helper.make_node("DequantizeLinear", names, [f"{node.name}_w"], axis=op.axis)
        if len(node.input) < 3 or node.input[2] not in self.values:
            return
        parts = (steps.astype(np.float64) * scale).astype(np.float32)
        bias = np.rint(self.values[node.input[2]] / parts.astype(np.float64))
        whole_bias = np.clip(bias, -(2**31), 2**31 - 1).astype(np.int32)
        names = [self.constant(whole_bias, "b"), self.constant(parts, "s")]
        yield helper.make_node("DequantizeLinear", names, [f"{node.name}_b"], axis=0)
        node.input[2] = f"{node.name}_b"


def weight_steps(weight: np.ndarray, axis: int) -> np.ndarray:
    """The step of each output channel's int8 weights, float32 (channels,): as small as no sum overflows.

    Processors without VNNI add two neighbouring products of uint8 and int8 in 16 bits, and what does not fit is cut off
    there without a word. 255 times 128 fits, so neighbours of one sign may be 127 together before they are rounded;
    neighbours in the order height, width, channels, in which convolutions are summed up. A depthwise convolution has no
    such sums.

    Example:
        >>> weight_steps(np.array([[127.0, -1.0], [0.0, 254.0]], np.float32), 0).tolist()
        [1.0, 2.0]
        >>> weight_steps(np.array([[127.0, 127.0]], np.float32), 0).tolist()
        [2.0]
    """
    rows = np.moveaxis(weight, axis, 0).astype(np.float64)
    rows = np.moveaxis(rows, 1, -1).reshape(len(rows), -1)
    steps = np.abs(rows).max(axis=1) / 127
    if rows.shape[1] > 1 and not (weight.ndim == 4 and weight.shape[1] == 1):
        together = np.abs(rows[:, :-1] + rows[:, 1:]) * (rows[:, :-1] * rows[:, 1:] > 0)
        steps = np.maximum(steps, together.max(axis=1) / 127)
    return np.where(steps > 0, steps, 1.0).astype(np.float32)
