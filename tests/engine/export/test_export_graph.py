"""Edits of a graph change names and add preprocessing, and nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekd.engine.export.graph import bake_preprocessing, bypass_identities, hide_from_insightface, set_metadata


def graph(nodes: list[onnx.NodeProto], output: str = "fc1") -> onnx.ModelProto:
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["batch", 3, 2, 2])
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["batch", 3, 2, 2])
    slope = numpy_helper.from_array(np.array([1, 10, 100], np.float32).reshape(3, 1, 1), "slope")
    made = helper.make_graph(nodes, "g", [data], [result], [slope])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, data: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"data": data.astype(np.float32)})[0]


def test_identities_of_weights_go_and_the_figures_stay() -> None:
    model = graph(
        [
            helper.make_node("Identity", ["slope"], ["a"]),
            helper.make_node("Identity", ["a"], ["b"]),
            helper.make_node("Mul", ["data", "b"], ["scaled"]),
            helper.make_node("Identity", ["scaled"], ["fc1"]),
        ]
    )
    data = np.arange(12).reshape(1, 3, 2, 2)
    before = run(model, data)
    bypass_identities(model)
    assert [(node.op_type, list(node.input)) for node in model.graph.node] == [
        ("Mul", ["data", "slope"]),
        ("Identity", ["scaled"]),
    ]
    np.testing.assert_array_equal(run(model, data), before)


@pytest.mark.parametrize("reverse", [False, True])
def test_baked_input_is_rgb_and_the_model_sees_its_own_order(reverse: bool) -> None:
    model = graph([helper.make_node("Mul", ["data", "slope"], ["fc1"])])
    bake_preprocessing(model, mean=(10.0, 20.0, 30.0), std=(2.0, 4.0, 8.0), reverse_channels=reverse)
    red, green, blue = 12.0, 28.0, 54.0
    data = np.ones((2, 3, 2, 2)) * np.array([red, green, blue]).reshape(1, 3, 1, 1)
    normalised = np.array([1.0, 2.0, 3.0])
    expected = (normalised[::-1] if reverse else normalised) * [1, 10, 100]
    np.testing.assert_array_equal(run(model, data)[1, :, 0, 0], expected)
    assert [node.name for node in model.graph.node[:2]] == ["Sub_mean", "Mul_std"]
    assert model.graph.input[0].name == "data"


def test_only_early_names_that_mislead_are_changed() -> None:
    nodes = [helper.make_node("Mul", ["data", "slope"], ["x0"], name="Mul_0")]
    nodes += [helper.make_node("Relu", [f"x{i}"], [f"x{i + 1}"], name=f"Relu_{i + 1}") for i in range(7)]
    nodes += [helper.make_node("Mul", ["x7", "slope"], ["fc1"], name="Mul_8")]
    model = graph(nodes)
    hide_from_insightface(model)
    names = [node.name for node in model.graph.node]
    assert names == ["node_Mul_0", *(f"Relu_{i}" for i in range(1, 8)), "Mul_8"]


def test_metadata_is_replaced() -> None:
    model = graph([helper.make_node("Relu", ["data"], ["fc1"])])
    set_metadata(model, {"a": "1", "b": "2"})
    set_metadata(model, {"b": "3"})
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("b", "3")]
