"""IR and IR-SE: the field's counts and keys, and the forward pass against plain arithmetic."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from facekd.errors import UsageError
from facekd.models.backbone import build_backbone
from facekd.models.macs import count_parameters

COUNTS = {
    ("ir18", False, False): (179, 24_020_352),
    ("ir50", False, False): (467, 43_585_600),
    ("ir50", True, False): (515, 43_808_320),
    ("ir50", False, True): (349, 43_574_976),
    ("ir50", True, True): (397, 43_797_696),
    ("ir101", False, False): (917, 65_150_912),
    ("ir152", False, False): (1291, 109_636_736),
    ("ir152", True, True): (787, 71_148_736),
    ("ir200", False, False): (1691, 114_138_240),
}


def options(se: bool, older: bool) -> dict[str, object]:
    return {"se": se} | ({"older": True} if older else {})


@pytest.mark.parametrize(("name", "se", "older"), COUNTS)
def test_tensors_and_parameters_are_those_of_the_field(name: str, se: bool, older: bool) -> None:
    with torch.device("meta"):
        module = build_backbone(name, options=options(se, older))
    assert (len(module.state_dict()), count_parameters(module)) == COUNTS[name, se, older]


def test_keys_of_the_newer_form() -> None:
    with torch.device("meta"):
        state = build_backbone("ir50", options={"se": True}).state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.endswith("num_batches_tracked")}
    first = [key for key in shapes if key.startswith("body.0.")]
    assert not [key for key in first if "shortcut_layer" in key]
    assert shapes["body.3.shortcut_layer.0.weight"] == (128, 64, 1, 1)
    assert {key.removeprefix("body.0.res_layer.").split(".")[0] for key in first} == {
        *("0", "1", "2", "3", "4", "5"),
        "se_block",
    }
    assert shapes["body.23.res_layer.se_block.fc1.weight"] == (32, 512, 1, 1)
    head = [key for key in shapes if key.startswith("output_layer.")]
    assert head == [
        *(f"output_layer.0.{name}" for name in ("weight", "bias", "running_mean", "running_var")),
        *("output_layer.3.weight", "output_layer.3.bias"),
        *("output_layer.4.running_mean", "output_layer.4.running_var"),
    ]
    assert shapes["output_layer.3.weight"] == (512, 25088)


def test_keys_of_the_older_form() -> None:
    with torch.device("meta"):
        state = build_backbone("ir50", options={"se": True, "older": True}).state_dict()
    assert state["body.0.res_layer.2.weight"].shape == (64,)
    assert state["body.0.res_layer.3.weight"].shape == (64, 64, 3, 3)
    assert state["body.0.res_layer.5.fc2.weight"].shape == (64, 4, 1, 1)
    assert "output_layer.4.weight" in state
    assert not [key for key in state if ".res_layer.6." in key]


def test_bottlenecks_narrow_by_four() -> None:
    with torch.device("meta"):
        state = build_backbone("ir152").state_dict()
    assert state["body.0.shortcut_layer.0.weight"].shape == (256, 64, 1, 1)
    assert state["body.0.res_layer.1.weight"].shape == (64, 64, 1, 1)
    assert state["body.0.res_layer.4.weight"].shape == (64, 64, 3, 3)
    assert state["body.0.res_layer.7.weight"].shape == (256, 64, 1, 1)
    assert state["output_layer.3.weight"].shape == (512, 2048 * 49)


def norm(x: Tensor, state: dict[str, Tensor], key: str) -> Tensor:
    shape = (1, -1) + (1,) * (x.dim() - 2)
    spread = (state[f"{key}.running_var"] + 1e-5).sqrt().view(shape)
    out = (x - state[f"{key}.running_mean"].view(shape)) / spread
    if f"{key}.weight" in state:
        out = out * state[f"{key}.weight"].view(shape) + state[f"{key}.bias"].view(shape)
    return out


def prelu(x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x > 0, x, slope.view(1, -1, 1, 1) * x)


def block_by_hand(x: Tensor, state: dict[str, Tensor], key: str, stride: int, se: bool, older: bool) -> Tensor:
    """One block from its tensors alone."""
    res = f"{key}.res_layer"
    out = functional.conv2d(norm(x, state, f"{res}.0"), state[f"{res}.1.weight"], padding=1)
    if older:
        out, last = prelu(out, state[f"{res}.2.weight"]), 3
    else:
        out, last = prelu(norm(out, state, f"{res}.2"), state[f"{res}.3.weight"]), 4
    out = functional.conv2d(out, state[f"{res}.{last}.weight"], stride=stride, padding=1)
    out = norm(out, state, f"{res}.{last + 1}")
    if se:
        inner = f"{res}.5" if older else f"{res}.se_block"
        first, second = state[f"{inner}.fc1.weight"].flatten(1), state[f"{inner}.fc2.weight"].flatten(1)
        factor = torch.sigmoid(torch.relu(out.mean((2, 3)) @ first.T) @ second.T)
        out = out * factor[:, :, None, None]
    if f"{key}.shortcut_layer.0.weight" in state:
        short = functional.conv2d(x, state[f"{key}.shortcut_layer.0.weight"], stride=stride)
        return out + norm(short, state, f"{key}.shortcut_layer.1")
    return out + x[:, :, ::stride, ::stride]


@pytest.mark.parametrize("older", [False, True])
@pytest.mark.parametrize("se", [False, True])
def test_the_net_is_its_blocks_by_hand(se: bool, older: bool) -> None:
    torch.manual_seed(0)
    module = build_backbone("ir50", embedding_size=32, input_size=32, options=options(se, older))
    for buffer in module.buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    module = module.double().eval()
    state = module.state_dict()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        found = module(x)
        x = functional.conv2d(x, state["input_layer.0.weight"], padding=1)
        x = prelu(norm(x, state, "input_layer.1"), state["input_layer.2.weight"])
        for index in range(24):
            x = block_by_hand(x, state, f"body.{index}", 2 if index in (0, 3, 7, 21) else 1, se, older)
        x = norm(x, state, "output_layer.0").reshape(2, -1)
        x = x @ state["output_layer.3.weight"].T + state["output_layer.3.bias"]
        x = norm(x, state, "output_layer.4")
    assert torch.allclose(found, x, rtol=1e-9, atol=1e-9 * x.abs().max().item())


def test_no_older_form_where_none_was_published() -> None:
    with pytest.raises(UsageError, match="unknown option older"):
        build_backbone("ir200", options={"older": True})
