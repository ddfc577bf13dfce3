"""Edits of an ONNX graph that leave its figures alone: names, preprocessing nodes, metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto

INSIGHTFACE_NAMES = ("Sub", "_minus", "Mul", "_mul")
"""Beginnings of node names by which InsightFace's Python package tells that a file normalises its own input."""
INSIGHTFACE_NODES = 8
"""How many nodes that package looks at."""


def bypass_identities(model: ModelProto) -> None:
    """Remove the Identity nodes that only give a weight a second name.

    The TorchScript exporter stores equal weights once and hands them on through Identity; other tools then fail to see
    a constant weight, and the first nodes of the graph are no operations.
    """
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    outputs = {value.name for value in graph.output}
    same: dict[str, str] = {}
    kept = []
    for node in graph.node:
        source = same.get(node.input[0], node.input[0]) if node.input else ""
        if node.op_type == "Identity" and source in weights and node.output[0] not in outputs:
            same[node.output[0]] = source
            continue
        for index, name in enumerate(node.input):
            node.input[index] = same.get(name, name)
        kept.append(node)
    replace_nodes(model, kept)


def bake_preprocessing(
    model: ModelProto, *, mean: tuple[float, ...], std: tuple[float, ...], reverse_channels: bool
) -> None:
    """Put the model's preprocessing in front of the graph, so that it takes RGB values 0..255.

    The first two nodes are called ``Sub_mean`` and ``Mul_std``: InsightFace's Python package goes by those names, and
    normalises a second time when it does not find them.

    Args:
        model: A graph with one input, in the model's own colour order; changed in place.
        mean: Three values subtracted, in the order red, green, blue.
        std: Three values divided by, in the same order.
        reverse_channels: The model itself wants blue, green, red.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    data, prepared = graph.input[0].name, "prepared"
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = prepared if name == data else name
    shape = (1, 3, 1, 1)
    graph.initializer.append(numpy_helper.from_array(np.array(mean, np.float32).reshape(shape), "mean"))
    scale = (1 / np.array(std, np.float64)).astype(np.float32).reshape(shape)
    graph.initializer.append(numpy_helper.from_array(scale, "scale"))
    scaled = "scaled" if reverse_channels else prepared
    nodes = [
        helper.make_node("Sub", [data, "mean"], ["centred"], name="Sub_mean"),
        helper.make_node("Mul", ["centred", "scale"], [scaled], name="Mul_std"),
    ]
    if reverse_channels:
        graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "bgr"))
        nodes.append(helper.make_node("Gather", [scaled, "bgr"], [prepared], name="Gather_bgr", axis=1))
    replace_nodes(model, nodes + list(graph.node))


def hide_from_insightface(model: ModelProto) -> None:
    """Rename early nodes whose names would make InsightFace's Python package leave out the normalisation."""
    for node in model.graph.node[:INSIGHTFACE_NODES]:
        if node.name.startswith(INSIGHTFACE_NAMES):
            node.name = f"node_{node.name}"


def set_metadata(model: ModelProto, values: Mapping[str, str]) -> None:
    """Replace the file's ``metadata_props`` by ``values``."""
    from onnx import helper

    helper.set_model_props(model, dict(values))


def add_unit_length(model: ModelProto) -> None:
    """Divide the embedding by its length, as the last step of the graph.

    In single steps, for OpenCV's own layer adds to the length what a short embedding notices.
    """
    from onnx import helper, numpy_helper

    raw, output = _before_output(model, "raw")
    model.graph.initializer.append(numpy_helper.from_array(np.array([1], np.int64), "unit_axis"))
    model.graph.node.extend(
        [
            helper.make_node("Mul", [raw, raw], ["unit_squares"], name="Unit_squares"),
            helper.make_node("ReduceSum", ["unit_squares", "unit_axis"], ["unit_sum"], name="Unit_sum", keepdims=1),
            helper.make_node("Sqrt", ["unit_sum"], ["unit_length"], name="Unit_length"),
            helper.make_node("Div", [raw, "unit_length"], [output], name="Unit_divide"),
        ]
    )


def drop_unit_length(model: ModelProto) -> None:
    """Undo `add_unit_length` where a graph ends in it: what is done to an embedding comes before its length."""
    graph = model.graph
    output = graph.output[0].name
    makers = {name: node for node in graph.node for name in node.output}
    found = [makers[output]]
    for kind in ("Div", "Sqrt", "ReduceSum", "Mul"):
        if found[-1].op_type != kind:
            return
        found.append(makers.get(found[-1].input[1 if kind == "Div" else 0], found[-1]))
    divide, raw = found[0], found[0].input[0]
    if list(found[3].input) != [raw, raw]:
        return
    gone = [node.name for node in found[:4]]
    replace_nodes(model, [node for node in graph.node if node.name not in gone])
    for node in model.graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = divide.output[0] if name == raw else name
    drop_unused(model)


def add_to_output(model: ModelProto, shift: np.ndarray) -> None:
    """Add a constant (dim,) to the embedding, as the last step of the graph."""
    from onnx import helper, numpy_helper

    before, output = _before_output(model, "unshifted")
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(shift, np.float32), f"{output}_shift"))
    model.graph.node.append(helper.make_node("Add", [before, f"{output}_shift"], [output], name="Mean_shift"))


def _before_output(model: ModelProto, kind: str) -> tuple[str, str]:
    """A new name for what the graph has given so far, and the name that its output keeps."""
    output = model.graph.output[0].name
    before = f"{output}_{kind}"
    for node in model.graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = before if name == output else name
    return before, output


def take_pictures(model: ModelProto) -> None:
    """Let the graph take pictures as cameras and OpenCV give them: uint8 (batch, height, width, 3), blue, green, red.

    Args:
        model: Takes RGB values 0..255 as float (batch, 3, height, width), as `bake_preprocessing` leaves it; changed in
            place.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    data = graph.input[0]
    batch, _, height, width = (side.dim_param or side.dim_value for side in data.type.tensor_type.shape.dim)
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = "rgb" if name == data.name else name
    graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0], np.int64), "rgb_order"))
    nodes = [
        helper.make_node("Cast", [data.name], ["picture"], name="Picture_float", to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["picture"], ["planes"], name="Picture_planes", perm=[0, 3, 1, 2]),
        helper.make_node("Gather", ["planes", "rgb_order"], ["rgb"], name="Picture_rgb", axis=1),
    ]
    data.CopyFrom(helper.make_tensor_value_info(data.name, TensorProto.UINT8, [batch, height, width, 3]))
    replace_nodes(model, nodes + list(graph.node))


def drop_unused(model: ModelProto) -> None:
    """Remove the weights nobody reads."""
    graph = model.graph
    read = _read(graph)
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _read(graph: GraphProto) -> set[str]:
    """Names that the nodes of a graph, of graphs inside them, and its outputs refer to."""
    found = {value.name for value in graph.output}
    for node in graph.node:
        found.update(node.input)
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                found |= _read(inner)
    return found


def sort_nodes(model: ModelProto) -> None:
    """Put every node behind those it reads, and change the order no more than that takes."""
    waiting = list(model.graph.node)
    made_later = {name for node in waiting for name in node.output}
    nodes: list = []
    while waiting:
        first = next((node for node in waiting if not made_later.intersection(node.input)), None)
        if first is None:
            raise ValueError("the nodes read each other in a circle")
        nodes.append(first)
        waiting.remove(first)
        made_later.difference_update(first.output)
    replace_nodes(model, nodes)


def replace_nodes(model: ModelProto, nodes: list) -> None:
    """Give a graph these nodes, which may be some of its own, in this order."""
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
