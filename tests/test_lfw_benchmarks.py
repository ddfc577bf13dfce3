"""The benchmarks of pretrained models, on planted images: figures beside scikit-learn's, and what embedding costs."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from random_model import TINY, save_random_model

from benchmarks import embedding_speed, lfw_models, measuring_tables
from benchmarks.measuring_tables import lfw_models as lfw_table
from facekd.data.images import encode_jpeg
from facekd.engine.evaluation.evaluation_sets import open_set
from facekd.engine.evaluation.evaluator import see_set
from facekd.engine.evaluation.figures import EvalSettings
from facekd.models.embedder import Embedder, TorchEmbedder, load_embedder

PEOPLE, IMAGES = 30, 4
FPRS = (0.2, 0.05)
CLOSE = {"eer": 1 / 60}
"""Where the rates cross between two scores, the other side takes the later: one of at least 60 genuine pairs apart."""
MODELS = {"net": ("net.safetensors", {}), "graph": ("net.onnx", {"color": "rgb", "normalize": "half"})}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the benchmarks take it: images, lists, a model, and the same as a graph, its tensors beside it."""
    root = tmp_path_factory.mktemp("planted")
    rng = np.random.default_rng(0)
    rows, genuine, impostor = ["path,identity"], [], []
    for person in range(PEOPLE):
        base = rng.integers(40, 216, (4, 4, 3))
        for number in range(1, IMAGES + 1):
            image = np.kron(base, np.ones((8, 8, 1))) + rng.normal(0, 60, (32, 32, 3))
            path = Path(f"p{person}", f"p{person}_{number:04d}.jpg")
            (root / "lfw112" / path).parent.mkdir(parents=True, exist_ok=True)
            (root / "lfw112" / path).write_bytes(encode_jpeg(np.clip(image, 0, 255).astype(np.uint8)))
            rows.append(f"{path},p{person}")
        genuine.append([f"p{person}\t1\t{at}" for at in (2, 3, 4)])
        impostor.append([f"p{person}\t{at}\tp{(person + 10) % PEOPLE}\t{at}" for at in (2, 3, 4)])
    (root / "lfw_test.csv").write_text("\n".join(rows))
    for name, folds in (("lfw_pairs.txt", 3), ("lfw_pairs_test.txt", 2)):
        lines, size = [f"{folds}\t{30}"], PEOPLE // 3
        for fold in range(folds):
            chosen = slice(size * fold, size * (fold + 1))
            lines += [line for kind in (genuine, impostor) for own in kind[chosen] for line in own]
        (root / name).write_text("\n".join(lines) + "\n")
    (root / "models").mkdir()
    net = root / "models" / "net.safetensors"
    save_random_model(net, size=16, options=TINY)
    export(net, root / "models" / "net.onnx")
    return root


def export(net: Path, out: Path) -> None:
    embedder = load_embedder(net)
    assert isinstance(embedder, TorchEmbedder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        axes = {"data": {0: "batch"}, "fc1": {0: "batch"}}
        names = {"input_names": ["data"], "output_names": ["fc1"], "dynamic_axes": axes}
        torch.onnx.export(embedder.module, (torch.zeros(2, 3, 32, 32),), str(out), dynamo=False, **names)
    beside = {"save_as_external_data": True, "location": f"{out.name}.data", "size_threshold": 0}
    onnx.save(onnx.load(out), out, **beside)
    assert out.with_name(f"{out.name}.data").is_file()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(lfw_models, "MODELS", MODELS)
    monkeypatch.setattr(lfw_models, "FPRS", FPRS)
    monkeypatch.setattr(lfw_models, "STATED", {})
    yield
    torch.set_num_threads(threads)


def test_figures_are_those_of_scikit_learn_and_stated_ones_are_held_against_them(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cache = tmp_path / "record.json", tmp_path / "cache"
    words = ["lfw_models", str(planted), "--out", str(out), "--cache", str(cache)]
    monkeypatch.setattr(sys, "argv", words)
    lfw_models.main()
    rows = json.loads(out.read_text())["rows"]
    assert [(row["model"], row["set"]) for row in rows] == [(m, s) for m in MODELS for s in lfw_models.SETS]
    for row in rows:
        assert all(value < CLOSE.get(name, 1e-5) for name, value in row["differs_from_scikit_learn"].items())
    for row in rows:
        assert set(row["figures"]) - {"accuracy", "accuracy_std"} == {"auc", "eer", "tpr@0.2", "tpr@0.05"}
        assert ("accuracy" in row["figures"]) == row["set"].endswith(".txt")
    for one, other in zip(rows[:3], rows[3:], strict=True):
        assert one["figures"]["auc"] == pytest.approx(other["figures"]["auc"], abs=1e-3)
    assert 0.6 < rows[2]["figures"]["auc"] < 0.9999
    stated = f"{rows[0]['figures']['auc']:.4f}"
    wrong = f"{rows[2]['figures']['eer'] + 0.01:.3f}"
    kept = {("net", "lfw_pairs.txt"): {"auc": stated}, ("net", "lfw_test.csv"): {"eer": wrong}}
    monkeypatch.setattr(lfw_models, "STATED", kept)
    lfw_models.main()
    record = json.loads(out.read_text())
    differing = {row["set"]: row["differs_from_stated"] for row in record["rows"] if row["stated"]}
    assert differing["lfw_pairs.txt"] == {} and 0.005 < -differing["lfw_test.csv"]["eer"] < 0.015
    told = lfw_table(record)
    assert told.startswith("Of 2 figures that others computed, 1 are met to their last digit; off are eer of net on ")
    assert told.count("| net | `lfw_") == told.count("| graph | `lfw_") == 3
    capsys.readouterr()


@pytest.mark.parametrize("listed", ["lfw_pairs.txt", "lfw_test.csv"])
def test_the_other_side_tells_embeddings_of_other_images(planted: Path, listed: str) -> None:
    opened, settings = open_set(planted / listed, images=planted / "lfw112"), EvalSettings(fprs=FPRS, bootstrap=0)
    embeddings = see_set(load_embedder(planted / "models" / "net.safetensors"), opened, settings).embeddings
    own = lfw_models.ours(embeddings, opened, settings)
    same, moved = (lfw_models.theirs(rows, opened, own) for rows in (embeddings, np.roll(embeddings, 1, axis=0)))
    assert same.keys() == own.keys() and all(abs(same[name] - own[name]) < CLOSE.get(name, 1e-5) for name in own)
    assert abs(moved["auc"] - own["auc"]) > 0.01 and abs(moved["eer"] - own["eer"]) > 1.5 * CLOSE["eer"]


def test_embedding_is_timed_beside_its_parts(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    joined = onnx.load(planted / "models" / "net.onnx")
    onnx.save(joined, planted / "models" / "joined.onnx", save_as_external_data=False)
    models = {"net": MODELS["net"], "graph": ("joined.onnx", MODELS["graph"][1])}
    monkeypatch.setattr(embedding_speed, "MODELS", models)
    monkeypatch.setattr(embedding_speed, "MEASURED", {"graph": "fp32", "net": "fp32", "net, bf16": "bf16"})
    seen = []
    monkeypatch.setattr(embedding_speed, "embed_images", watched(embedding_speed.embed_images, seen))
    small = ("--images", "10", "--batch", "4", "--repeats", "2", "--out", str(tmp_path / "record.json"))
    monkeypatch.setattr(sys, "argv", ["embedding_speed", str(planted), *small])
    embedding_speed.main()
    record = json.loads((tmp_path / "record.json").read_text())
    assert [row["model"] for row in record["rows"]] == ["graph", "net", "net, bf16"]
    assert seen == [(10, 4)] * 3 * 3
    assert ["lowest_cosine_to_fp32" in row for row in record["rows"]] == [False, False, True]
    for row in record["rows"]:
        assert set(row["seconds"]) == {"decode", "bare passes", "embed"} and row["ratio"]["median"] > 0
    told = measuring_tables.embedding_speed(record)
    assert told.count("| net") == 2 and "10 images and their mirrors in batches of 4" in told
    assert "net, bf16: cosines to its fp32 embeddings from" in told
    capsys.readouterr()


def watched(embed: Callable[..., np.ndarray], seen: list[tuple[int, int]]) -> Callable[..., np.ndarray]:
    def noted(embedder: Embedder, read: Callable[[int], np.ndarray], count: int, *, batch_size: int) -> np.ndarray:
        seen.append((count, batch_size))
        return embed(embedder, read, count, batch_size=batch_size)

    return noted


def test_the_bare_passes_are_those_of_image_and_mirror(planted: Path) -> None:
    embedder = load_embedder(planted / "models" / "net.safetensors")
    assert isinstance(embedder, TorchEmbedder)
    given = []
    handle = embedder.module.register_forward_pre_hook(lambda module, inputs: given.append(inputs[0].clone()))
    batch = torch.arange(2 * 3 * 32 * 32).reshape(2, 3, 32, 32).remainder(251).to(torch.uint8)
    embedding_speed.bare(embedder, [batch, batch[:1]])()
    handle.remove()
    assert [len(pixels) for pixels in given] == [2, 2, 1, 1]
    assert torch.equal(given[1], given[0].flip(3)) and not torch.equal(given[0], given[1])
