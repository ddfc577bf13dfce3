"""``facekd bench`` tells sizes that can be counted and times that are times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model

from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.engine.latency import measure
from facekd.models.embedder import TorchEmbedder, load_embedder
from facekd.models.macs import count_macs


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_random_model(path)
    return path


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *(str(a) for a in arguments), "--device", "cpu"])


def test_a_pytorch_model_in_torch(student: Path) -> None:
    told = bench(student, "--batch", 3, "--repeats", 6, "--json", "-")
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    embedder = load_embedder(student)
    assert isinstance(embedder, TorchEmbedder)
    assert (figures["parameters"], figures["bytes"]) == (embedder.parameters, student.stat().st_size)
    assert figures["macs"] == count_macs(embedder.module, 32)
    assert [(e["runtime"], e["batch"], e["repeats"]) for e in figures["latency"]] == [("torch", 1, 6), ("torch", 3, 3)]
    for entry in figures["latency"]:
        assert 0 < entry["quartiles"][0] <= entry["median"] <= entry["quartiles"][1] <= entry["slowest"]
        assert entry["images_per_second"] == pytest.approx(entry["batch"] / entry["median"])


def test_an_onnx_file_in_both_runtimes_and_a_fixed_batch_at_that_batch(student: Path, tmp_path: Path) -> None:
    for name, batch, seen in (("a", "dynamic", {1, 4}), ("b", 2, {2})):
        out = tmp_path / f"{name}.onnx"
        export_onnx(load_embedder(student), out, Form(batch=batch), opencv=False)
        told = bench(out, "--batch", 4, "--repeats", 3, "--threads", 1, "--json", tmp_path / "a.json")
        assert told.exit_code == 0, told.output
        figures = json.loads((tmp_path / "a.json").read_text())
        assert {(e["runtime"], e["batch"]) for e in figures["latency"]} == {
            (runtime, size) for runtime in ("onnxruntime", "opencv") for size in seen
        }
        assert figures["bytes"] == out.stat().st_size and "MB" in told.stdout


def test_the_passes_before_measuring_are_not_counted() -> None:
    calls: list[int] = []
    found = measure(lambda: calls.append(1), "here", 2, 5)
    assert len(calls) == 8 and (found.repeats, found.batch) == (5, 2)


def test_refusals(tmp_path: Path) -> None:
    told = bench(tmp_path / "none.onnx")
    assert told.exit_code == 2 and "none.onnx: no such file" in told.stderr
