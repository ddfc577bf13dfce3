"""A small residual network of dense 3x3 convolutions, made to be trained on a CPU.

Depthwise convolutions save multiply-accumulates, but a CPU spends them at a fraction of its speed; dense ones on few
channels learn more in a second. Kaiming-normal (fan out) start.
"""

from __future__ import annotations

from torch import Tensor, nn

from facekd.errors import UsageError
from facekd.models.mobilefacenet import check_activation, downsampled, initialise_kaiming, make_activation

NARROW = 16
"""Below so many channels in, PyTorch 2.15's gradient of a strided 1x1 convolution writes past its memory (oneDNN's
jit_1x1:avx512_core, channels last, several threads): such a convolution is taken of every second pixel instead."""


def _normed(channels_in: int, channels_out: int, size: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels_in, channels_out, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out))


class _Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm beside a shortcut, which is a 1x1 convolution where the map changes."""

    def __init__(self, channels_in: int, channels: int, stride: int, activation: str) -> None:
        super().__init__()
        self.conv1 = _normed(channels_in, channels, 3, stride)
        self.activation1 = make_activation(activation, channels)
        self.conv2 = _normed(channels, channels, 3, 1)
        self.skip = stride if channels_in < NARROW else 1
        self.shortcut = nn.Identity() if stride == 1 else _normed(channels_in, channels, 1, stride // self.skip)
        self.activation2 = make_activation(activation, channels)

    def forward(self, x: Tensor) -> Tensor:
        shown = x if self.skip == 1 else x[:, :, :: self.skip, :: self.skip]
        out: Tensor = self.activation2(self.conv2(self.activation1(self.conv1(x))) + self.shortcut(shown))
        return out


class ResNetTiny(nn.Module):
    """Stem of stride 2, stages that each halve the map, global depthwise convolution, Linear and BatchNorm.

    Args:
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels.
        channels: Of each stage; the stem has those of the first.
        blocks: Residual blocks of each stage.
        activation: ``relu`` or ``prelu``.
    """

    def __init__(
        self, embedding_size: int, input_size: int, channels: tuple[int, ...], blocks: tuple[int, ...], activation: str
    ) -> None:
        super().__init__()
        first, last = channels[0], channels[-1]
        self.stem = nn.Sequential(*_normed(3, first, 3, 2), make_activation(activation, first))
        stages: list[nn.Module] = []
        before = first
        for here, count in zip(channels, blocks, strict=True):
            stages += [_Block(before if i == 0 else here, here, 2 if i == 0 else 1, activation) for i in range(count)]
            before = here
        self.stages = nn.Sequential(*stages)
        side = downsampled(input_size, 1 + len(channels))
        self.pool = nn.Sequential(nn.Conv2d(last, last, side, groups=last, bias=False), nn.BatchNorm2d(last))
        self.linear = nn.Linear(last, embedding_size, bias=False)
        self.bn = nn.BatchNorm1d(embedding_size, affine=False)
        initialise_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stages(self.stem(x))).flatten(1)
        out: Tensor = self.bn(self.linear(x))
        return out


def resnet_tiny(
    embedding_size: int,
    input_size: int,
    *,
    channels: str = "32,64,128",
    blocks: str = "1,2,2",
    activation: str = "relu",
) -> nn.Module:
    """A dense residual student.

    Args:
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels.
        channels: Comma-separated channels of the stages, narrowest first; each stage halves the map.
        blocks: Comma-separated residual blocks of the stages, as many numbers.
        activation: ``relu``, or ``prelu``.

    Raises:
        UsageError: Numbers that cannot be read or do not match, or an unknown activation.
    """
    check_activation(activation)
    wide, deep = _numbers("channels", channels), _numbers("blocks", blocks)
    if len(wide) != len(deep):
        raise UsageError(
            "resnet_tiny", f"channels {channels} and blocks {blocks} name {len(wide)} and {len(deep)} stages"
        )
    return ResNetTiny(embedding_size, input_size, wide, deep, activation)


def _numbers(option: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise UsageError("resnet_tiny", f"option {option} is {text!r}", "write positive whole numbers: 32,64,128")
    return tuple(int(part) for part in parts)
