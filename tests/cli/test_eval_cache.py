"""``facekd eval --cache``: the same figures, and never those of anything else; ``--precision``: what it changes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from lock_holder import held
from random_model import save_random_model

from facekd.data.images import encode_png
from facekd.engine.embed import load_embeddings
from facekd.models.embedder import TorchEmbedder, load_embedder

PEOPLE, EACH, SIDE = 8, 3, 32


def face(person: int, number: int) -> np.ndarray:
    base = np.random.default_rng([1, person]).integers(40, 216, (4, 4, 3)).astype(float)
    noise = np.random.default_rng([2, person, number]).normal(0, 12, (SIDE, SIDE, 3))
    return np.clip(np.kron(base, np.ones((SIDE // 4, SIDE // 4, 1))) + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for person in range(PEOPLE):
        (tmp_path / f"faces/p{person}").mkdir(parents=True)
        for number in range(EACH):
            (tmp_path / f"faces/p{person}/{number}.png").write_bytes(encode_png(face(person, number)))
    pairs = [f"p{p}/0.png,p{p}/{n}.png,1" for p in range(PEOPLE) for n in (1, 2)]
    pairs += [f"p{p}/0.png,p{(p + k) % PEOPLE}/1.png,0" for p in range(PEOPLE) for k in (1, 2)]
    (tmp_path / "pairs.csv").write_text("\n".join(["path1,path2,label", *pairs]) + "\n")
    save_random_model(tmp_path / "net.safetensors")
    return tmp_path


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through a model, call by call."""
    seen: list[int] = []
    embed = TorchEmbedder.embed

    def counted(self: TorchEmbedder, images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return embed(self, images)

    monkeypatch.setattr(TorchEmbedder, "embed", counted)
    return seen


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def measured(files: Path, *words: object, on: str = "faces") -> list[dict[str, Any]]:
    """The results of an evaluation, without times."""
    out, always = files / "out.json", ("--fpr", "0.1", "--bootstrap", "0", "--device", "cpu")
    images = ("--images", files / "faces") if on.endswith(".csv") else ()
    result = run("eval", files / "net.safetensors", "--on", files / on, *images, *always, "--json", out, *words)
    assert result.exit_code == 0, result.output
    results = json.loads(out.read_text())["results"]
    return [{name: value for name, value in one.items() if name != "seconds"} for one in results]


@pytest.mark.parametrize("on", ["faces", "pairs.csv"])
def test_a_second_evaluation_needs_no_model_and_tells_the_same(files: Path, embedded: list[int], on: str) -> None:
    kept = ("--cache", files / "kept")
    plain = measured(files, on=on)
    assert measured(files, *kept, on=on) == plain
    embedded.clear()
    assert measured(files, *kept, on=on) == plain and not embedded


def change_image(files: Path) -> tuple[object, ...]:
    """Other pixels in a file of the same name and size: only its content tells."""
    path = files / "faces/p0/0.png"
    size = path.stat().st_size
    path.write_bytes(next(data for n in range(9, 5000) if len(data := encode_png(face(0, n))) == size))
    return ()


def change_model(files: Path) -> tuple[object, ...]:
    save_random_model(files / "net.safetensors", seed=5)
    return ()


@pytest.mark.parametrize(
    "change",
    [
        change_image,
        change_model,
        lambda files: ("--no-flip",),
        lambda files: ("--resolution", 16),
        lambda files: ("--precision", "bf16"),
        lambda files: ("--batch", 5),
    ],
    ids=["image", "model", "flip", "resolution", "precision", "batch"],
)
def test_nothing_else_is_served(files: Path, embedded: list[int], change: Callable[[Path], tuple[object, ...]]) -> None:
    kept = ("--cache", files / "kept")
    measured(files, *kept)
    words = change(files)
    embedded.clear()
    found = measured(files, *kept, *words)
    assert sum(embedded) >= PEOPLE * EACH and found == measured(files, *words)


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("embeddings.f32", tear),
        ("embeddings.f32", flip_bit),
        ("embeddings.f32", Path.unlink),
        ("cache.json", tear),
        ("cache.json", lambda path: path.write_text('{"shape": [3, 1, 64], "done": 3}')),
    ],
    ids=["torn", "flipped", "gone", "torn record", "another record"],
)
def test_what_was_damaged_is_computed_anew(
    files: Path, embedded: list[int], name: str, damage: Callable[[Path], None]
) -> None:
    plain = measured(files, "--cache", files / "kept")
    (path,) = (files / "kept").glob(f"*/{name}")
    damage(path)
    embedded.clear()
    assert measured(files, "--cache", files / "kept") == plain and embedded
    embedded.clear()
    assert measured(files, "--cache", files / "kept") == plain and not embedded


def test_two_processes_do_not_fill_one_place(files: Path) -> None:
    measured(files, "--cache", files / "kept")
    (folder,) = (files / "kept").iterdir()
    (folder / "cache.json").unlink()
    with held(folder) as other:
        result = run("eval", files / "net.safetensors", "--on", files / "faces", "--cache", files / "kept")
    assert result.exit_code == 2 and f"process {other.pid} is storing embeddings here" in result.stderr


@pytest.mark.parametrize(("option", "value"), [("--cache", "kept"), ("--precision", "bf16")])
def test_stored_embeddings_need_no_model(files: Path, option: str, value: str) -> None:
    assert run("embed", files / "net.safetensors", files / "faces", "-o", files / "e.npz").exit_code == 0
    result = run("eval", files / "e.npz", option, value)
    assert result.exit_code == 2 and f"{option}: has no effect on" in result.stderr


def test_bf16_changes_the_arithmetic_and_says_how_much(files: Path) -> None:
    (plain,), (short,) = measured(files), measured(files, "--precision", "bf16")
    assert plain["precision"] == "fp32" and "lowest_cosine_to_fp32" not in plain
    assert short["precision"] == "bf16" and 0.9 < short["lowest_cosine_to_fp32"] < 1 - 1e-7
    for precision in ("fp32", "bf16"):
        out = files / f"{precision}.npz"
        result = run("embed", files / "net.safetensors", files / "faces", "-o", out, "--precision", precision)
        assert result.exit_code == 0 and ("bf16: cosines to its fp32" in result.output) == (precision == "bf16")
        assert load_embeddings(out).precision == precision
    one, other = (load_embeddings(files / f"{name}.npz").embeddings for name in ("fp32", "bf16"))
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    assert not np.array_equal(one, other) and ((one * other).sum(axis=1) / lengths).min() > 0.9
    embedder = load_embedder(files / "net.safetensors")
    assert embedder.embed(torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)).dtype == torch.float32


def test_a_graph_computes_as_its_file_says(files: Path) -> None:
    model = files / "net.onnx"
    assert run("export", files / "net.safetensors", "-o", model).exit_code == 0
    for words in (("eval", model, "--on", files / "faces"), ("embed", model, files / "faces", "-o", files / "e.npz")):
        result = run(*words, "--precision", "bf16")
        assert result.exit_code == 2 and "is a graph that computes as its file says" in result.stderr
        assert result.stderr.count("error:") == 1
