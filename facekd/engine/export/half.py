"""A float32 graph to one of 16 bits: weights and arithmetic of half the size, float32 in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facekd.engine.export.graph import sort_nodes
from facekd.errors import ExportError

if TYPE_CHECKING:
    from onnx import ModelProto


def to_half(model: ModelProto, where: str) -> ModelProto:
    """A copy of a graph with float16 weights and arithmetic; its input and output stay float32.

    Args:
        model: The float32 graph.
        where: The file, for messages.

    Raises:
        ExportError: It holds an operation that cannot be converted.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copy = type(model).FromString(model.SerializeToString())
    try:
        half: ModelProto = convert_float_to_float16(copy, keep_io_types=True)
    except (ValueError, TypeError, RuntimeError) as error:
        short = " ".join(str(error).split())[:160]
        raise ExportError(where, f"cannot be converted to fp16: {short}", "export it as fp32") from error
    sort_nodes(half)
    return half
