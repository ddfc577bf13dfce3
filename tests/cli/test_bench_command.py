"""``facekd bench`` tells sizes that can be counted and times that are times."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model

from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.engine.latency import Timing, measure
from facekd.engine.latency import bench as engine_bench
from facekd.models.embedder import TorchEmbedder, load_embedder
from facekd.models.macs import count_macs
from facekd.models.preprocessing import Preprocessing


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_random_model(path)
    return path


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["bench", *(str(a) for a in arguments), "--device", "cpu"])


def test_a_pytorch_model_in_torch_and_its_export_in_the_others(student: Path, tmp_path: Path) -> None:
    told = bench(student, "--batch", 3, "--repeats", 6, "--threads", 1, "--json", "-")
    assert told.exit_code == 0, told.output
    figures = json.loads(told.stdout)
    embedder = load_embedder(student)
    assert isinstance(embedder, TorchEmbedder)
    assert (figures["parameters"], figures["bytes"]) == (embedder.parameters, student.stat().st_size)
    assert figures["exported_bytes"] == export_onnx(embedder, tmp_path / "a.onnx", opencv=False).bytes
    assert figures["macs"] == count_macs(embedder.module, 32)
    assert [(e["runtime"], e["device"], e["batch"], e["repeats"]) for e in figures["latency"]] == [
        (runtime, "cpu", *times) for runtime in ("torch", "onnxruntime", "opencv") for times in ((1, 6), (3, 3))
    ]
    assert figures["notes"] == [] and cv2.getNumThreads() == 1
    for entry in figures["latency"]:
        assert 0 < entry["quartiles"][0] <= entry["median"] <= entry["quartiles"][1] <= entry["slowest"]
        assert entry["images_per_second"] == pytest.approx(entry["batch"] / entry["median"])


def test_a_pytorch_model_in_fewer_runtimes(student: Path, tmp_path: Path) -> None:
    for options, seen in ((["--no-export"], ["torch"]), (["--no-opencv"], ["torch", "onnxruntime"])):
        told = bench(student, "--batch", 1, "--repeats", 3, *options, "--json", tmp_path / "a.json")
        figures = json.loads((tmp_path / "a.json").read_text())
        assert [entry["runtime"] for entry in figures["latency"]] == seen
        assert ("exported" in told.stdout) == (figures["exported_bytes"] is not None) == ("onnxruntime" in seen)


def test_a_model_that_cannot_be_exported_is_measured_in_torch_and_a_note_says_why() -> None:
    class Sorted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(x.mean(1)) + 1

    expects = Preprocessing.named("half", size=(8, 8))
    embedder = TorchEmbedder("svd", "0", 8, expects, {}, Sorted().eval(), torch.device("cpu"))
    figures = engine_bench(embedder, Path("none"), Timing(batch=2, repeats=3))
    assert {entry["runtime"] for entry in figures["latency"]} == {"torch"}
    (note,) = figures["notes"]
    assert note.startswith("measured in torch alone, for its export fails: cannot be traced") and "\n" not in note


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
    found = measure(lambda: calls.append(1), ("here", "cpu"), 2, 5)
    assert len(calls) == 8 and (found.runtime, found.device, found.repeats, found.batch) == ("here", "cpu", 5, 2)


def test_refusals(tmp_path: Path) -> None:
    told = bench(tmp_path / "none.onnx")
    assert told.exit_code == 2 and "none.onnx: no such file" in told.stderr
