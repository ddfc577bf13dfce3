"""Edits of an ONNX graph that leave its figures alone: names, preprocessing nodes, metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto

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
    _replace_nodes(model, kept)


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
    _replace_nodes(model, nodes + list(graph.node))


def hide_from_insightface(model: ModelProto) -> None:
    """Rename early nodes whose names would make InsightFace's Python package leave out the normalisation."""
    for node in model.graph.node[:INSIGHTFACE_NODES]:
        if node.name.startswith(INSIGHTFACE_NAMES):
            node.name = f"node_{node.name}"


def set_metadata(model: ModelProto, values: Mapping[str, str]) -> None:
    """Replace the file's ``metadata_props`` by ``values``."""
    from onnx import helper

    helper.set_model_props(model, dict(values))


def _replace_nodes(model: ModelProto, nodes: list) -> None:
    kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(kept)
