"""Is a graph a float embedding network ready to run?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from facekd.errors import InputError, NonFiniteError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

INTEGER = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
OTHER_FLOATS = ("FLOAT16", "BFLOAT16", "DOUBLE")
PRODUCTS = ("Gemm", "MatMul", "Conv")
AFTER_SCORES = ("Mul", "Add", "Sub", "Div", "Clip", "Identity", "Reshape", "Squeeze", "Flatten")
"""What may be done to the cosines of classes without making another thing of them."""
LAYOUT = ("Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze")
LENGTHS, SQUARES = ("ReduceL2", "Sqrt"), ("ReduceSum", "ReduceSumSquare", "Mul", "Pow")
AFTER_LENGTH = ("Clip", "Max", "Add", "Expand", "Identity", "Unsqueeze")
"""What keeps a length from zero, and gives it the shape of the embedding."""
CLASS_SCORES = ("Softmax", "LogSoftmax", "ArgMax", "TopK", "Sigmoid")


def check_sound(model: ModelProto, where: str) -> None:
    """Refuse a graph that is no float embedding network ready to run.

    Raises:
        InputError: It computes in integers or in other floats than float32 already, has a layer in training mode, or
            ends in a classifier: in its scores, or in cosines to its class weights.
        NonFiniteError: It holds a NaN or an infinity.
    """
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    for weight in graph.initializer:
        kind = TensorProto.DataType.Name(weight.data_type)
        if kind in OTHER_FLOATS and np.prod(weight.dims) > 1:
            what = f"{weight.name} is {kind.lower()}: only float32 weights can be exported in another form"
            raise InputError(where, what, "give the float32 file it was made from")
        value = numpy_helper.to_array(weight)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).sum())
            raise NonFiniteError(where, f"{weight.name}: {bad} non-finite values", "export it from sound weights")
    for node in graph.node:
        if node.op_type in INTEGER or node.op_type.startswith("QLinear"):
            raise InputError(where, f"computes in integers already: {node.op_type}", "give the float file")
        if _trains(node, graph.initializer):
            raise InputError(where, f"{node.op_type} {node.name} is in training mode", "export it in evaluation mode")
    embedding = normalised_before_head(model)
    if embedding:
        what = "ends in products of a normalised embedding with constant weights: the head of a classifier"
        cut = f"onnx.utils.extract_model(FILE, CUT, ['{graph.input[0].name}'], ['{embedding}'])"
        raise InputError(where, what, f"export the backbone without its head: {cut}")
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    if last.op_type in CLASS_SCORES:
        what = f"ends in {last.op_type}: the scores of a classifier, not an embedding"
        raise InputError(where, what, "export the backbone without its head")


def _trains(node: NodeProto, weights: list[TensorProto]) -> bool:
    from onnx import numpy_helper

    if node.op_type == "BatchNormalization":
        return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    given = [numpy_helper.to_array(weight) for weight in weights if weight.name == node.input[2]]
    return not given or bool(given[0])


def normalised_before_head(model: ModelProto) -> str:
    """The embedding that a graph brings to length one and then multiplies with constants to end, or an empty string.

    That is how the classifiers of margin losses end: a cosine a class, scaled and shifted perhaps. No embedding network
    ends so; attention, which normalises as well, multiplies what it normalised with something computed from the image.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    constant = _constants(model)

    def before(node: NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in constant]

    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in AFTER_SCORES and len(before(node)) == 1:
        node = makers.get(before(node)[0])
    if node is None or node.op_type not in PRODUCTS or len(before(node)) != 1:
        return ""
    source = makers.get(before(node)[0])
    while source is not None and source.op_type in LAYOUT:
        source = makers.get(source.input[0])
    return _brought_to_length_one(source, makers) if source is not None else ""


def _constants(model: ModelProto) -> set[str]:
    """Weights, and what is computed of weights alone."""
    found = {weight.name for weight in model.graph.initializer}
    for node in model.graph.node:
        if node.input and all(name in found or not name for name in node.input):
            found.update(node.output)
    return found


def _brought_to_length_one(node: NodeProto, makers: Mapping[str, NodeProto]) -> str:
    """What a node divides by its own length, or an empty string where it does something else."""
    if node.op_type == "LpNormalization":
        return node.input[0]
    if node.op_type != "Div":
        return ""
    raw, length = node.input[0], makers.get(node.input[1])
    while length is not None and length.op_type in AFTER_LENGTH:
        length = makers.get(length.input[0])
    if length is None or length.op_type not in LENGTHS:
        return ""
    while length is not None and length.op_type in (*LENGTHS, *AFTER_LENGTH, *SQUARES):
        if raw in length.input:
            return raw
        length = makers.get(length.input[0])
    return ""
