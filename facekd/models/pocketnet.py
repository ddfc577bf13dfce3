"""PocketNet: cells of depthwise convolutions, as found by architecture search on faces.

Boutros et al., "PocketNet: Extreme Lightweight Face Recognition Network using Neural Architecture Search and Multi-Step
Knowledge Distillation", IEEE Access 2022, arXiv 2108.10710. Every cell sums two edges into each of four nodes and
concatenates them. The genotype is the published one; the names of our tensors are our own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from facekd.models.mobilefacenet import downsampled, initialise_kaiming

NORMAL = ((("dw3", 0), ("dw1", 1)), (("dw3", 2), ("dw5", 0)), (("dw3", 3), ("dw3", 0)), (("dw3", 4), ("skip", 0)))
REDUCTION = ((("dw3", 1), ("dw7", 0)), (("skip", 2), ("dw5", 1)), (("max", 0), ("skip", 2)), (("max", 0), ("max", 1)))
"""For each node its two edges: what is done, and to which node; 0 and 1 are the cell's inputs, 2 its first node."""
SIZES = {"s": (16, 18), "m": (32, 9)}
NODES = 4


def _convolution(channels_in: int, channels_out: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, size, stride, size // 2, groups=groups, bias=False)


def _separable(channels_in: int, channels_out: int, size: int, stride: int) -> nn.Sequential:
    """PReLU, depthwise, 1x1, BatchNorm; of size 1 the depthwise convolution is one factor a channel."""
    return nn.Sequential(
        nn.PReLU(channels_in),
        _convolution(channels_in, channels_in, size, stride, channels_in),
        _convolution(channels_in, channels_out),
        nn.BatchNorm2d(channels_out),
    )


class _FactorizedReduce(nn.Module):
    """Halves the map by two strided 1x1 convolutions that look at different pixels."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.prelu = nn.PReLU(channels_in)
        self.branches = nn.ModuleList(
            nn.Sequential(
                _convolution(channels_in, channels_in, stride=2, groups=channels_in),
                _convolution(channels_in, channels_out // 2),
            )
            for _ in range(2)
        )
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(x)
        shifted = nn.functional.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]  # padded, so that odd maps halve alike
        first, second = self.branches
        out: Tensor = self.bn(torch.cat([first(x), second(shifted)], dim=1))
        return out


def _edge(name: str, channels: int, stride: int) -> nn.Module:
    if name.startswith("dw"):
        return _separable(channels, channels, int(name[2:]), stride)
    if name == "max":
        return nn.Sequential(nn.MaxPool2d(3, stride, 1), nn.BatchNorm2d(channels))
    return nn.Identity()


class _Cell(nn.Module):
    def __init__(self, before: int, last: int, channels: int, *, reduces: bool, after_reduction: bool) -> None:
        super().__init__()
        self.genotype = REDUCTION if reduces else NORMAL
        self.first = (
            _FactorizedReduce(before, channels) if after_reduction else _separable(before, channels, 1, stride=1)
        )
        self.second = _separable(last, channels, 1, stride=1)
        self.edges = nn.ModuleList(
            _edge(name, channels, 2 if reduces and node < 2 else 1) for pair in self.genotype for name, node in pair
        )

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        nodes = [self.first(before), self.second(last)]
        for number, ((_, one), (_, other)) in enumerate(self.genotype):
            nodes.append(self.edges[2 * number](nodes[one]) + self.edges[2 * number + 1](nodes[other]))
        return torch.cat(nodes[2:], dim=1)


class PocketNet(nn.Module):
    """PocketNet of either size.

    Args:
        channels: Of a node in the first cells; doubled by every reduction.
        cells: How many; those after a third, after two thirds and at the end reduce.
        embedding_size: Width of the embedding; 512 widens the tail to 1,024 channels, as published.
        input_size: Side of the square input in pixels.
    """

    def __init__(self, channels: int, cells: int, embedding_size: int, input_size: int) -> None:
        super().__init__()
        wide = NODES * channels
        self.stem = nn.Sequential(_convolution(3, wide, 3, 2), nn.BatchNorm2d(wide))
        reducing = {cells // 3, 2 * cells // 3, cells - 1}
        self.cells = nn.ModuleList()
        before, last = wide, wide
        for number in range(cells):
            reduces = number in reducing
            channels *= 2 if reduces else 1
            cell = _Cell(before, last, channels, reduces=reduces, after_reduction=number - 1 in reducing)
            self.cells.append(cell)
            before, last = last, NODES * channels
        tail, side = 1024 if embedding_size == 512 else 512, downsampled(input_size)
        self.tail = nn.Sequential(
            nn.PReLU(last),
            _convolution(last, tail),
            nn.BatchNorm2d(tail),
            nn.PReLU(tail),
            nn.Conv2d(tail, tail, side, groups=tail, bias=False),
            nn.BatchNorm2d(tail),
            _convolution(tail, embedding_size),
            nn.BatchNorm2d(embedding_size),
        )
        initialise_kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        before = last = self.stem(x)
        for cell in self.cells:
            before, last = last, cell(before, last)
        out: Tensor = self.tail(last).flatten(1)
        return out


def pocketnet_s(embedding_size: int, input_size: int) -> nn.Module:
    """PocketNetS: 18 cells, 64 to 512 channels.

    Example:
        >>> sum(p.numel() for p in pocketnet_s(128, 112).parameters())
        925632
    """
    return PocketNet(*SIZES["s"], embedding_size, input_size)


def pocketnet_m(embedding_size: int, input_size: int) -> nn.Module:
    """PocketNetM: 9 cells, 128 to 1,024 channels.

    Example:
        >>> sum(p.numel() for p in pocketnet_m(256, 112).parameters())
        1752448
    """
    return PocketNet(*SIZES["m"], embedding_size, input_size)
