"""PReLU in other words is PReLU, to rounding, for any slope; and what is none of its business stays."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from facekd.engine.export.prelu import rewrite_prelu


def graph(slope: np.ndarray, sides: list[object], *, computed: bool = False) -> onnx.ModelProto:
    data = helper.make_tensor_value_info("data", TensorProto.FLOAT, sides)
    result = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, sides)
    weights = [numpy_helper.from_array(slope, "slope")]
    nodes = [helper.make_node("PRelu", ["data", "given" if computed else "slope"], ["fc1"], name="act")]
    if computed:
        nodes.insert(0, helper.make_node("Abs", ["slope"], ["given"]))
    made = helper.make_graph(nodes, "g", [data], [result], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def run(model: onnx.ModelProto, data: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"data": data})[0]


SLOPES = {
    "ordinary": [0.25, -0.5, 0.0, 1.0],
    "steeper than one": [0.25, 3.0, -2.0, 1.5],
    "all equal": [0.1, 0.1, 0.1, 0.1],
}


@pytest.mark.parametrize("name", SLOPES)
def test_the_rewritten_graph_is_torch_s_prelu(name: str) -> None:
    slope = np.array(SLOPES[name], np.float32)
    model = graph(slope.reshape(4, 1, 1), ["batch", 4, 5, 6])
    assert rewrite_prelu(model) == 1
    kinds = [node.op_type for node in model.graph.node]
    assert "PRelu" not in kinds and kinds.count("Conv") == 2
    assert "slope" not in {weight.name for weight in model.graph.initializer}
    layer = nn.PReLU(4)
    layer.weight.data = torch.from_numpy(slope)
    for batch in (1, 3):
        data = np.random.default_rng(batch).normal(0, 10, (batch, 4, 5, 6)).astype(np.float32)
        expected = layer(torch.from_numpy(data)).detach().numpy()
        np.testing.assert_allclose(run(model, data), expected, rtol=1e-6, atol=1e-5)


def test_one_slope_for_all_channels() -> None:
    model = graph(np.array([0.2], np.float32), [1, 3, 4, 4])
    assert rewrite_prelu(model) == 1
    data = np.linspace(-3, 3, 48, dtype=np.float32).reshape(1, 3, 4, 4)
    np.testing.assert_allclose(run(model, data), np.where(data > 0, data, np.float32(0.2) * data), rtol=1e-6, atol=1e-6)


def test_a_wrong_form_would_be_seen() -> None:
    """The form for slopes up to one is not PReLU beyond: why there are two."""
    slope, x = 2.0, -1.0
    assert slope * x + max((1 - slope) * x, 0) != min(x, slope * x)


@pytest.mark.parametrize(
    ("slope", "sides", "computed"),
    [
        (np.full((4, 1, 1), 0.2, np.float32), ["batch", 4, 5, 6], True),
        (np.full((1, 5, 6), 0.2, np.float32), ["batch", 4, 5, 6], False),
        (np.full((4, 5, 6), 0.2, np.float32), ["batch", 4, 5, 6], False),
        (np.full((4,), 0.2, np.float32), ["batch", 4], False),
        (np.full((1,), 0.2, np.float32), ["batch", "channels", 5, 6], False),
        (np.full((4, 1, 1), np.nan, np.float32), ["batch", 4, 5, 6], False),
    ],
    ids=["computed", "along rows", "of each value", "of a vector", "channels unknown", "not a number"],
)
def test_what_cannot_be_rewritten_stays(slope: np.ndarray, sides: list[object], computed: bool) -> None:
    model = graph(slope, sides, computed=computed)
    before = model.SerializeToString()
    assert rewrite_prelu(model) == 0
    assert model.SerializeToString() == before


def test_equal_slopes_are_stored_once_and_the_second_reader_is_served() -> None:
    model = graph(np.full((4, 1, 1), 0.25, np.float32), ["batch", 4, 2, 2])
    model.graph.node[0].output[0] = "between"
    model.graph.node.append(helper.make_node("PRelu", ["between", "slope"], ["fc1"]))
    data = np.random.default_rng(0).normal(size=(2, 4, 2, 2)).astype(np.float32)
    before = run(model, data)
    assert rewrite_prelu(model) == 2
    assert len(model.graph.initializer) == 2
    np.testing.assert_allclose(run(model, data), before, rtol=1e-6, atol=1e-7)
