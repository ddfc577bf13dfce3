"""IResNet, the backbone of InsightFace's arcface_torch, key for key.

Blocks are pre-activated (BatchNorm, 3x3, BatchNorm, PReLU, 3x3 with the stride, BatchNorm), and every stage halves the
map, the first one too. Convolutions start from a normal distribution of spread 0.1, as there; the scale of the last
BatchNorm is fixed at 1. He et al. 2016 (arXiv 1603.05027), Duta et al. 2020 (arXiv 2004.04989).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekd.models.mobilefacenet import downsampled

BLOCKS = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
    "iresnet200": (6, 26, 60, 6),
}
EPSILON = 1e-5
CHANNELS = (64, 128, 256, 512)


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.prelu = nn.PReLU(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.downsample = None
        if stride != 1:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        out = self.bn3(self.conv2(out))
        shortcut: Tensor = x if self.downsample is None else self.downsample(x)
        return out + shortcut


def _stage(channels_in: int, channels: int, blocks: int) -> nn.Sequential:
    first = _Block(channels_in, channels, 2)
    return nn.Sequential(first, *(_Block(channels, channels, 1) for _ in range(blocks - 1)))


class IResNet(nn.Module):
    """IResNet of any depth.

    Args:
        blocks: Blocks in each of the four stages.
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels; the fully connected layer sees a sixteenth of it, rounded up.
        eps: Added to every variance: 1e-5 in arcface_torch, 2e-5 in MagFace, whose keys are the same.
    """

    def __init__(
        self, blocks: tuple[int, int, int, int], embedding_size: int, input_size: int, eps: float = EPSILON
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU(64)
        self.layer1 = _stage(64, CHANNELS[0], blocks[0])
        self.layer2 = _stage(CHANNELS[0], CHANNELS[1], blocks[1])
        self.layer3 = _stage(CHANNELS[1], CHANNELS[2], blocks[2])
        self.layer4 = _stage(CHANNELS[2], CHANNELS[3], blocks[3])
        self.bn2 = nn.BatchNorm2d(512)
        self.fc = nn.Linear(512 * downsampled(input_size) ** 2, embedding_size)
        self.features = nn.BatchNorm1d(embedding_size)
        self.features.weight.requires_grad = False
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, 0.0, 0.1)
            elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
                layer.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        # flattened as channels, rows, columns, whatever the memory format
        x = torch.flatten(self.bn2(x), 1)
        out: Tensor = self.features(self.fc(x))
        return out


def iresnet18(embedding_size: int, input_size: int, *, eps: float = EPSILON) -> nn.Module:
    """IResNet-18: 24,025,600 parameters at 112 pixels and 512 dimensions."""
    return IResNet(BLOCKS["iresnet18"], embedding_size, input_size, eps)


def iresnet34(embedding_size: int, input_size: int, *, eps: float = EPSILON) -> nn.Module:
    """IResNet-34."""
    return IResNet(BLOCKS["iresnet34"], embedding_size, input_size, eps)


def iresnet50(embedding_size: int, input_size: int, *, eps: float = EPSILON) -> nn.Module:
    """IResNet-50: 43,590,848 parameters at 112 pixels and 512 dimensions."""
    return IResNet(BLOCKS["iresnet50"], embedding_size, input_size, eps)


def iresnet100(embedding_size: int, input_size: int, *, eps: float = EPSILON) -> nn.Module:
    """IResNet-100."""
    return IResNet(BLOCKS["iresnet100"], embedding_size, input_size, eps)


def iresnet200(embedding_size: int, input_size: int, *, eps: float = EPSILON) -> nn.Module:
    """IResNet-200."""
    return IResNet(BLOCKS["iresnet200"], embedding_size, input_size, eps)
