"""The vision transformers of InsightFace's arcface_torch, key for key.

Patches of nine pixels, no class token: the head reads all tokens, flattened, so these are none of timm's. The net is
that of evaluation; the published training drops a tenth of the tokens, whose stand-in `mask_token` is kept for its key
alone. An et al. 2022 (arXiv 2203.15565); Dosovitskiy et al. 2021 (arXiv 2010.11929).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

SHAPES = {"vit_t": (256, 12), "vit_s": (512, 12), "vit_b": (512, 24)}
"""Name -> width and number of blocks."""

PATCH = 9
_HEADS = 8
_SPREAD = 0.02
_HEAD_EPSILON = 2e-5


class _Attention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        split = self.qkv(x).reshape(batch, tokens, 3, _HEADS, width // _HEADS).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(functional.relu6(self.fc1(x)))
        return out


class _Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _Attention(width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _Perceptron(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class _Patches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return out


class FaceViT(nn.Module):
    """arcface_torch's vision transformer.

    Args:
        width: Channels of a token, a multiple of 8.
        depth: Number of blocks.
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels; what is left of it after whole patches of 9 is not read.
    """

    def __init__(self, width: int, depth: int, embedding_size: int, input_size: int) -> None:
        super().__init__()
        tokens = (input_size // PATCH) ** 2
        self.patch_embed = _Patches(width)
        self.pos_embed = nn.Parameter(torch.empty(1, tokens, width))
        self.mask_token = nn.Parameter(torch.empty(1, 1, width), requires_grad=False)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.feature = nn.Sequential(
            nn.Linear(tokens * width, width, bias=False),
            nn.BatchNorm1d(width, eps=_HEAD_EPSILON),
            nn.Linear(width, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size, eps=_HEAD_EPSILON),
        )
        for token in (self.pos_embed, self.mask_token):
            nn.init.trunc_normal_(token, std=_SPREAD)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=_SPREAD)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.blocks(self.patch_embed(x) + self.pos_embed))
        out: Tensor = self.feature(tokens.flatten(1))
        return out


def vit_t(embedding_size: int, input_size: int) -> nn.Module:
    """ViT-T of arcface_torch: 19.1 M parameters at 112 pixels and 512 dimensions."""
    return FaceViT(*SHAPES["vit_t"], embedding_size, input_size)


def vit_s(embedding_size: int, input_size: int) -> nn.Module:
    """ViT-S of arcface_torch: 76.0 M parameters."""
    return FaceViT(*SHAPES["vit_s"], embedding_size, input_size)


def vit_b(embedding_size: int, input_size: int) -> nn.Module:
    """ViT-B of arcface_torch: 113.8 M parameters."""
    return FaceViT(*SHAPES["vit_b"], embedding_size, input_size)
