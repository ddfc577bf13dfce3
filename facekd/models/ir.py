"""IR and IR-SE, the backbones of TFace, AdaFace and CVLface, and their older form in evoLVe, TreB1eN and FaceX-Zoo.

Blocks are pre-activated as in IResNet, but where the widths agree the shortcut only drops rows and columns (a max
pooling of one pixel), the first block of the first stage included; weights of one cannot be renamed into the other.
Keys are those of the projects. Deng et al. 2019 (arXiv 1801.07698); squeeze and excitation: Hu et al. 2018 (arXiv
1709.01507).
"""

from __future__ import annotations

from torch import Tensor, nn

from facekd.models.mobilefacenet import downsampled, initialise_kaiming

BLOCKS = {
    "ir18": (2, 2, 2, 2),
    "ir34": (3, 4, 6, 3),
    "ir50": (3, 4, 14, 3),
    "ir101": (3, 13, 30, 3),
    "ir152": (3, 8, 36, 3),
    "ir200": (3, 24, 36, 3),
}
BOTTLENECKS = ("ir152", "ir200")
"""The newer form of these has blocks of three convolutions and four times the channels."""

OLDER = ("ir50", "ir101", "ir152")
"""The depths the older form was published in."""

CHANNELS = (64, 128, 256, 512)
WIDENING = 4
_REDUCTION = 16


class _SqueezeExcitation(nn.Module):
    """Each channel times a factor in (0, 1) read from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // _REDUCTION, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // _REDUCTION, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return x * self.fc2(self.fc1(means).relu()).sigmoid()


def _convolution(channels_in: int, channels: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels, size, stride, size // 2, bias=False)


def _residual(channels_in: int, channels: int, stride: int, bottleneck: bool, older: bool) -> nn.Sequential:
    if bottleneck:
        inner = channels // WIDENING
        return nn.Sequential(
            nn.BatchNorm2d(channels_in),
            _convolution(channels_in, inner, 1),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            _convolution(inner, inner, 3),
            nn.BatchNorm2d(inner),
            nn.PReLU(inner),
            _convolution(inner, channels, 1, stride),
            nn.BatchNorm2d(channels),
        )
    middle = [nn.PReLU(channels)] if older else [nn.BatchNorm2d(channels), nn.PReLU(channels)]
    return nn.Sequential(
        nn.BatchNorm2d(channels_in),
        _convolution(channels_in, channels, 3),
        *middle,
        _convolution(channels, channels, 3, stride),
        nn.BatchNorm2d(channels),
    )


class _Block(nn.Module):
    def __init__(self, channels_in: int, channels: int, stride: int, residual: nn.Sequential) -> None:
        super().__init__()
        self.shortcut_layer: nn.Module = nn.MaxPool2d(1, stride)
        if channels_in != channels:
            self.shortcut_layer = nn.Sequential(
                _convolution(channels_in, channels, 1, stride), nn.BatchNorm2d(channels)
            )
        self.res_layer = residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.res_layer(x) + self.shortcut_layer(x)
        return out


class IR(nn.Module):
    """IR of any published depth.

    Args:
        name: A key of `BLOCKS`.
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels; the fully connected layer sees a sixteenth of it, rounded up.
        se: Squeeze and excitation at the end of every block.
        older: No BatchNorm between the convolutions of a block, and a last BatchNorm with scale and shift.

    The dropout of the published nets has no weights and is left out.
    """

    def __init__(self, name: str, embedding_size: int, input_size: int, se: bool, older: bool) -> None:
        super().__init__()
        bottleneck = name in BOTTLENECKS and not older
        channels_in = CHANNELS[0]
        self.input_layer = nn.Sequential(_convolution(3, channels_in, 3), nn.BatchNorm2d(64), nn.PReLU(64))
        body = []
        for narrow, count in zip(CHANNELS, BLOCKS[name], strict=True):
            channels = narrow * (WIDENING if bottleneck else 1)
            for index in range(count):
                stride = 2 if index == 0 else 1
                residual = _residual(channels_in, channels, stride, bottleneck, older)
                if se:
                    residual.add_module(str(len(residual)) if older else "se_block", _SqueezeExcitation(channels))
                body.append(_Block(channels_in, channels, stride, residual))
                channels_in = channels
        self.body = nn.Sequential(*body)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Identity(),
            nn.Flatten(),
            nn.Linear(channels_in * downsampled(input_size) ** 2, embedding_size),
            nn.BatchNorm1d(embedding_size, affine=older),
        )
        initialise_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.output_layer(self.body(self.input_layer(x)))
        return out


def ir18(embedding_size: int, input_size: int, *, se: bool = False) -> nn.Module:
    """IR-18."""
    return IR("ir18", embedding_size, input_size, se, older=False)


def ir34(embedding_size: int, input_size: int, *, se: bool = False) -> nn.Module:
    """IR-34."""
    return IR("ir34", embedding_size, input_size, se, older=False)


def ir50(embedding_size: int, input_size: int, *, se: bool = False, older: bool = False) -> nn.Module:
    """IR-50, with ``se`` IR-SE-50.

    Example:
        >>> sum(p.numel() for p in ir50(512, 112).parameters())
        43585600
    """
    return IR("ir50", embedding_size, input_size, se, older)


def ir101(embedding_size: int, input_size: int, *, se: bool = False, older: bool = False) -> nn.Module:
    """IR-101, also called IR-100."""
    return IR("ir101", embedding_size, input_size, se, older)


def ir152(embedding_size: int, input_size: int, *, se: bool = False, older: bool = False) -> nn.Module:
    """IR-152: blocks of three convolutions, in the older form of two."""
    return IR("ir152", embedding_size, input_size, se, older)


def ir200(embedding_size: int, input_size: int, *, se: bool = False) -> nn.Module:
    """IR-200: blocks of three convolutions."""
    return IR("ir200", embedding_size, input_size, se, older=False)
