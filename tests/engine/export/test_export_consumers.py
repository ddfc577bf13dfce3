"""Exported files in other people's programs: what InsightFace's Python package and OpenCV's recogniser make of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from insightface.model_zoo.arcface_onnx import ArcFaceONNX

from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.engine.parity import Parity, compare, probe_images
from facekd.models.backbone import build_backbone
from facekd.models.embedder import TorchEmbedder
from facekd.models.preprocessing import Preprocessing

COLORS = {"rgb": Preprocessing.named("half"), "bgr": Preprocessing.named("imagenet", "bgr")}


def small(color: str) -> TorchEmbedder:
    torch.manual_seed(3)
    module = build_backbone("mobilefacenet", embedding_size=64, input_size=112, options={"width": 0.25}).eval()
    return TorchEmbedder("small", "0" * 64, 64, COLORS[color], {}, module, torch.device("cpu"))


def picture() -> tuple[np.ndarray, torch.Tensor]:
    """One face as OpenCV reads it, blue, green, red, and as the model is asked."""
    images = probe_images(1, (112, 112), seed=21)
    return np.ascontiguousarray(images[0].transpose(1, 2, 0)[:, :, ::-1]), torch.from_numpy(images)


def checked(embedder: TorchEmbedder, images: torch.Tensor, found: np.ndarray) -> Parity:
    return compare("here", embedder.embed(images).numpy(), np.atleast_2d(found))


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("keep", [True, False])
def test_opencv_face_recogniser(color: str, keep: bool, tmp_path: Path) -> None:
    embedder, (image, images) = small(color), picture()
    report = export_onnx(embedder, tmp_path / "a.onnx", Form("baked", keep_prelu=keep))
    assert report.prelu_rewritten == (0 if keep else 33)
    feature = cv2.FaceRecognizerSF.create(str(tmp_path / "a.onnx"), "").feature(image)
    assert checked(embedder, images, feature).passed


@pytest.mark.parametrize("color", COLORS)
def test_pictures_as_they_are_in_onnxruntime(color: str, tmp_path: Path) -> None:
    embedder, (image, images) = small(color), picture()
    export_onnx(embedder, tmp_path / "a.onnx", Form("uint8"))
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert (session.get_inputs()[0].type, session.get_inputs()[0].shape) == ("tensor(uint8)", ["batch", 112, 112, 3])
    assert checked(embedder, images, session.run(["fc1"], {"data": image[None]})[0]).passed


@pytest.mark.parametrize(
    ("color", "preprocess", "right"),
    [("rgb", "plain", True), ("rgb", "baked", True), ("bgr", "baked", True), ("bgr", "plain", False)],
)
def test_insightface_python_package(color: str, preprocess: str, right: bool, tmp_path: Path) -> None:
    """It reads a plain file of its own scaling and every baked one right; of the others an export warns."""
    embedder, (image, images) = small(color), picture()
    report = export_onnx(embedder, tmp_path / "a.onnx", Form(preprocess))
    found = ArcFaceONNX(str(tmp_path / "a.onnx")).get_feat(image)
    assert checked(embedder, images, found).passed == right
    assert any("InsightFace" in note for note in report.notes) != right
