"""Is a graph a float embedding network ready to run?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from facekd.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

INTEGER = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger")
OTHER_FLOATS = ("FLOAT16", "BFLOAT16", "DOUBLE")
CLASS_SCORES = ("Softmax", "LogSoftmax", "ArgMax", "TopK", "Sigmoid")


def check_sound(model: ModelProto, where: str) -> None:
    """Refuse a graph that is no float embedding network ready to run.

    Raises:
        ExportError: It computes in integers or in other floats than float32 already, holds a NaN or an infinity, has a
            layer in training mode, or ends in the scores of a classifier.
    """
    from onnx import TensorProto, numpy_helper

    graph = model.graph
    for weight in graph.initializer:
        kind = TensorProto.DataType.Name(weight.data_type)
        if kind in OTHER_FLOATS and np.prod(weight.dims) > 1:
            what = f"{weight.name} is {kind.lower()}: only float32 weights can be exported in another form"
            raise ExportError(where, what, "give the float32 file it was made from")
        value = numpy_helper.to_array(weight)
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            bad = int((~np.isfinite(value)).sum())
            raise ExportError(where, f"{weight.name}: {bad} non-finite values", "export it from sound weights")
    for node in graph.node:
        if node.op_type in INTEGER or node.op_type.startswith("QLinear"):
            raise ExportError(where, f"computes in integers already: {node.op_type}", "give the float file")
        if _trains(node, graph.initializer):
            raise ExportError(where, f"{node.op_type} {node.name} is in training mode", "export it in evaluation mode")
    last = next(node for node in graph.node if graph.output[0].name in node.output)
    if last.op_type in CLASS_SCORES:
        what = f"ends in {last.op_type}: the scores of a classifier, not an embedding"
        raise ExportError(where, what, "export the backbone without its head")


def _trains(node: NodeProto, weights: list[TensorProto]) -> bool:
    from onnx import numpy_helper

    if node.op_type == "BatchNormalization":
        return any(attribute.name == "training_mode" and attribute.i for attribute in node.attribute)
    if node.op_type != "Dropout" or len(node.input) < 3 or not node.input[2]:
        return False
    given = [numpy_helper.to_array(weight) for weight in weights if weight.name == node.input[2]]
    return not given or bool(given[0])
