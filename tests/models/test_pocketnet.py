"""PocketNet against its published sizes, cell by cell, and its wiring against a forward pass written out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published_pocketnet import forward, published
from torch import nn

from facekd.errors import CheckpointError
from facekd.models.backbone import build_backbone
from facekd.models.embedder import load_embedder
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
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
MACS = {
    ("pocketnet_s", 128): 283.54,
    ("pocketnet_s", 256): 283.61,
    ("pocketnet_m", 128): 538.22,
    ("pocketnet_m", 256): 538.28,
}


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


@pytest.mark.parametrize(("name", "channels", "cells"), [("pocketnet_s", 16, 18), ("pocketnet_m", 32, 9)])
def test_a_published_file_computes_what_its_names_say(name: str, channels: int, cells: int, tmp_path: Path) -> None:
    state = published(channels, cells, dim=32, seed=3)
    assert sum(value.numel() for key, value in state.items() if not key.endswith(STATISTICS)) == size(
        build_backbone(name, embedding_size=32)
    )
    torch.save(state, tmp_path / "295672backbone.pth")
    embedder = load_embedder(tmp_path / "295672backbone.pth")
    assert (embedder.metadata["backbone"], embedder.metadata["dialect"]) == (name, "PocketNet")
    images = torch.randint(256, (2, 3, 112, 112), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    wanted = forward(state, (images.float() - 127.5) / 127.5)
    torch.testing.assert_close(embedder.embed(images), wanted, rtol=1e-4, atol=1e-4)
    swapped = dict(state)  # negative control: these two have one shape, and only the name tells them apart
    pair = f"cells.{cells // 3 + 1}.preproc0.conv11.weight", f"cells.{cells // 3 + 1}.preproc0.conv21.weight"
    swapped[pair[0]], swapped[pair[1]] = state[pair[1]], state[pair[0]]
    assert (forward(swapped, (images.float() - 127.5) / 127.5) - wanted).abs().max() > 1e-2


def test_another_genotype_is_refused_by_its_keys(tmp_path: Path) -> None:
    state = published(16, 18, dim=32, seed=0)
    kept = {key: value for key, value in state.items() if not key.startswith("cells.3.dag.1.0.")}
    torch.save(kept, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="7 missing tensors: cells.3.edges.2.0.weight, .*of the same backbone"):
        load_embedder(tmp_path / "a.pth")
    fewer = {key: value for key, value in state.items() if not key.startswith("cells.17.")}
    torch.save(fewer, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="b.pth: belongs to no backbone known here"):
        load_embedder(tmp_path / "b.pth")
