"""MobileFaceNet (Chen et al., 2018, arXiv 1804.07573) in the two forms the field uses.

`mobilefacenet` is the form of TFace, AdaDistill and FaceX-Zoo (1,199,488 parameters, 221 M multiply-accumulates at
112 pixels and 512 dimensions); `mobilefacenet_insightface` is InsightFace's `mbf` (2,059,520 and 437 M) and
`mobilefacenet_insightface_large` its `mbf_large`. State dicts carry the keys of those projects. All start from
Kaiming-normal (fan out) convolution and linear weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from facekd.errors import UsageError

ACTIVATIONS = ("prelu", "relu")


def check_activation(activation: str) -> None:
    """Refuse an activation the small backbones do not offer."""
    if activation not in ACTIVATIONS:
        raise UsageError("activation", f"{activation} is not offered", f"known: {', '.join(ACTIVATIONS)}")


def make_activation(activation: str, channels: int) -> nn.Module:
    """PReLU with one slope a channel, or ReLU in place (much the faster on a CPU)."""
    return nn.PReLU(channels) if activation == "prelu" else nn.ReLU(inplace=True)


def downsampled(size: int, halvings: int = 4) -> int:
    """Side of the last feature map after stride-2 convolutions with padding 1.

    Example:
        >>> downsampled(112), downsampled(64), downsampled(56)
        (7, 4, 4)
    """
    for _ in range(halvings):
        size = (size + 1) // 2
    return size


def initialise_kaiming(module: nn.Module) -> None:
    """Kaiming-normal, fan out, ReLU gain for every convolution and linear layer; their biases zero."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def _convolution(channels_in: int, channels_out: int, size: int, stride: int, padding: int, groups: int) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, stride, padding, groups=groups, bias=False)


class _ConvBlock(nn.Module):
    """Convolution, BatchNorm, and a PReLU or ReLU unless ``activation`` is None."""

    def __init__(self, convolution: nn.Conv2d, activation: str | None) -> None:
        super().__init__()
        self.conv = convolution
        self.bn = nn.BatchNorm2d(convolution.out_channels)
        if activation is not None:
            name = "prelu" if activation == "prelu" else "relu"
            self.add_module(name, make_activation(activation, convolution.out_channels))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


class _Bottleneck(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 projection without activation."""

    def __init__(self, channels: tuple[int, int, int], stride: int, activation: str, residual: bool) -> None:
        super().__init__()
        channels_in, hidden, channels_out = channels
        self.residual = residual
        self.conv = _ConvBlock(_convolution(channels_in, hidden, 1, 1, 0, 1), activation)
        self.conv_dw = _ConvBlock(_convolution(hidden, hidden, 3, stride, 1, hidden), activation)
        self.project = _ConvBlock(_convolution(hidden, channels_out, 1, 1, 0, 1), None)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.project(self.conv_dw(self.conv(x)))
        return x + out if self.residual else out


class _Residuals(nn.Module):
    def __init__(self, channels: int, hidden: int, blocks: int, activation: str) -> None:
        super().__init__()
        self.model = nn.Sequential(
            *(_Bottleneck((channels, hidden, channels), 1, activation, True) for _ in range(blocks))
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.model(x)
        return out


class _GlobalDepthwise(nn.Module):
    """One depthwise convolution over the whole map, then Linear and BatchNorm to the embedding."""

    def __init__(self, channels: int, embedding_size: int, side: int, affine: bool) -> None:
        super().__init__()
        self.conv_6_dw = _ConvBlock(_convolution(channels, channels, side, 1, 0, channels), None)
        self.linear = nn.Linear(channels, embedding_size, bias=False)
        self.bn = nn.BatchNorm1d(embedding_size, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.linear(self.conv_6_dw(x).flatten(1)))
        return out


class MobileFaceNet(nn.Module):
    """The 221 M-MAC MobileFaceNet, scalable in width; keys as in AdaDistill and TFace.

    Args:
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels; the last depthwise convolution covers what is left of it.
        width: Multiplies every channel count but the embedding's; counts are multiples of 8.
        activation: ``prelu`` as published, or ``relu``.
        affine: Whether the last BatchNorm has a learned scale and shift (FaceX-Zoo's form has).
    """

    def __init__(
        self, embedding_size: int, input_size: int, width: float = 1.0, activation: str = "prelu", affine: bool = False
    ) -> None:
        super().__init__()
        c64, c128, c256, c512 = (max(8, round(c * width / 8) * 8) for c in (64, 128, 256, 512))
        self.conv1 = _ConvBlock(_convolution(3, c64, 3, 2, 1, 1), activation)
        self.conv2_dw = _ConvBlock(_convolution(c64, c64, 3, 1, 1, c64), activation)
        self.conv_23 = _Bottleneck((c64, c128, c64), 2, activation, False)
        self.conv_3 = _Residuals(c64, c128, 4, activation)
        self.conv_34 = _Bottleneck((c64, c256, c128), 2, activation, False)
        self.conv_4 = _Residuals(c128, c256, 6, activation)
        self.conv_45 = _Bottleneck((c128, c512, c128), 2, activation, False)
        self.conv_5 = _Residuals(c128, c256, 2, activation)
        self.conv_6_sep = _ConvBlock(_convolution(c128, c512, 1, 1, 0, 1), activation)
        self.output_layer = _GlobalDepthwise(c512, embedding_size, downsampled(input_size), affine)
        initialise_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.children():
            x = layer(x)
        return x


def mobilefacenet(
    embedding_size: int, input_size: int, *, width: float = 1.0, activation: str = "prelu", affine: bool = False
) -> nn.Module:
    """MobileFaceNet of TFace, AdaDistill and FaceX-Zoo.

    Raises:
        UsageError: A width outside 0.1..4, or an unknown activation.

    Example:
        >>> sum(p.numel() for p in mobilefacenet(512, 112).parameters())
        1199488
    """
    if not 0.1 <= width <= 4:
        raise UsageError("width", f"{width:g} is outside 0.1..4", "1 is the published net")
    check_activation(activation)
    return MobileFaceNet(embedding_size, input_size, width, activation, affine)


class _Layers(nn.Module):
    """Modules in a row under the name ``layers``, with an optional shortcut: InsightFace's key structure."""

    def __init__(self, *layers: nn.Module, residual: bool = False) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


def _layers_block(convolution: nn.Conv2d, activation: bool = True) -> _Layers:
    channels = convolution.out_channels
    tail = [nn.PReLU(channels)] if activation else []
    return _Layers(convolution, nn.BatchNorm2d(channels), *tail)


def _layers_bottleneck(channels_in: int, hidden: int, channels_out: int, stride: int) -> _Layers:
    return _Layers(
        _layers_block(_convolution(channels_in, hidden, 1, 1, 0, 1)),
        _layers_block(_convolution(hidden, hidden, 3, stride, 1, hidden)),
        _layers_block(_convolution(hidden, channels_out, 1, 1, 0, 1), activation=False),
        residual=stride == 1,
    )


def _layers_row(channels: int, hidden: int, blocks: int) -> _Layers:
    return _Layers(*(_layers_bottleneck(channels, hidden, channels, 1) for _ in range(blocks)))


class MobileFaceNetInsightFace(nn.Module):
    """InsightFace's `mbf`: hidden widths as in the narrow net, all others ``scale`` times as wide.

    A single block of the first stage is a convolution with 64 groups whatever its channels, which is how the published
    weights are shaped.

    Args:
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels.
        blocks: Blocks between the convolutions that halve the map.
        scale: Factor of the widths.
    """

    def __init__(self, embedding_size: int, input_size: int, blocks: tuple[int, int, int, int], scale: int) -> None:
        super().__init__()
        narrow, wide = 64 * scale, 128 * scale
        first = _layers_block(_convolution(narrow, narrow, 3, 1, 1, 64))
        self.layers = nn.ModuleList(
            [
                _layers_block(_convolution(3, narrow, 3, 2, 1, 1)),
                first if blocks[0] == 1 else _layers_row(narrow, 128, blocks[0]),
                _layers_bottleneck(narrow, 128, narrow, 2),
                _layers_row(narrow, 128, blocks[1]),
                _layers_bottleneck(narrow, 256, wide, 2),
                _layers_row(wide, 256, blocks[2]),
                _layers_bottleneck(wide, 512, wide, 2),
                _layers_row(wide, 256, blocks[3]),
            ]
        )
        self.conv_sep = _layers_block(_convolution(wide, 512, 1, 1, 0, 1))
        side = downsampled(input_size)
        self.features = _Layers(
            _layers_block(_convolution(512, 512, side, 1, 0, 512), activation=False),
            nn.Flatten(),
            nn.Linear(512, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )
        initialise_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        out: Tensor = self.features(self.conv_sep(x))
        return out


def mobilefacenet_insightface(embedding_size: int, input_size: int) -> nn.Module:
    """InsightFace's `mbf`, key for key.

    Example:
        >>> sum(p.numel() for p in mobilefacenet_insightface(512, 112).parameters())
        2059520
    """
    return MobileFaceNetInsightFace(embedding_size, input_size, (1, 4, 6, 2), 2)


def mobilefacenet_insightface_large(embedding_size: int, input_size: int) -> nn.Module:
    """InsightFace's `mbf_large`, key for key: 6.3 M parameters at 112 pixels and 512 dimensions."""
    return MobileFaceNetInsightFace(embedding_size, input_size, (2, 8, 12, 4), 4)
