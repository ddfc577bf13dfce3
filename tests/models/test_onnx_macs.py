"""An ONNX file costs what the network it was exported from does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from facekd.models.backbone import build_backbone
from facekd.models.macs import count_macs
from facekd.models.onnx_macs import count_onnx_macs


def exported(module: torch.nn.Module, side: int, path: Path) -> onnx.ModelProto:
    image = torch.zeros(1, 3, side, side)
    torch.onnx.export(module, (image,), str(path), dynamo=False, opset_version=17, input_names=["data"],
                      dynamic_axes={"data": {0: "batch"}})  # fmt: skip
    return onnx.load(path)


@pytest.mark.parametrize(
    ("backbone", "side"),
    [
        ("resnet_tiny", 32),
        ("mobilefacenet", 112),
        ("vit_t", 112),
        pytest.param("iresnet18", 112, marks=pytest.mark.slow),
    ],
)
def test_a_file_counts_as_its_network(backbone: str, side: int, tmp_path: Path) -> None:
    module = build_backbone(backbone, embedding_size=16, input_size=side, options={}).eval()
    with torch.no_grad():
        model = exported(module, side, tmp_path / "a.onnx")
    before = model.SerializeToString()
    assert count_onnx_macs(model, np.zeros((2, 3, side, side), np.float32)) == count_macs(module, side)
    assert model.SerializeToString() == before


def graph(nodes: list, weights: dict[str, np.ndarray]) -> onnx.ModelProto:
    taken = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 3, "h", "w"])
    given = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
    kept = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    return helper.make_model(
        helper.make_graph(nodes, "g", [taken], [given], kept), opset_imports=[helper.make_opsetid("", 17)]
    )


def test_integer_weights_count_and_products_of_two_activations_do_not() -> None:
    weights = {"w": np.ones((4, 3, 3, 3), np.int8), "scale": np.float32(1).reshape(()), "zero": np.int8(0).reshape(())}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["float"]),
        helper.make_node("Conv", ["data", "float"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node("MatMul", ["map", "map"], ["out"]),
    ]
    assert count_onnx_macs(graph(nodes, weights), np.zeros((1, 3, 6, 6), np.float32)) == 4 * 36 * 27
