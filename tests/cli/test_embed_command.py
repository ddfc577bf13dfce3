"""``facekd embed``: what a signal leaves, and that the same command goes on from it."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model, save_random_run

from facekd.data import embedding_cache
from facekd.data.image_folder import ImageFolder
from facekd.data.images import resize, to_chw
from facekd.engine.embed import load_embeddings
from facekd.files import file_digest
from facekd.models.embedder import load_embedder
from facekd.models.uncertainty_file import UNCERTAINTY_FILE, load_head

PEOPLE, EACH = 5, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, and a folder of drawn faces."""
    root = tmp_path_factory.mktemp("embed")
    save_random_model(root / "net.safetensors")
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


def test_uncertainty__is_written_beside_the_same_embeddings(files: Path, tmp_path: Path) -> None:
    model, output = save_random_run(tmp_path / "run"), tmp_path / "faces.npz"
    arguments = ("--batch", 4, "--device", "cpu", "--no-flip")
    assert run("embed", model, files / "faces", "-o", output, "--uncertainty", *arguments).exit_code == 0
    assert embed(files, tmp_path / "plain.npz", "--no-flip").exit_code == 0
    with np.load(output) as found, np.load(tmp_path / "plain.npz") as plain:
        assert set(found.files) == {*plain.files, "log_variance", "uncertainty"}
        assert np.array_equal(found["embeddings"], plain["embeddings"])
        log_variance, uncertainty = found["log_variance"], found["uncertainty"]
        assert str(found["model_digest"]) == str(plain["model_digest"])
    head = load_head(model / UNCERTAINTY_FILE, file_digest(model / "student.safetensors"))
    stored = load_embeddings(output)
    assert np.allclose(log_variance, head(torch.from_numpy(stored.embeddings)).numpy(), atol=1e-6)
    assert np.allclose(uncertainty, 64 / np.exp(-log_variance.astype(float)).sum(1), rtol=1e-5)
    assert uncertainty.shape == (PEOPLE * EACH,) and np.array_equal(stored.log_variance, log_variance)


def test_uncertainty__with_flip_is_the_mean_log_variance_of_both_views(files: Path, tmp_path: Path) -> None:
    model, output = save_random_run(tmp_path / "run"), tmp_path / "faces.npz"
    assert run("embed", model, files / "faces", "-o", output, "--uncertainty", "--device", "cpu").exit_code == 0
    student, source = load_embedder(model), ImageFolder(files / "faces")
    head = load_head(model / UNCERTAINTY_FILE, student.digest)
    pixels = torch.from_numpy(to_chw(resize(source.read(3), (32, 32))))[None]
    wanted = 0.5 * (head(student.embed(pixels)) + head(student.embed(pixels.flip(3))))
    assert np.allclose(load_embeddings(output).log_variance[3], wanted.numpy(), atol=1e-5)


def test_uncertainty__stopped_and_gone_on_gives_the_same_bytes(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding_cache, "BLOCK", 4)
    model, output, read, seen = save_random_run(tmp_path / "run"), tmp_path / "faces.npz", ImageFolder.read, []
    arguments = ("embed", model, files / "faces", "--uncertainty", "--batch", 4, "--device", "cpu", "-o")
    assert run(*arguments, tmp_path / "whole.npz").exit_code == 0

    def interrupted(source: ImageFolder, index: int) -> np.ndarray:
        seen.append(index)
        if len(seen) == 10:
            signal.raise_signal(signal.SIGTERM)
        return read(source, index)

    monkeypatch.setattr(ImageFolder, "read", interrupted)
    assert run(*arguments, output).exit_code == 143
    assert run(*arguments, output).exit_code == 0
    assert seen[12:] == list(range(12, PEOPLE * EACH))
    assert output.read_bytes() == (tmp_path / "whole.npz").read_bytes()


def test_uncertainty__of_a_model_without_a_head_is_refused_before_any_work(files: Path, tmp_path: Path) -> None:
    result = embed(files, tmp_path / "faces.npz", "--uncertainty")
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if "error" in line]
    assert line.endswith(
        "has no uncertainty.safetensors beside it, so it cannot say how sure it is "
        "(give a run trained with dul, dul_regression, pfe or pad)"
    )
    assert not (tmp_path / "faces.npz.partial").exists()


def test_the_help_says_where_partial_work_lies() -> None:
    result = run("embed", "-h")
    assert result.exit_code == 0 and "FILE.npz.partial" in result.stdout
