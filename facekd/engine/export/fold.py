"""Putting a float graph into one form, whoever wrote it: constants as weights, BatchNorm folded, names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from facekd.engine.export.batchnorm import fold_batchnorm
from facekd.engine.export.graph import bypass_identities, replace_nodes
from facekd.engine.export.soundness import check_sound
from facekd.errors import InputError

if TYPE_CHECKING:
    from onnx import ModelProto

INPUT, OUTPUT = "data", "fc1"
LEAST_OPSET = 13
"""From here on a scale may be one a channel."""


def fold(model: ModelProto, where: str) -> None:
    """Bring a float graph into the form the other edits expect, without changing what it computes.

    Constants become weights, a BatchNorm behind a convolution or a product becomes part of it, every node gets a name,
    input and output are called ``data`` and ``fc1``, and the opset is at least 13.

    Args:
        model: Changed in place.
        where: The file, for messages.

    Raises:
        InputError: As `check_sound`; or its opset cannot be raised.
        NonFiniteError: As `check_sound`.
    """
    _constants_to_weights(model)
    bypass_identities(model)
    check_sound(model, where)
    _raise_opset(model, where)
    fold_batchnorm(model)
    _rename(model, model.graph.input[0].name, INPUT)
    _rename(model, model.graph.output[0].name, OUTPUT)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    if len({node.name for node in model.graph.node}) < len(model.graph.node):
        for number, node in enumerate(model.graph.node):
            node.name = f"{node.op_type}_{number}"


def state_shapes(model: ModelProto, batch: str | int, size: tuple[int, int], embedding_size: int) -> None:
    """Let a graph say what it takes and gives, whatever it left open: (batch, 3, height, width) and (batch, dim).

    Args:
        model: Changed in place.
        batch: ``dynamic`` or a number.
        size: (height, width).
        embedding_size: Of the embedding.
    """
    first = "batch" if batch == "dynamic" else int(batch)
    for value, sides in ((model.graph.input[0], (3, *size)), (model.graph.output[0], (embedding_size,))):
        shape = value.type.tensor_type.shape
        shape.ClearField("dim")
        for side in (first, *sides):
            shape.dim.add(**{"dim_param" if isinstance(side, str) else "dim_value": side})


def _raise_opset(model: ModelProto, where: str) -> None:
    from onnx import version_converter

    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset >= LEAST_OPSET:
        return
    try:
        model.CopyFrom(version_converter.convert_version(model, LEAST_OPSET))
    except Exception as error:
        short = " ".join(str(error).split())[:160]
        raise InputError(where, f"cannot be raised from opset {opset}: {short}", "export it at opset 13") from error


def _constants_to_weights(model: ModelProto) -> None:
    graph = model.graph
    kept, known = [], {weight.name for weight in graph.initializer}
    for node in graph.node:
        tensor = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        if node.op_type != "Constant" or tensor is None:
            kept.append(node)
            continue
        added = graph.initializer.add()
        added.CopyFrom(tensor)
        added.name = node.output[0]
        known.add(added.name)
    replace_nodes(model, kept)
    inputs = [value for value in graph.input if value.name not in known]
    del graph.input[:]
    graph.input.extend([type(value).FromString(value.SerializeToString()) for value in inputs])


def _rename(model: ModelProto, old: str, new: str) -> None:
    """Give a tensor a name, and whatever had that name another."""
    graph = model.graph
    if old == new:
        return
    spare = f"{new}_before"
    names = {old: new, new: spare}
    for node in graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)
