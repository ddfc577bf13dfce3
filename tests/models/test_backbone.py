"""Backbones: the field's exact counts, keys and multiply-accumulates, and every refusal."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from facekd.errors import UsageError
from facekd.models.backbone import BACKBONES, build_backbone
from facekd.models.macs import count_macs, count_parameters

COUNTS = {
    "iresnet18": (187, 24_025_600),
    "iresnet34": (331, 34_139_328),
    "iresnet50": (475, 43_590_848),
    "mobilefacenet": (331, 1_199_488),
    "mobilefacenet_insightface": (333, 2_059_520),
    "mobilefacenet_insightface_large": (606, 6_314_880),
}
DEEP = {
    "iresnet34",
    "iresnet50",
    "iresnet100",
    "iresnet200",
    "ir34",
    "ir50",
    "ir101",
    "ir152",
    "ir200",
    "vit_s",
    "vit_b",
}


@pytest.mark.parametrize("name", COUNTS)
def test_tensors_and_parameters_are_those_of_the_field(name: str) -> None:
    module = build_backbone(name)
    assert (len(module.state_dict()), count_parameters(module)) == COUNTS[name]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tensors"), [("iresnet100", 925), ("iresnet200", 1807)])
def test_deep_iresnets_have_the_field_s_tensors(name: str, tensors: int) -> None:
    assert len(build_backbone(name).state_dict()) == tensors


@pytest.mark.parametrize(("name", "macs"), [("mobilefacenet", 221_161_984), ("mobilefacenet_insightface", 437_520_896)])
def test_macs_of_the_mobile_nets(name: str, macs: int) -> None:
    assert count_macs(build_backbone(name), 112) == macs


def test_iresnet_keys_and_shapes() -> None:
    shapes = {key: tuple(value.shape) for key, value in build_backbone("iresnet18").state_dict().items()}
    assert list(shapes)[:7] == [
        "conv1.weight",
        "bn1.weight",
        "bn1.bias",
        "bn1.running_mean",
        "bn1.running_var",
        "bn1.num_batches_tracked",
        "prelu.weight",
    ]
    assert shapes["layer1.0.downsample.0.weight"] == (64, 64, 1, 1)
    assert shapes["layer4.1.bn3.running_var"] == (512,)
    assert "layer4.1.downsample.0.weight" not in shapes
    assert shapes["fc.weight"] == (512, 25088)
    assert shapes["fc.bias"] == (512,)
    assert shapes["features.weight"] == (512,)


def test_insightface_mobilefacenet_keys_and_the_group_quirk() -> None:
    state = build_backbone("mobilefacenet_insightface", embedding_size=256).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["layers.0.layers.0.weight"] == (128, 3, 3, 3)
    assert shapes["layers.1.layers.0.weight"] == (128, 2, 3, 3)
    assert shapes["layers.2.layers.0.layers.0.weight"] == (128, 128, 1, 1)
    assert shapes["layers.5.layers.5.layers.1.layers.2.weight"] == (256,)
    assert shapes["conv_sep.layers.0.weight"] == (512, 256, 1, 1)
    assert shapes["features.layers.0.layers.0.weight"] == (512, 1, 7, 7)
    assert shapes["features.layers.2.weight"] == (256, 512)
    assert shapes["features.layers.3.running_mean"] == (256,)


def test_large_insightface_mobilefacenet_begins_with_residuals() -> None:
    state = build_backbone("mobilefacenet_insightface_large").state_dict()
    assert state["layers.1.layers.1.layers.2.layers.0.weight"].shape == (256, 128, 1, 1)
    assert state["layers.3.layers.7.layers.1.layers.0.weight"].shape == (128, 1, 3, 3)
    assert state["conv_sep.layers.0.weight"].shape == (512, 512, 1, 1)


def test_eps_is_that_of_every_batch_norm() -> None:
    for eps in (1e-5, 2e-5):
        module = build_backbone("iresnet18", input_size=32, options={"eps": eps})
        assert {layer.eps for layer in module.modules() if hasattr(layer, "running_var")} == {eps}


def test_foamliu_s_mobilefacenet_is_its_onnx(shared_data: Path) -> None:
    import onnxruntime

    folder = shared_data / "models" / "foamliu"
    module = build_backbone("mobilefacenet_foamliu", embedding_size=128).eval()
    module.load_state_dict(torch.load(folder / "mobilefacenet.pt", weights_only=True, map_location="cpu"))
    session = onnxruntime.InferenceSession(folder / "MobileFaceNet.onnx", providers=["CPUExecutionProvider"])
    for seed in range(3):
        images = torch.randn(1, 3, 112, 112, generator=torch.Generator().manual_seed(seed))
        (expected,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            assert torch.allclose(module(images), torch.from_numpy(expected), atol=2e-5)


def test_mobilefacenet_keys() -> None:
    state = build_backbone("mobilefacenet").state_dict()
    for key in ("conv2_dw.prelu.weight", "conv_23.project.bn.weight", "conv_4.model.5.conv_dw.conv.weight"):
        assert key in state
    assert tuple(state["output_layer.linear.weight"].shape) == (512, 512)
    assert "output_layer.bn.weight" not in state


def test_iresnet_starts_as_the_field_does() -> None:
    torch.manual_seed(0)
    module = build_backbone("iresnet18")
    assert module.layer3[0].conv1.weight.std().item() == pytest.approx(0.1, rel=0.01)
    assert not module.features.weight.requires_grad


def test_mobilefacenet_starts_from_kaiming_fan_out() -> None:
    torch.manual_seed(0)
    weight = build_backbone("mobilefacenet").conv_6_sep.conv.weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 512), rel=0.02)


@pytest.mark.parametrize(
    "name",
    [
        "iresnet18",
        "ir18",
        "mobilefacenet",
        "mobilefacenet_insightface",
        "mobilefacenet_insightface_large",
        "mobilefacenet_foamliu",
        "resnet_tiny",
    ],
)
@pytest.mark.parametrize("size", [112, 64, 56])
def test_embedding_shape_at_any_size(name: str, size: int) -> None:
    module = build_backbone(name, embedding_size=96, input_size=size).eval()
    with torch.no_grad():
        embedding = module(torch.randn(2, 3, size, size))
    assert embedding.shape == (2, 96)
    assert torch.isfinite(embedding).all()


@pytest.mark.parametrize(
    "name", ["iresnet18", "ir18", "vit_t", "mobilefacenet", "mobilefacenet_foamliu", "resnet_tiny"]
)
def test_memory_format_does_not_change_the_embedding(name: str) -> None:
    module = build_backbone(name, embedding_size=32, input_size=64).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        plain = module(images)
        last = module.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
    assert torch.allclose(plain, last, rtol=1e-4, atol=1e-4 * plain.abs().max().item())


@pytest.mark.parametrize("name", sorted(set(BACKBONES) - DEEP))
def test_every_trainable_parameter_gets_a_gradient(name: str) -> None:
    module = build_backbone(name, embedding_size=32, input_size=32)
    module(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert [key for key, p in module.named_parameters() if p.requires_grad and p.grad is None] == []


def test_width_and_activation_make_a_smaller_net() -> None:
    half = build_backbone("mobilefacenet", options={"width": 0.5, "activation": "relu"})
    assert count_parameters(half) == 382_976
    assert not [key for key in half.state_dict() if "prelu" in key]
    assert count_parameters(build_backbone("mobilefacenet", options={"width": 1})) == 1_199_488


def test_resnet_tiny_default_is_under_three_quarters_of_a_million() -> None:
    module = build_backbone("resnet_tiny")
    assert (count_parameters(module), count_macs(module, 112)) == (749_920, 69_415_040)


def test_narrow_shortcut_of_resnet_tiny_is_the_strided_convolution() -> None:
    block = build_backbone("resnet_tiny", input_size=32, options={"channels": "8,20", "blocks": "1,1"}).stages[1]
    x = torch.randn(2, 8, 7, 7)
    strided = block.shortcut[1](nn.functional.conv2d(x, block.shortcut[0].weight, stride=2))
    straight = block.activation2(block.conv2(block.activation1(block.conv1(x))) + strided)
    torch.testing.assert_close(block(x), straight)


SPOILING = """
import torch
from facekd.models.backbone import build_backbone
torch.set_num_threads(2)
options = {"channels": "4,8", "blocks": "1,1"}
student = build_backbone("resnet_tiny", embedding_size=16, input_size=32, options=options)
student.to(memory_format=torch.channels_last)
for _ in range(60):
    images = torch.randn(3, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    student(images).square().sum().backward()
"""


def test_narrow_resnet_tiny_trains_on_two_threads_without_spoiling_memory() -> None:
    """As a strided 1x1 convolution its shortcut ended the process six times of six on a CPU with AVX-512."""
    assert subprocess.run([sys.executable, "-c", SPOILING], timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("iresnet51", {}, "iresnet51: unknown backbone .did you mean iresnet50"),
        ("mobilefacenet", {"widht": 0.5}, "unknown option widht .did you mean width"),
        ("mobilefacenet", {"width": "0.5"}, "option width is '0.5' .expected float"),
        ("mobilefacenet", {"width": True}, "option width is True"),
        ("mobilefacenet", {"width": 9.0}, "9 is outside 0.1..4"),
        ("mobilefacenet", {"activation": "gelu"}, "gelu is not offered .known: prelu, relu"),
        ("vit_t", {"depth": 3}, "unknown option depth .this backbone takes no options"),
        ("resnet_tiny", {"channels": "8,x"}, "option channels is '8,x'"),
        ("resnet_tiny", {"channels": "8,16", "blocks": "1"}, "name 2 and 1 stages"),
        ("timm/mobilenetv3_small_050", {"width": 2.0}, "unknown option width .timm backbones take no options"),
    ],
)
def test_refusals(name: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_backbone(name, options=options)


def test_sizes_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="16 pixels is too small"):
        build_backbone("mobilefacenet", input_size=16)
    with pytest.raises(UsageError, match="0 is not a positive width"):
        build_backbone("mobilefacenet", embedding_size=0)


def test_counting_leaves_the_mode_and_no_hook_behind() -> None:
    module = build_backbone("resnet_tiny", input_size=32)
    module.stem.eval()
    count_macs(module, 32)
    assert module.training and not module.stem.training and module.stages.training
    assert not any(m._forward_hooks for m in module.modules())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "width"), [("mobilenetv3_small_050", 112, 1024), ("vit_tiny_patch16_224", 112, 192)]
)
def test_timm_adapter_finds_the_true_width(name: str, size: int, width: int) -> None:
    module = build_backbone(f"timm/{name}", embedding_size=64, input_size=size).eval()
    assert module.linear.in_features == width
    with torch.no_grad():
        assert module(torch.zeros(2, 3, size, size)).shape == (2, 64)


@pytest.mark.slow
def test_timm_names_get_near_names() -> None:
    with pytest.raises(UsageError, match="timm/mobilenetv3_smal_050: timm knows no such model .did you mean mobilenet"):
        build_backbone("timm/mobilenetv3_smal_050")
