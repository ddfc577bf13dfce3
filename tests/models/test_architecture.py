"""A student with its assistant: built, added, saved, opened, exported and counted as one model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from facekd.engine.export.exporter import export_onnx
from facekd.errors import CheckpointError
from facekd.models.architecture import Architecture, Part
from facekd.models.embedder import load_embedder
from facekd.models.macs import count_macs, count_parameters
from facekd.models.preprocessing import Preprocessing
from facekd.models.residual import ResidualPair
from facekd.models.weights import save_model

SMALL = {"channels": "4,8", "blocks": "1,1"}
TINY = {"channels": "2,4", "blocks": "1,1"}
PAIR = Architecture("resnet_tiny", 8, 32, SMALL, Part("resnet_tiny", TINY))


def pair(seed: int = 0) -> ResidualPair:
    torch.manual_seed(seed)
    built = PAIR.build()
    assert isinstance(built, ResidualPair)
    return built


def save(path: Path, module: torch.nn.Module, extra: dict[str, str]) -> Path:
    save_model(
        path,
        module,
        backbone=PAIR.backbone,
        embedding_size=PAIR.embedding_size,
        options=PAIR.options,
        preprocessing=Preprocessing.named("half", size=(32, 32)),
        extra=extra,
    )
    return path


def test_pair__gives_both_in_training_and_their_sum_in_evaluation() -> None:
    module, images = pair().eval(), torch.rand(3, 3, 32, 32)
    student, assistant = module.student(images), module.assistant(images)
    assert torch.equal(module(images), student + assistant)
    both = module.train()(images)
    assert isinstance(both, tuple) and [part.shape for part in both] == [(3, 8), (3, 8)]


def test_pair__is_as_large_as_both_together() -> None:
    module = pair()
    parts = (module.student, module.assistant)
    assert count_parameters(module) == sum(count_parameters(part) for part in parts)
    assert count_macs(module, 32) == sum(count_macs(part, 32) for part in parts)
    assert count_parameters(parts[0]) > count_parameters(parts[1]) > 0


@pytest.mark.parametrize("architecture", [PAIR, Architecture("mobilefacenet", 64, 112, {"width": 0.5})])
def test_architecture__survives_its_metadata(architecture: Architecture) -> None:
    import json

    said = {"backbone": architecture.backbone, "embedding_size": str(architecture.embedding_size)}
    said |= {"options": json.dumps(architecture.options)} | architecture.composition()
    assert Architecture.from_metadata(said, architecture.input_size) == architecture


def test_saved_pair__opens_as_one_model_and_exports_as_one_graph(tmp_path: Path) -> None:
    module = pair().eval()
    embedder = load_embedder(save(tmp_path / "pair.safetensors", module, PAIR.composition()))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    pixels = embedder.preprocessing.apply(images)
    expected = module.student(pixels) + module.assistant(pixels)
    assert torch.allclose(embedder.embed(images), expected, atol=1e-5)
    assert embedder.parameters == count_parameters(module) and embedder.embedding_size == 8
    report = export_onnx(embedder, tmp_path / "pair.onnx")
    assert all(check.passed for check in report.parity) and len(report.parity) == 6
    exported = load_embedder(tmp_path / "pair.onnx")
    assert exported.metadata["facekd.assistant"] == PAIR.composition()["assistant"]
    assert torch.allclose(exported.embed(images), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({}, "missing"),
        ({"assistant": "[]"}, "its metadata cannot be read: assistant is"),
        ({"assistant": "{"}, "its metadata cannot be read"),
        ({"assistant": '{"backbone": "resnet_tiny", "options": 3}'}, "its options are 3"),
        ({"assistant": '{"backbone": "resnet_tini"}'}, "resnet_tini: unknown backbone"),
        ({"assistant": '{"backbone": "resnet_tiny"}'}, "misshapen|shape|unexpected|missing"),
    ],
)
def test_file_that_does_not_say_what_it_holds__is_refused(tmp_path: Path, extra: dict[str, str], message: str) -> None:
    path = save(tmp_path / "pair.safetensors", pair(), extra)
    with pytest.raises(CheckpointError, match=message):
        load_embedder(path)


def test_lengths__are_learned_from_where_the_teacher_is_whatever_the_backbone_fixes() -> None:
    module, images = pair().eval(), torch.rand(5, 3, 32, 32)
    before = module(images)
    module.start_at(torch.full((4, 8), -0.25))
    assert torch.allclose(module(images), 0.25 * before) and float(module.assistant.unit) == 0.25
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    for part in ("student", "assistant"):
        assert {f"{part}.weight", f"{part}.bias"} <= trained and f"{part}.unit" not in trained
    with torch.no_grad():
        module.student.weight.fill_(0.0)
        module.student.bias.copy_(torch.arange(8.0))
    assert torch.allclose(module.student(images), 0.25 * torch.arange(8.0).expand(5, 8))
