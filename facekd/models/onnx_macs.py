"""Multiply-accumulates of an ONNX graph, counted as those of a PyTorch module are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from facekd.models.onnx_file import image_input, open_session

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

CARRIERS = ("DequantizeLinear", "Transpose", "Cast", "Identity", "Reshape")
"""What a weight may pass on its way to the layer that uses it."""


def count_onnx_macs(model: ModelProto, images: np.ndarray) -> int:
    """Multiply-accumulates of the convolutions and of the products with constant matrices, for one image.

    As :func:`facekd.models.macs.count_macs` counts them: products of two activations, as in attention, are left out.
    What a file adds is counted: a PReLU written as depthwise convolutions costs those. The graph is run once, for no
    inference of shapes follows all that exporters write.

    Args:
        model: A graph of one image input; left as it is.
        images: As many as it takes at once, as it takes them.

    Raises:
        InputError: onnxruntime refuses it.
    """
    from onnx import ValueInfoProto

    constants = _constants(model.graph)
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in constants]
    watched = type(model).FromString(model.SerializeToString())
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    wanted = sorted({name for node in layers for name in (node.input[1], node.output[0]) if name not in stored})
    given = {output.name for output in watched.graph.output}
    watched.graph.output.extend(ValueInfoProto(name=name) for name in wanted if name not in given)
    session = open_session(watched.SerializeToString(), "graph", threads=1)
    values = session.run(wanted, {image_input(model, "graph").name: images}) if wanted else []
    shapes = stored | {name: value.shape for name, value in zip(wanted, values, strict=True)}
    total = 0
    for node in layers:
        weight, outputs = shapes[node.input[1]], math.prod(shapes[node.output[0]])
        turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        total += outputs * (math.prod(weight[1:]) if node.op_type == "Conv" else weight[-1 if turned else -2])
    return total // len(images)


def _constants(graph: GraphProto) -> set[str]:
    """The tensors that no image changes."""
    found = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" or (
            node.op_type in CARRIERS and all(name in found for name in node.input if name)
        ):
            found.update(node.output)
    return found
