"""BatchNorm made part of the layer before it: a convolution, or a product with a constant matrix.

In evaluation BatchNorm is one factor and one shift a channel, so it can be multiplied into the weights of that layer.
Where what comes out is beyond float32, as with a variance of zero and hardly any epsilon, it stays as it is, and the
gate of the export judges what a runtime makes of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from facekd.engine.export.graph import drop_unused, replace_nodes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

Arrays = Mapping[str, np.ndarray]


def fold_batchnorm(model: ModelProto) -> None:
    """Make each BatchNorm part of the Conv, Gemm or MatMul before it, where nothing else reads that layer.

    A MatMul must be known to give (batch, channels), since BatchNorm works along the second side, and becomes a Gemm.

    Args:
        model: Changed in place.
    """
    from onnx import numpy_helper

    graph = model.graph
    values = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    makers = {node.output[0]: node for node in graph.node if node.op_type in ("Conv", "Gemm")}
    makers |= _flat_products(model, values)
    readers = Counter(name for node in graph.node for name in node.input)
    outputs = {value.name for value in graph.output}
    kept = []
    for node in graph.node:
        maker = makers.get(node.input[0]) if node.op_type == "BatchNormalization" else None
        alone = maker is not None and readers[node.input[0]] == 1 and node.input[0] not in outputs
        read = (*maker.input[1:], *node.input[1:5]) if maker is not None else ()
        known = alone and all(name in values for name in read if name)
        parts = _folded(maker, node, values) if maker is not None and known else None
        if maker is None or parts is None:
            kept.append(node)
            continue
        names = [f"{maker.output[0]}_folded_{kind}" for kind in ("weight", "bias")]
        for name, part in zip(names, parts, strict=True):
            graph.initializer.append(numpy_helper.from_array(part, name))
        _give(maker, names, node.output[0])
    replace_nodes(model, kept)
    drop_unused(model)


def _flat_products(model: ModelProto, values: Arrays) -> dict[str, NodeProto]:
    """The MatMul of a graph that multiply a (batch, n) activation with a constant matrix, by what they give."""
    from onnx.shape_inference import infer_shapes

    found = [node for node in model.graph.node if node.op_type == "MatMul"]
    found = [n for n in found if n.input[0] not in values and n.input[1] in values and values[n.input[1]].ndim == 2]
    if not found:
        return {}
    shapes = {value.name: value.type.tensor_type.shape for value in infer_shapes(model).graph.value_info}
    return {n.output[0]: n for n in found if n.output[0] in shapes and len(shapes[n.output[0]].dim) == 2}


def _folded(maker: NodeProto, norm: NodeProto, values: Arrays) -> tuple[np.ndarray, np.ndarray] | None:
    """The weight and bias of both layers in one, float32; None where they do not match or are no numbers."""
    weight = values[maker.input[1]].astype(np.float64)
    told = {attribute.name: attribute for attribute in (*maker.attribute, *norm.attribute)}
    gain, shift, mean, variance = (values[name].astype(np.float64) for name in norm.input[1:5])
    axis = 0 if maker.op_type == "Conv" or ("transB" in told and told["transB"].i) else 1
    bias = np.zeros_like(mean)
    if len(maker.input) > 2 and maker.input[2]:
        bias = values[maker.input[2]].astype(np.float64) * (told["beta"].f if "beta" in told else 1.0)
    if weight.shape[axis] != gain.size or (bias.ndim > 1 and bias.shape[0] != 1) or bias.size not in (1, gain.size):
        return None
    with np.errstate(all="ignore"):
        factor = gain / np.sqrt(variance + (told["epsilon"].f if "epsilon" in told else 1e-5))
        spread = [1] * weight.ndim
        spread[axis] = -1
        whole = (weight * factor.reshape(spread)).astype(np.float32)
        rest = ((bias.reshape(-1) - mean) * factor + shift).astype(np.float32)
    return (whole, rest) if np.isfinite(whole).all() and np.isfinite(rest).all() else None


def _give(maker: NodeProto, names: list[str], output: str) -> None:
    """Let a layer read a weight and a bias, and give what stood behind it."""
    del maker.input[1:]
    maker.input.extend(names)
    maker.output[0] = output
    if maker.op_type == "MatMul":
        maker.op_type = "Gemm"
    attributes = [attribute for attribute in maker.attribute if attribute.name != "beta"]
    kept = [type(attribute).FromString(attribute.SerializeToString()) for attribute in attributes]
    del maker.attribute[:]
    maker.attribute.extend(kept)
