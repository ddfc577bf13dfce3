"""An exported file equals its model in every runtime, says what it is, or does not exist."""

from __future__ import annotations

import errno
import hashlib
import os
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from unsealed import save_unsealed

import facekd
from facekd.data.images import resize, to_chw
from facekd.data.opencv_net import forward_onnx
from facekd.data.synthetic import render_face
from facekd.engine.export import build, exporter
from facekd.engine.export import checks as export_checks
from facekd.engine.export.build import Built
from facekd.engine.export.exporter import Evidence, export_onnx
from facekd.engine.export.form import Form
from facekd.engine.export.source import OPSET
from facekd.engine.parity import compare, probe_images
from facekd.errors import DeviceError, ExportError, InputError, Interrupted, NonFiniteError, UsageError
from facekd.models.backbone import build_backbone
from facekd.models.embedder import TorchEmbedder, load_embedder
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import save_model

SMALL = {"width": 0.25}


def settled(module: nn.Module) -> nn.Module:
    """With running statistics a training run could have left, so that a forgotten BatchNorm shows."""
    generator = torch.Generator().manual_seed(5)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def student(folder: Path, preprocessing: Preprocessing | None = None, backbone: str = "mobilefacenet") -> TorchEmbedder:
    preprocessing = preprocessing or Preprocessing.named("half")
    options = SMALL if backbone == "mobilefacenet" else {}
    torch.manual_seed(3)
    size = preprocessing.size[0]
    module = settled(build_backbone(backbone, embedding_size=64, input_size=size, options=options))
    folder.mkdir(exist_ok=True)
    save_model(
        folder / "student.safetensors",
        module,
        backbone=backbone,
        embedding_size=64,
        options=options,
        preprocessing=preprocessing,
        extra={"teacher_digest": "abc", "licence_teacher": "research only", "licence_data": "", "template": "arcface"},
    )
    embedder = load_embedder(folder)
    assert isinstance(embedder, TorchEmbedder)
    return embedder


def wrapped(module: nn.Module, size: int = 16) -> TorchEmbedder:
    return TorchEmbedder(
        name="tiny",
        digest="0" * 64,
        embedding_size=4,
        preprocessing=Preprocessing.named("half", size=(size, size)),
        metadata={},
        module=module.eval(),
        device=torch.device("cpu"),
    )


def tiny() -> TorchEmbedder:
    torch.manual_seed(0)
    return wrapped(nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.PReLU(4), nn.Flatten(), nn.Linear(4 * 7 * 7, 4)))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> TorchEmbedder:
    return student(tmp_path_factory.mktemp("small") / "run")


@pytest.fixture(scope="module")
def small_bgr(tmp_path_factory: pytest.TempPathFactory) -> TorchEmbedder:
    return student(tmp_path_factory.mktemp("bgr") / "run", Preprocessing.named("imagenet", "bgr"))


def model_input(embedder: TorchEmbedder, images: Tensor, preprocess: str) -> np.ndarray:
    """What the documentation tells a user to feed: normalised in the model's order, or RGB values 0..255."""
    if preprocess == "baked":
        return images.float().numpy()
    pixels = images.flip(1) if embedder.preprocessing.color == "bgr" else images
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (embedder.preprocessing.mean, embedder.preprocessing.std))
    return ((pixels.float() - mean) / std).numpy()


@pytest.mark.parametrize("preprocess", ["plain", "baked"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_a_file_equals_its_model_in_both_runtimes_at_any_batch(
    small: TorchEmbedder, small_bgr: TorchEmbedder, color: str, preprocess: str, tmp_path: Path
) -> None:
    embedder = small if color == "rgb" else small_bgr
    out = tmp_path / "student.onnx"
    report = export_onnx(embedder, out, Form(preprocess))
    assert [(p.runtime, p.batch) for p in report.parity] == [
        (r, b) for b in (1, 2, 5) for r in ("onnxruntime", "opencv")
    ]
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 3, 5):
        images = torch.from_numpy(probe_images(batch, (112, 112), seed=100 + batch))
        expected = embedder.embed(images).numpy()
        blob = model_input(embedder, images, preprocess)
        largest = np.abs(expected).max()
        for found in (session.run(["fc1"], {"data": blob})[0], forward_onnx(out, blob)):
            assert found.shape == (batch, 64)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [
        "iresnet18",
        "ir18",
        "vit_t",
        "mobilefacenet_insightface",
        "mobilefacenet_insightface_large",
        "mobilefacenet_foamliu",
        "pocketnet_s",
        "resnet_tiny",
        "timm/vit_tiny_patch16_224",
    ],
)
def test_other_backbones_pass_the_gate(backbone: str, tmp_path: Path) -> None:
    report = export_onnx(student(tmp_path / "run", backbone=backbone), tmp_path / "a.onnx", Form("baked"))
    assert max(check.max_relative for check in report.parity) < 2e-5


def test_a_file_is_checked_on_the_last_faces_given_or_on_drawn_ones(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[np.ndarray] = []

    def checked(embedder: TorchEmbedder, exported: object, images: Tensor, *rest: object, **more: object) -> list:
        seen.append(images.numpy())
        return []

    monkeypatch.setattr(exporter, "check_batch", checked)
    faces = probe_images(11, (16, 16), seed=4)
    for given, expected in ((faces, faces[3:]), (faces[:7], None), (None, None)):
        seen.clear()
        export_onnx(tiny(), tmp_path / "a.onnx", evidence=Evidence(given), force=True)
        assert [len(batch) for batch in seen] == [1, 2, 5]
        drawn = np.stack([to_chw(resize(render_face(0, person, 0).image, (16, 16))) for person in range(8)])
        np.testing.assert_array_equal(np.concatenate(seen), drawn if expected is None else expected)


def test_an_odd_size_exports(tmp_path: Path) -> None:
    embedder = student(tmp_path / "run", Preprocessing.named("128", size=(64, 64)))
    report = export_onnx(embedder, tmp_path / "a.onnx", Form("baked"))
    assert report.input_shape == ["batch", 3, 64, 64]
    assert any("64x64" in note for note in report.notes)


@pytest.mark.parametrize(("batch", "preprocess"), [(1, "plain"), (3, "baked")])
def test_a_fixed_batch_is_fixed_and_checked_there(
    small: TorchEmbedder, batch: int, preprocess: str, tmp_path: Path
) -> None:
    report = export_onnx(small, tmp_path / "a.onnx", Form(preprocess, batch=batch))
    assert {check.batch for check in report.parity} == {batch}
    session = onnxruntime.InferenceSession(tmp_path / "a.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == report.input_shape == [batch, 3, 112, 112]
    assert session.get_outputs()[0].shape == report.output_shape == [batch, 64]


@pytest.mark.parametrize("preprocess", ["plain", "baked", "uint8"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_sides_that_a_source_leaves_open_are_stated(preprocess: str, precision: str, tmp_path: Path) -> None:
    export_onnx(wrapped(OwnScale()), tmp_path / "a.onnx", opencv=False)
    model = onnx.load(tmp_path / "a.onnx")
    for place in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_param = f"side_{place}"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    save_unsealed(model, tmp_path / "open.onnx")
    source = load_embedder(tmp_path / "open.onnx")
    report = export_onnx(source, tmp_path / "b.onnx", Form(preprocess, precision=precision))
    session = onnxruntime.InferenceSession(tmp_path / "b.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == report.input_shape
    assert {16} == set(report.input_shape) - {"batch", 3}
    assert session.get_outputs()[0].shape == report.output_shape == ["batch", 4]


def test_what_a_stranger_sees(small: TorchEmbedder, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    report = export_onnx(small, out)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    (data,), (fc1,) = session.get_inputs(), session.get_outputs()
    assert (data.name, data.shape, data.type) == ("data", ["batch", 3, 112, 112], "tensor(float)")
    assert (fc1.name, fc1.shape, fc1.type) == ("fc1", ["batch", 64], "tensor(float)")
    said = session.get_modelmeta().custom_metadata_map
    seal = said.pop("facekd.seal").encode()
    assert hashlib.sha256(out.read_bytes().replace(seal, b"0" * 64)).hexdigest().encode() == seal
    assert said == {
        "facekd.version": facekd.__version__,
        "facekd.preprocess": "plain",
        "facekd.precision": "fp32",
        "facekd.color": "rgb",
        "facekd.mean": "127.5,127.5,127.5",
        "facekd.std": "127.5,127.5,127.5",
        "facekd.size": "112x112",
        "facekd.backbone": "mobilefacenet",
        "facekd.embedding_size": "64",
        "facekd.student_digest": small.digest,
        "facekd.teacher_digest": "abc",
        "facekd.licence_teacher": "research only",
        "facekd.template": "arcface",
    }
    assert report.digest == hashlib.sha256(out.read_bytes()).hexdigest()
    assert (report.bytes, report.opset, report.input, report.output) == (out.stat().st_size, OPSET, "data", "fc1")
    assert onnx.load(out).opset_import[0].version == OPSET
    assert files(tmp_path) == ["a.onnx"]


def test_the_file_is_one_file_without_names_of_this_machine(small: TorchEmbedder, tmp_path: Path) -> None:
    export_onnx(small, tmp_path / "a.onnx", Form("baked"))
    model = onnx.load(tmp_path / "a.onnx", load_external_data=False)
    assert not [w.name for w in model.graph.initializer if w.data_location == onnx.TensorProto.EXTERNAL]
    assert not [node.name for node in model.graph.node if node.doc_string]
    data = (tmp_path / "a.onnx").read_bytes()
    assert str(Path(facekd.__file__).parent).encode() not in data
    assert str(tmp_path).encode() not in data


def test_equal_models_give_equal_bytes(small: TorchEmbedder, tmp_path: Path) -> None:
    digests = {export_onnx(small, tmp_path / name, opencv=False).digest for name in ("a.onnx", "b.onnx")}
    assert len(digests) == 1


def names_of_first_nodes(path: Path) -> list[str]:
    return [node.name for node in onnx.load(path).graph.node[:8]]


def test_baked_names_are_what_insightface_looks_for(
    small: TorchEmbedder, small_bgr: TorchEmbedder, tmp_path: Path
) -> None:
    for embedder in (small, small_bgr):
        export_onnx(embedder, tmp_path / "a.onnx", Form("baked"), opencv=False, force=True)
        names = names_of_first_nodes(tmp_path / "a.onnx")
        assert names[0].startswith("Sub_") and names[1].startswith("Mul_")


def test_opencv_face_recogniser_reads_a_baked_file_right(
    small: TorchEmbedder, small_bgr: TorchEmbedder, tmp_path: Path
) -> None:
    """Its ``feature`` hands over the aligned BGR picture as RGB values 0..255."""
    images = probe_images(1, (112, 112), seed=21)
    picture = np.ascontiguousarray(images[0].transpose(1, 2, 0)[:, :, ::-1])
    for embedder in (small, small_bgr):
        export_onnx(embedder, tmp_path / "a.onnx", Form("baked"), force=True)
        feature = cv2.FaceRecognizerSF.create(str(tmp_path / "a.onnx"), "").feature(picture)
        assert compare("opencv", embedder.embed(torch.from_numpy(images)).numpy(), feature).passed


class OwnScale(nn.Module):
    """A backbone whose own first steps subtract and multiply."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(((x - 0.25) * 1.5).mean((2, 3)))


def test_plain_names_never_look_baked(tmp_path: Path) -> None:
    export_onnx(wrapped(OwnScale()), tmp_path / "a.onnx")
    names = names_of_first_nodes(tmp_path / "a.onnx")
    assert not [name for name in names if name.startswith(("Sub", "_minus", "Mul", "_mul"))]


@pytest.mark.parametrize("preprocess", ["plain", "baked"])
@pytest.mark.parametrize("batch", ["dynamic", 2])
def test_the_file_needs_no_word_on_colour_to_be_opened(
    small_bgr: TorchEmbedder, preprocess: str, batch: str | int, tmp_path: Path
) -> None:
    export_onnx(small_bgr, tmp_path / "a.onnx", Form(preprocess, batch=batch))
    opened = load_embedder(tmp_path / "a.onnx")
    images = torch.from_numpy(probe_images(5, (112, 112), seed=9))
    cosine = nn.functional.cosine_similarity(opened.embed(images).double(), small_bgr.embed(images).double())
    assert cosine.min() > 1 - 1e-6
    assert opened.embedding_size == 64
    expected = Preprocessing.named("none") if preprocess == "baked" else small_bgr.preprocessing
    assert opened.preprocessing == expected


def spoil(monkeypatch: pytest.MonkeyPatch, amount: float) -> None:
    made = exporter.build_model

    def spoiled(*arguments: object, **named: object) -> Built:
        built = made(*arguments, **named)
        weight = built.model.graph.initializer[0]
        weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * (1 + amount), weight.name))
        return built

    monkeypatch.setattr(exporter, "build_model", spoiled)


@pytest.mark.parametrize("amount", [3e-3, float("nan")])
def test_a_file_that_differs_is_never_left_behind(
    monkeypatch: pytest.MonkeyPatch, amount: float, tmp_path: Path
) -> None:
    spoil(monkeypatch, amount)
    with pytest.raises(ExportError, match=r"a.onnx: .*(at batch 1|NaN)") as caught:
        export_onnx(tiny(), tmp_path / "a.onnx")
    assert caught.value.exit_code == 1 and len(caught.value.lines) == 1
    assert "tmp" not in caught.value.what
    assert files(tmp_path) == []


def test_a_failed_export_keeps_the_older_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    export_onnx(tiny(), out)
    before = out.read_bytes()
    beside = ["a.onnx.calibration.json", "a.onnx.card.md", "a.onnx.manifest.json"]
    for name in beside:
        (tmp_path / name).write_text("{}")
    with monkeypatch.context() as patched:
        spoil(patched, 3e-3)
        with pytest.raises(ExportError, match="onnxruntime at batch 1 .* relative difference"):
            export_onnx(tiny(), out, force=True)
    assert out.read_bytes() == before
    assert files(tmp_path) == ["a.onnx", *beside]
    export_onnx(tiny(), out, force=True)
    assert files(tmp_path) == ["a.onnx"]  # what held for the file that is gone does not hold for this one


def test_wrong_metadata_fails_the_gate(
    monkeypatch: pytest.MonkeyPatch, small_bgr: TorchEmbedder, tmp_path: Path
) -> None:
    """A file is fed as its own metadata says, so a wrong word on colour is a wrong file."""
    described = build._metadata

    def lying(embedder: TorchEmbedder, form: Form, expects: Preprocessing) -> dict[str, str]:
        return described(embedder, form, replace(expects, color="rgb"))

    monkeypatch.setattr(build, "_metadata", lying)
    with pytest.raises(ExportError, match="at batch 1"):
        export_onnx(small_bgr, tmp_path / "a.onnx")
    assert files(tmp_path) == []


class FrozenBatch(nn.Module):
    """Python control flow a trace freezes: right at the batch it was traced with, wrong at another."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.mean((2, 3))) * float(len(x))


def test_control_flow_frozen_by_the_trace_is_found(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="onnxruntime at batch 1 "):
        export_onnx(wrapped(FrozenBatch()), tmp_path / "a.onnx")
    assert files(tmp_path) == []
    export_onnx(wrapped(FrozenBatch()), tmp_path / "a.onnx", Form(batch=3))


class Cutting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.svd(x.mean((2, 3))[:, :, None] @ x.mean((2, 3))[:, None]).S


def test_a_model_that_cannot_be_traced_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="tiny: cannot be traced: .*svd"):
        export_onnx(wrapped(Cutting()), tmp_path / "a.onnx")
    assert files(tmp_path) == []


def test_what_opencv_cannot_run_is_refused_unless_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(path: Path, blob: np.ndarray) -> np.ndarray:
        raise InputError(str(path), "OpenCV cannot run it: no such layer")

    monkeypatch.setattr(export_checks, "forward_onnx", refuse)
    with pytest.raises(ExportError, match=r"a.onnx: OpenCV cannot run it: no such layer \(.*--no-opencv"):
        export_onnx(tiny(), tmp_path / "a.onnx")
    assert files(tmp_path) == []
    report = export_onnx(tiny(), tmp_path / "a.onnx", opencv=False)
    assert {check.runtime for check in report.parity} == {"onnxruntime"}
    assert "not checked in OpenCV" in report.notes


def test_nan_weights_are_refused_by_name(tmp_path: Path) -> None:
    embedder = tiny()
    with torch.no_grad():
        embedder.module[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="tiny: 0.weight"):
        export_onnx(embedder, tmp_path / "a.onnx")
    assert files(tmp_path) == []


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    out.write_bytes(b"precious")
    with pytest.raises(UsageError, match="a.onnx: exists already .*--force"):
        export_onnx(tiny(), out)
    assert out.read_bytes() == b"precious"
    export_onnx(tiny(), out, force=True)
    assert load_embedder(out).embedding_size == 4


def test_bad_requests_are_refused_before_any_work(tmp_path: Path) -> None:
    for out, message in (
        (tmp_path / "a.pt", "does not end in .onnx"),
        (tmp_path / "no" / "a.onnx", "its folder does not exist"),
    ):
        with pytest.raises(UsageError, match=message):
            export_onnx(tiny(), out)
    (tmp_path / "d.onnx").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        export_onnx(tiny(), tmp_path / "d.onnx")
    with pytest.raises(UsageError, match="plain, baked, uint8"):
        export_onnx(tiny(), tmp_path / "a.onnx", Form("raw"))
    for batch in (0, -1, "4", "any"):
        with pytest.raises(UsageError, match="batch"):
            export_onnx(tiny(), tmp_path / "a.onnx", Form(batch=batch))
    with pytest.raises(UsageError, match="fp32 or fp16 or int8"):
        export_onnx(tiny(), tmp_path / "a.onnx", Form(precision="fp8"))
    with pytest.raises(UsageError, match="takes its ranges from faces .*--calibrate"):
        export_onnx(tiny(), tmp_path / "a.onnx", Form(precision="int8"))
    assert files(tmp_path) == ["d.onnx"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_refuses_is_a_device_error(monkeypatch: pytest.MonkeyPatch, number: int, tmp_path: Path) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(DeviceError, match=f"a.onnx: cannot be written: {os.strerror(number)}") as caught:
        export_onnx(tiny(), tmp_path / "a.onnx")
    assert caught.value.exit_code == 5
    assert files(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_a_folder_without_permission_is_a_device_error(tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(DeviceError, match="cannot be written"):
        export_onnx(tiny(), folder / "a.onnx")


def test_a_signal_leaves_nothing(tmp_path: Path) -> None:
    def stop(phase: str, done: int, total: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="nothing was written") as caught:
        export_onnx(tiny(), tmp_path / "a.onnx", progress=stop)
    assert caught.value.exit_code == 143
    assert files(tmp_path) == []


def test_progress_runs_to_its_end_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[tuple[str, int, int]] = []
    export_onnx(tiny(), tmp_path / "a.onnx", progress=lambda *step: seen.append(step))
    assert seen == [("trace", 1, 1)] + [("parity", done, 6) for done in range(1, 7)]
    assert capfd.readouterr() == ("", "")


def test_the_report_is_plain_values(tmp_path: Path) -> None:
    report = export_onnx(tiny(), tmp_path / "a.onnx", Form(batch=2)).to_json()
    expected = {"file", "digest", "bytes", "opset", "preprocess", "batch", "input", "output", "parity"}
    assert expected <= set(report)
    assert set(report["parity"][0]) == {"runtime", "batch", "max_abs", "max_relative", "min_cosine", "mean_cosine"}
