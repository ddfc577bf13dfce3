"""What can be said of a model file, whole or not, and what its nearest backbone is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from facekd_cli.teacher_inspect import _rows
from safetensors.torch import save_file
from torch import nn

from facekd.engine import teacher_inspection
from facekd.engine.nearest import nearest_backbone
from facekd.engine.teacher_inspection import PASSED, inspect_teacher, scaling_name
from facekd.errors import CheckpointError, InputError
from facekd.models import weights
from facekd.models.backbone import build_backbone
from facekd.models.embedder import TorchEmbedder
from facekd.models.preprocessing import Preprocessing

OPTIONS = {"channels": "8,16", "blocks": "1,1"}


def filled(name: str, **options: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_backbone(name, embedding_size=16, input_size=32, options=options).state_dict()


def test_a_checkpoint_with_everything_around_it(tmp_path: Path) -> None:
    path = tmp_path / "adaface.ckpt"
    state = {f"model.{key}": value for key, value in filled("ir18").items()} | {"head.kernel": torch.ones(16, 7)}
    torch.save({"state_dict": state, "epoch": 3}, path)
    found = inspect_teacher(path)
    assert (found.kind, found.source, found.title, found.backbone) == (
        *("PyTorch checkpoint", "AdaFace IR", "IR-18", "ir18"),
    )
    assert (found.tensors, found.embedding_size, found.size) == (179, 16, (32, 32))
    assert found.parameters == sum(
        p.numel() for p in build_backbone("ir18", embedding_size=16, input_size=32).parameters()
    )
    assert (found.container, found.prefixes) == ("state_dict", (("model.", 179),))
    assert (found.color, found.normalize, found.preprocessing_source) == ("bgr", "half", "dialect AdaFace IR")
    assert found.classifier == {"classes": 7, "width": 16, "stored": "width x classes"}
    assert (found.self_test, found.problem, found.keys) == (PASSED, None, None)
    assert found.digest == weights.file_digest(path)


@pytest.mark.parametrize(
    ("color", "normalize", "expected"),
    [
        (None, None, (None, "half", "dialect TFace, AdaFace or CVLface IR")),
        ("bgr", None, ("bgr", "half", "user")),
        (None, "128", (None, "128", "user")),
    ],
)
def test_what_nobody_says_is_not_made_up(
    color: str | None, normalize: str | None, expected: tuple[str | None, str, str], tmp_path: Path
) -> None:
    torch.save(filled("ir18"), tmp_path / "ir.pth")
    found = inspect_teacher(tmp_path / "ir.pth", color, normalize)
    assert (found.color, found.normalize, found.preprocessing_source) == expected
    assert (found.self_test, found.problem) == (PASSED, None) and found.embedder is not None


def test_our_own_model_says_what_it_is(tmp_path: Path) -> None:
    module = build_backbone("resnet_tiny", embedding_size=16, input_size=32, options=OPTIONS)
    said = Preprocessing("bgr", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (32, 32))
    weights.save_model(
        *(tmp_path / "student.safetensors", module),
        backbone="resnet_tiny",
        embedding_size=16,
        options=OPTIONS,
        preprocessing=said,
        extra={"licence": "mine"},
    )
    found = inspect_teacher(tmp_path)
    assert (found.kind, found.color, found.normalize) == ("safetensors of facekd", "bgr", "its own")
    assert found.preprocessing_source == "file"
    assert (found.metadata["licence"], found.metadata["std"]) == ("mine", "4.0,5.0,6.0")
    contradicted = inspect_teacher(tmp_path, color="rgb")
    assert str(contradicted.problem).endswith("says its colour order is bgr, not rgb (leave out --color)")


def test_a_lost_and_a_spare_tensor_are_in_the_table(tmp_path: Path) -> None:
    state = filled("ir18", se=True)
    del state["body.1.res_layer.2.weight"]
    state |= {"extra": torch.ones(3), "output_layer.3.bias": torch.ones(4)}
    save_file(state, tmp_path / "a.safetensors")
    found = inspect_teacher(tmp_path / "a.safetensors", color="rgb")
    assert isinstance(found.problem, CheckpointError) and found.title == "IR-SE-18"
    assert found.keys is not None and found.keys.title == "IR-SE-18"
    assert [(d.key, d.kind, d.found, d.expected) for d in found.keys.differences] == [
        ("body.1.res_layer.2.weight", "missing", None, (64,)),
        ("extra", "unexpected", (3,), None),
        ("output_layer.3.bias", "misshapen", (4,), (16,)),
    ]
    assert found.embedder is None and found.self_test == "not run"


@pytest.mark.slow
def test_an_unknown_depth_is_compared_with_what_is_nearest(tmp_path: Path) -> None:
    state = {key: value for key, value in filled("ir50").items() if not key.startswith("body.23.")}
    torch.save(state, tmp_path / "a.pt")
    found = inspect_teacher(tmp_path / "a.pt")
    assert "an IR of blocks (3, 4, 14, 2)" in str(found.problem)
    assert found.keys is not None and found.keys.title == "IR-50"
    missing = [d.key for d in found.keys.differences if d.kind == "missing"]
    assert len(missing) == 15 and all(key.startswith("body.23.res_layer.") for key in missing)
    told = found.as_dict()
    assert told["keys"]["backbone"] == "IR-50" and told["problem"] == str(found.problem)


def test_nothing_is_near_to_what_is_no_face_net() -> None:
    assert nearest_backbone({f"layer.{index}": torch.ones(1) for index in range(50)}) is None


@pytest.mark.slow
def test_switches_are_tried_both_ways() -> None:
    with torch.device("meta"):
        state = build_backbone("ir101", options={"se": True, "older": True}).state_dict()
    found = nearest_backbone({key: value for key, value in state.items() if not key.startswith("body.48.")})
    assert found is not None and found.title == "IR-SE-101, older form"


def test_several_networks_are_a_problem_and_no_file_is_a_refusal(tmp_path: Path) -> None:
    torch.save({"model": filled("iresnet18"), "ema": filled("iresnet18")}, tmp_path / "a.pt")
    assert "holds several networks: model (iresnet18), ema (iresnet18)" in str(
        inspect_teacher(tmp_path / "a.pt").problem
    )
    with pytest.raises(InputError, match="no such file or folder"):
        inspect_teacher(tmp_path / "b.pt")


def test_a_net_that_sees_no_difference_fails_its_self_test(tmp_path: Path) -> None:
    state = filled("iresnet18")
    state["fc.weight"].zero_()
    torch.save(state, tmp_path / "a.pt")
    assert "gives the same embedding for two different images" in str(inspect_teacher(tmp_path / "a.pt").problem)


@pytest.mark.parametrize("name", ["half", "128", "imagenet", "unit", "none"])
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_scalings_are_named_back(name: str, color: str) -> None:
    assert scaling_name(Preprocessing.named(name, color, (32, 48))) == name


def test_an_onnx_file_of_a_stranger(shared_data: Path) -> None:
    found = inspect_teacher(shared_data / "models" / "edgeface_xs_raw_rgb.onnx")
    assert (found.kind, found.parameters, found.embedding_size) == ("ONNX", 2_242_620, 512)
    assert (found.color, found.normalize, found.preprocessing_source) == (None, None, "nobody")
    assert (found.self_test, dict(found.metadata)) == (PASSED, {})


class Pixels(nn.Module):
    """Embeds by single pixels, maybe of the image and its mirror, maybe brought to length one."""

    def __init__(self, mirrors: bool, unit: bool) -> None:
        super().__init__()
        self.mirrors, self.unit = mirrors, unit

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        found = pixels[:, 0, :, 5]
        found = found + pixels.flip(-1)[:, 0, :, 5] if self.mirrors else found
        return nn.functional.normalize(found) if self.unit else found


@pytest.mark.parametrize("mirrors", [False, True])
@pytest.mark.parametrize("unit", [False, True])
def test_item_103_what_a_model_does_to_its_embeddings_is_told(
    mirrors: bool, unit: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.onnx").write_bytes(b"in the place of which the next lines put a model")
    expects, device = Preprocessing.named("half", size=(32, 32)), torch.device("cpu")
    metadata = {"preprocessing_source": "file"}
    embedder = TorchEmbedder("a", "0", 32, expects, metadata, Pixels(mirrors, unit), device)
    monkeypatch.setattr(teacher_inspection, "load_embedder", lambda *_, **__: embedder)
    found = inspect_teacher(tmp_path / "a.onnx")
    assert (found.mirrors, all(abs(length - 1) < 1e-4 for length in found.lengths)) == (mirrors, unit)
    (line,) = (value for label, value in _rows(found) if label == "embedding")
    assert (", of length one already" in line, ", the same for an image and its mirror" in line) == (unit, mirrors)
