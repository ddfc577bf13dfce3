"""OpenCV's ONNX runtime as a second opinion."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from facekd.data.opencv_net import forward_onnx
from facekd.errors import InputError


def doubling(path: Path, operation: str = "Add") -> Path:
    shape = ["batch", 3, 4, 4]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("data", "fc1")]
    node = helper.make_node(operation, ["data", "data"], ["fc1"])
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_runs_a_file_at_any_batch_and_under_any_name(tmp_path: Path) -> None:
    path = doubling(tmp_path / "Gesichter für 顔.onnx")
    for batch in (1, 4):
        blob = np.arange(batch * 48, dtype=np.float32).reshape(batch, 3, 4, 4)
        np.testing.assert_array_equal(forward_onnx(path, blob), 2 * blob)


def test_takes_a_blob_that_is_a_view(tmp_path: Path) -> None:
    blob = np.arange(96, dtype=np.float32).reshape(2, 4, 4, 3).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(forward_onnx(doubling(tmp_path / "a.onnx"), blob), 2 * blob)


@pytest.mark.parametrize("data", [b"", b"not a protobuf" * 20])
def test_refuses_what_is_no_network(tmp_path: Path, data: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(data)
    logging = getattr(cv2.utils, "logging", cv2)
    level = logging.getLogLevel()
    with pytest.raises(InputError, match="a.onnx: OpenCV cannot run it"):
        forward_onnx(path, np.zeros((1, 3, 4, 4), np.float32))
    assert logging.getLogLevel() == level
    assert capfd.readouterr() == ("", "")


def test_refuses_an_operation_opencv_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="OpenCV cannot run it"):
        forward_onnx(doubling(tmp_path / "a.onnx", "NoSuchOperation"), np.zeros((1, 3, 4, 4), np.float32))
