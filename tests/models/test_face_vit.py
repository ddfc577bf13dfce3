"""arcface_torch's vision transformers: counts, keys, and attention against plain loops."""

from __future__ import annotations

import pytest
import torch

from facekd.models.backbone import build_backbone
from facekd.models.face_vit import FaceViT, _Attention
from facekd.models.macs import count_parameters

COUNTS = {"vit_t": (150, 19_137_792), "vit_s": (150, 76_023_296), "vit_b": (282, 113_833_472)}


@pytest.mark.parametrize("name", COUNTS)
def test_tensors_and_parameters_are_those_of_the_field(name: str) -> None:
    with torch.device("meta"):
        module = build_backbone(name)
    assert (len(module.state_dict()), count_parameters(module)) == COUNTS[name]


def test_keys_and_shapes() -> None:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in build_backbone("vit_t").state_dict().items()}
    assert shapes["pos_embed"] == (1, 144, 256)
    assert shapes["mask_token"] == (1, 1, 256)
    assert shapes["patch_embed.proj.weight"] == (256, 3, 9, 9)
    assert shapes["blocks.11.attn.qkv.weight"] == (768, 256)
    assert "blocks.0.attn.qkv.bias" not in shapes
    assert shapes["blocks.0.attn.proj.bias"] == (256,)
    assert shapes["blocks.0.mlp.fc1.weight"] == (1024, 256)
    assert shapes["feature.0.weight"] == (256, 144 * 256)
    assert shapes["feature.2.weight"] == (512, 256)
    assert "feature.0.bias" not in shapes and "feature.2.bias" not in shapes
    assert shapes["feature.3.running_var"] == (512,)


def test_attention_is_that_of_eight_heads_by_hand() -> None:
    torch.manual_seed(0)
    attention, x = _Attention(32).double(), torch.randn(1, 5, 32, dtype=torch.float64)
    rows = x[0] @ attention.qkv.weight.T
    mixed = torch.zeros(5, 32, dtype=torch.float64)
    for head in range(8):
        part = slice(4 * head, 4 * head + 4)
        query, key, value = rows[:, :32][:, part], rows[:, 32:64][:, part], rows[:, 64:][:, part]
        for token in range(5):
            scores = torch.stack([query[token] @ key[other] / 4**0.5 for other in range(5)])
            mixed[token, part] = torch.softmax(scores, 0) @ value
    expected = mixed @ attention.proj.weight.T + attention.proj.bias
    with torch.no_grad():
        assert torch.allclose(attention(x)[0], expected, atol=1e-12)


def test_pixels_beyond_whole_patches_are_not_read() -> None:
    torch.manual_seed(0)
    module = FaceViT(32, 2, 16, 40).eval()
    images = torch.randn(1, 3, 40, 40)
    changed = images.clone()
    changed[:, :, 36:] = 9.0
    changed[:, :, :, 36:] = -9.0
    with torch.no_grad():
        assert torch.equal(module(images), module(changed))
        changed[0, 0, 35, 35] += 1
        assert not torch.equal(module(images), module(changed))


def test_every_token_reaches_the_embedding_at_its_own_place() -> None:
    torch.manual_seed(0)
    module = FaceViT(32, 1, 16, 36).eval()
    module.pos_embed.data.zero_()
    images = torch.randn(1, 3, 36, 36)
    rolled = images.roll(9, 3)
    with torch.no_grad():
        assert not torch.allclose(module(images), module(rolled))
