"""PocketNet against its published sizes, cell by cell, and its wiring against a forward pass written out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from facekd.models.backbone import build_backbone
from facekd.models.macs import count_macs
from facekd.models.pocketnet import PocketNet, pocketnet_m, pocketnet_s

TOTALS = {
    ("pocketnet_s", 128): 925_632,
    ("pocketnet_s", 256): 991_424,
    ("pocketnet_m", 128): 1_686_656,
    ("pocketnet_m", 256): 1_752_448,
    ("pocketnet_s", 512): 1_674_944,
    ("pocketnet_m", 512): 2_698_112,
}
CELLS = {
    "pocketnet_s": [5_632] * 6 + [10_688, 16_832] + [18_944] * 4 + [35_712, 60_288] + [68_608] * 3 + [128_768],
    "pocketnet_m": [18_944] * 3 + [35_712, 60_288, 68_608, 128_768, 227_072, 486_912],
}
MACS = {("pocketnet_s", 128): 283.54, ("pocketnet_s", 256): 283.61, ("pocketnet_m", 128): 538.22}


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("name", "width"), TOTALS)
def test_parameters_are_the_published_ones(name: str, width: int) -> None:
    assert size(build_backbone(name, embedding_size=width)) == TOTALS[name, width]


@pytest.mark.parametrize("name", CELLS)
def test_every_cell_has_its_published_size(name: str) -> None:
    net = build_backbone(name, embedding_size=128)
    assert isinstance(net, PocketNet)
    assert [size(cell) for cell in net.cells] == CELLS[name]
    assert size(net.stem) == {"pocketnet_s": 1_856, "pocketnet_m": 3_712}[name]
    assert size(net.tail) == {"pocketnet_s": 356_096, "pocketnet_m": 618_752}[name]


@pytest.mark.parametrize(("name", "width"), MACS)
def test_multiply_accumulates_are_the_published_ones(name: str, width: int) -> None:
    assert count_macs(build_backbone(name, embedding_size=width), 112) / 1e6 == pytest.approx(
        MACS[name, width], abs=0.01
    )


@pytest.mark.parametrize("factory", [pocketnet_s, pocketnet_m])
def test_maps_halve_at_the_three_reductions(factory) -> None:
    net, sides = factory(128, 112).eval(), []
    for cell in net.cells:
        cell.register_forward_hook(lambda module, given, out: sides.append((out.shape[1], out.shape[-1])))
    with torch.no_grad():
        assert net(torch.zeros(1, 3, 112, 112)).shape == (1, 128)
    third = len(net.cells) // 3
    expected = [56] * third + [28] * third + [14] * (third - 1) + [7]
    assert [side for _, side in sides] == expected
    wide = net.stem[0].out_channels
    assert [channels for channels, _ in sides] == [wide * 56 // side for side in expected]


def test_a_reduction_cell_adds_up_what_its_genotype_says() -> None:
    """Node by node: dw3(1)+dw7(0), skip(2)+dw5(1), max(0)+skip(2), max(0)+max(1)."""
    cell = pocketnet_s(128, 112).eval().double().cells[6]
    torch.manual_seed(0)
    before, last = torch.randn(2, 1, 64, 12, 12, dtype=torch.float64).unbind()
    with torch.no_grad():
        first, second = cell.first(before), cell.second(last)
        dw3, dw7, _, dw5, max_a, _, max_b, max_c = cell.edges
        node2 = dw3(second) + dw7(first)
        nodes = [node2, node2 + dw5(second), max_a(first) + node2, max_b(first) + max_c(second)]
        torch.testing.assert_close(cell(before, last), torch.cat(nodes, 1))


@pytest.mark.parametrize("side", [64, 96, 100, 112])
def test_other_input_sizes_work(side: int) -> None:
    net = pocketnet_m(64, side).eval()
    with torch.no_grad():
        assert net(torch.zeros(2, 3, side, side)).shape == (2, 64)
