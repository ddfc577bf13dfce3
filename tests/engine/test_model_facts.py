"""What a model costs, for those whose cost can be counted and those whose cannot."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from facekd.engine.model_facts import RUNS, model_facts
from facekd.models.embedder import TorchEmbedder
from facekd.models.preprocessing import Preprocessing


def embedder(size: tuple[int, int]) -> TorchEmbedder:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    how = Preprocessing.named("128", "bgr", size=size)
    return TorchEmbedder("runs/net", "d", 4, how, {}, module.eval(), torch.device("cpu"))


def test_facts_of_a_network_are_those_of_its_layers_and_file(tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").write_bytes(b"x" * 321)
    facts = model_facts(embedder((16, 16)), tmp_path / "net.safetensors")
    assert (facts.parameters, facts.macs, facts.bytes, facts.embedding_size) == (108, 108 * 256, 321, 4)
    assert (facts.name, facts.digest, facts.input, facts.runs) == ("runs/net", "d", "16x16 BGR, 128", RUNS)
    assert facts.milliseconds is not None and facts.milliseconds > 0 and "CPU" in str(facts.machine)


def test_what_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    facts = model_facts(embedder((16, 24)), tmp_path / "gone.safetensors")
    assert facts.macs is None and facts.bytes is None and facts.input == "24x16 BGR, 128"
    assert model_facts(embedder((8, 8)), Path("timm/resnet18")).bytes is None
