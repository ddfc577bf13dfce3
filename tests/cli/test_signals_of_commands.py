"""A signal while a command embeds faces is answered with its own exit code, one line, and nothing half-written."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from facekd_cli.main import cli
from random_model import TINY, save_random_model

from facekd.data.images import encode_png
from facekd.models.embedder import TorchEmbedder

COMMANDS = {
    "eval": ["eval", "net.safetensors", "--on", "faces", "--batch", "4", "--json", "out.json"],
    "calibrate": ["calibrate", "net.safetensors", "--on", "faces", "--batch", "4", "-o", "out.json"],
    "teacher classifier": [
        "teacher",
        "classifier",
        "net.safetensors",
        "--data",
        "faces",
        "--class-means",
        "-o",
        "out.safetensors",
    ],
    "teacher inspect": ["teacher", "inspect", "net.safetensors", "--on", "faces"],
}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("words", COMMANDS.values(), ids=list(COMMANDS))
def test_a_signal_while_faces_are_embedded(
    words: list[str], number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_random_model(tmp_path / "net.safetensors", size=8, options=TINY)
    draw = np.random.default_rng(0)
    for person in range(40):
        (tmp_path / "faces" / f"p{person:02}").mkdir(parents=True)
        for image in range(2):
            face = draw.integers(0, 256, (32, 32, 3), np.uint8)
            (tmp_path / "faces" / f"p{person:02}" / f"{image}.png").write_bytes(encode_png(face))
    plain, calls = TorchEmbedder.embed, list[int]()

    def embed(self: TorchEmbedder, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        if len(calls) == 1:
            signal.raise_signal(number)
        return plain(self, images)

    monkeypatch.setattr(TorchEmbedder, "embed", embed)
    result = CliRunner().invoke(cli, words)
    assert calls and result.exit_code == 128 + number, result.output
    assert len([line for line in result.stderr.splitlines() if "error" in line]) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "net.safetensors"]
