"""``facekd embed``: what a signal leaves, and that the same command goes on from it."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli

from facekd.data import embedding_cache
from facekd.data.image_folder import ImageFolder
from facekd.models.backbone import build_backbone
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import save_model

PEOPLE, EACH = 5, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, and a folder of drawn faces."""
    root = tmp_path_factory.mktemp("embed")
    torch.manual_seed(0)
    save_model(
        root / "net.safetensors",
        build_backbone("resnet_tiny", embedding_size=64, input_size=32, options={}).eval(),
        backbone="resnet_tiny",
        embedding_size=64,
        options={},
        preprocessing=Preprocessing.named("half", size=(32, 32)),
        extra={},
    )
    assert run("data", "synth", root / "faces", "--identities", PEOPLE, "--samples", EACH).exit_code == 0
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def embed(files: Path, output: Path, *options: object) -> Result:
    model, faces = files / "net.safetensors", files / "faces"
    return run("embed", model, faces, "-o", output, "--batch", 4, "--device", "cpu", *options)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_done_and_the_same_command_goes_on(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(embedding_cache, "BLOCK", 4)
    assert embed(files, tmp_path / "whole.npz").exit_code == 0
    output, read, seen = tmp_path / "faces.npz", ImageFolder.read, []

    def interrupted(source: ImageFolder, index: int) -> np.ndarray:
        seen.append(index)
        if len(seen) == 10:
            signal.raise_signal(number)
        return read(source, index)

    monkeypatch.setattr(ImageFolder, "read", interrupted)
    result = embed(files, output)
    assert result.exit_code == 128 + number
    (line,) = result.stderr.splitlines()
    assert line == (
        f"facekd: error: facekd embed: stopped; what is done is kept in {output}.partial, "
        "the same command goes on from there"
    )
    assert not output.exists() and seen == list(range(12))

    del seen[:]
    seen += [-1] * 10
    assert embed(files, output).exit_code == 0
    assert seen[10:] == list(range(12, PEOPLE * EACH))
    assert output.read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces.npz", "whole.npz"]


def test_another_image_in_the_folder_starts_anew(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_cache, "BLOCK", 4)
    faces, output = tmp_path / "faces", tmp_path / "faces.npz"
    assert run("data", "synth", faces, "--identities", 3, "--samples", 4).exit_code == 0
    (faces / "synthetic-000002" / "0003.png").rename(tmp_path / "later.png")
    arguments = ("embed", files / "net.safetensors", faces, "-o", output, "--batch", 4, "--device", "cpu")
    (faces / "synthetic-000002" / "0001.png").write_bytes(b"torn")
    assert run(*arguments).exit_code == 3
    assert (tmp_path / "faces.npz.partial").is_dir()
    (tmp_path / "later.png").rename(faces / "synthetic-000002" / "0001.png")
    assert run(*arguments).exit_code == 0
    with np.load(output, allow_pickle=False) as arrays:
        assert arrays["embeddings"].shape == (11, 64)
    assert not (tmp_path / "faces.npz.partial").exists()


def test_the_help_says_where_partial_work_lies() -> None:
    result = run("embed", "-h")
    assert result.exit_code == 0 and "FILE.npz.partial" in result.stdout
