"""The MobileFaceNet of foamliu, key for key.

Unlike the other two forms it has ReLU6 (but ReLU around its first depthwise convolution, which a 1x1 convolution
follows) and a bias before the last BatchNorm, so its weights are its own. Chen et al. 2018 (arXiv 1804.07573).
"""

from __future__ import annotations

from torch import Tensor, nn

from facekd.models.mobilefacenet import downsampled, initialise_kaiming

STAGES = ((64, 128, 5), (128, 256, 7), (128, 512, 1), (128, 256, 2))
"""Channels out, hidden channels and blocks; the first three halve the map."""

_LAST = 512


def _normed(channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU6(inplace=True))


class _Separable(nn.Module):
    """Depthwise, then 1x1, each with BatchNorm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.bn2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.depthwise(x)).relu()
        out: Tensor = self.bn2(self.pointwise(x)).relu()
        return out


class _Block(nn.Module):
    def __init__(self, channels_in: int, hidden: int, channels: int, stride: int) -> None:
        super().__init__()
        self.residual = stride == 1
        self.conv = nn.Sequential(
            _normed(channels_in, hidden, 1),
            _normed(hidden, hidden, 3, stride, hidden),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return x + out if self.residual else out


class _GlobalDepthwise(nn.Module):
    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, side, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.depthwise(x))
        return out


class MobileFaceNetFoamliu(nn.Module):
    """foamliu's MobileFaceNet.

    Args:
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels; the last depthwise convolution covers what is left of it.
    """

    def __init__(self, embedding_size: int, input_size: int) -> None:
        super().__init__()
        self.conv1 = _normed(3, 64, 3, 2)
        self.dw_conv = _Separable(64)
        blocks: list[nn.Module] = []
        channels_in = 64
        for stage, (channels, hidden, count) in enumerate(STAGES):
            for index in range(count):
                halves = index == 0 and stage < 3
                blocks.append(_Block(channels_in, hidden, channels, 2 if halves else 1))
                channels_in = channels
        self.features = nn.Sequential(*blocks)
        self.conv2 = _normed(channels_in, _LAST, 1)
        self.gdconv = _GlobalDepthwise(_LAST, downsampled(input_size))
        self.conv3 = nn.Conv2d(_LAST, embedding_size, 1)
        self.bn = nn.BatchNorm2d(embedding_size)
        initialise_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv2(self.features(self.dw_conv(self.conv1(x))))
        out: Tensor = self.bn(self.conv3(self.gdconv(x))).flatten(1)
        return out


def mobilefacenet_foamliu(embedding_size: int, input_size: int) -> nn.Module:
    """MobileFaceNet of foamliu: 1.0 M parameters at 128 dimensions."""
    return MobileFaceNetFoamliu(embedding_size, input_size)
