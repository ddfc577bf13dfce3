"""``facekd export``: from a run folder to a file on the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli

from facekd.engine.export import checks as export_checks
from facekd.engine.parity import compare, probe_images
from facekd.models.backbone import build_backbone
from facekd.models.embedder import load_embedder
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import save_model


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "student"
    folder.mkdir()
    torch.manual_seed(0)
    options = {"width": 0.25}
    save_model(
        folder / "student.safetensors",
        build_backbone("mobilefacenet", embedding_size=32, input_size=112, options=options).eval(),
        backbone="mobilefacenet",
        embedding_size=32,
        options=options,
        preprocessing=Preprocessing.named("half"),
        extra={},
    )
    return folder


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *(str(a) for a in arguments)])


def refused(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("facekd: error: ")
    for word in words:
        assert word in lines[0]


def test_a_run_folder_becomes_a_file_and_a_table(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "student.onnx"
    result = invoke(run_folder, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("onnxruntime") == 3 and result.stdout.count("opencv") == 3
    assert "batch x 3 x 112 x 112" in result.stdout and "wrote" in result.stdout
    images = torch.from_numpy(probe_images(3, (112, 112), seed=4))
    expected, found = load_embedder(run_folder).embed(images), load_embedder(out).embed(images)
    assert compare("here", expected.numpy(), found.numpy()).passed


def test_the_report_as_json(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "phone.onnx"
    model = run_folder / "student.safetensors"
    result = invoke(model, "-o", out, "--preprocess", "baked", "--batch", "2", "--json", tmp_path / "report.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["file"], report["preprocess"], report["batch"]) == (str(out), "baked", 2)
    assert (report["input"], report["output"], report["bytes"]) == ("data", "fc1", out.stat().st_size)
    assert [(check["runtime"], check["batch"]) for check in report["parity"]] == [("onnxruntime", 2), ("opencv", 2)]
    assert report["digest"] == load_embedder(out).digest


def test_json_on_stdout_is_nothing_but_json(run_folder: Path, tmp_path: Path) -> None:
    result = invoke(run_folder, "-o", tmp_path / "a.onnx", "--no-opencv", "--json", "-")
    assert result.exit_code == 0, result.output
    assert {check["runtime"] for check in json.loads(result.stdout)["parity"]} == {"onnxruntime"}
    assert "not checked in OpenCV" in result.stderr


def test_a_checkpoint_that_could_be_anybody_s_must_say_its_colours(tmp_path: Path) -> None:
    state = build_backbone("resnet_tiny", embedding_size=16, input_size=32).eval().state_dict()
    torch.save(state, tmp_path / "backbone.pth")
    refused(invoke(tmp_path / "backbone.pth", "-o", tmp_path / "a.onnx"), 2, "backbone.pth", "--color")
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.slow
def test_a_foreign_checkpoint_that_is_told_its_colours(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = build_backbone("iresnet18", embedding_size=512, input_size=112).eval().state_dict()
    torch.save(state, tmp_path / "backbone.pth")
    out = tmp_path / "a.onnx"
    result = invoke(tmp_path / "backbone.pth", "-o", out, "--color", "bgr", "--normalize", "half", "--batch", "1")
    assert result.exit_code == 0, result.output
    assert load_embedder(out).preprocessing == Preprocessing.named("half", "bgr")


def test_an_onnx_file_is_exported_again_in_another_form(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    assert invoke(run_folder, "-o", out, "--no-opencv", "--keep-prelu").exit_code == 0
    again = invoke(out, "-o", tmp_path / "b.onnx", "--preprocess", "uint8", "--unit")
    assert again.exit_code == 0, again.output
    assert "33 PReLU written" in again.output
    images = torch.from_numpy(probe_images(3, (112, 112), seed=4))
    expected = torch.nn.functional.normalize(load_embedder(run_folder).embed(images))
    assert compare("here", expected.numpy(), load_embedder(tmp_path / "b.onnx").embed(images).numpy()).passed
    told = json.loads((tmp_path / "b.onnx.manifest.json").read_text())["metadata"]
    assert told["source_digest"] == load_embedder(out).digest
    assert told["student_digest"] == load_embedder(run_folder).digest
    refused(invoke(out, "-o", tmp_path / "c.onnx", "--color", "bgr"), 2, "a.onnx", "rgb, not bgr")


def test_an_existing_file_is_kept_without_force(run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    out.write_bytes(b"precious")
    refused(invoke(run_folder, "-o", out), 2, "a.onnx: exists already", "--force")
    assert out.read_bytes() == b"precious"
    assert invoke(run_folder, "-o", out, "--force").exit_code == 0


def test_a_file_that_differs_ends_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, run_folder: Path, tmp_path: Path
) -> None:
    monkeypatch.setattr(export_checks, "forward_onnx", lambda path, blob: blob[:, 0, 0, :32])
    result = invoke(run_folder, "-o", tmp_path / "a.onnx", "--json", tmp_path / "a.json")
    refused(result, 1, "a.onnx: opencv at batch 1 does not give the model's embeddings")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", ["0", "-1", "two", "1.5", ""])
def test_a_batch_that_is_none(run_folder: Path, tmp_path: Path, batch: str) -> None:
    refused(invoke(run_folder, "-o", tmp_path / "a.onnx", "--batch", batch), 2, "--batch", "whole number from 1")
    assert list(tmp_path.iterdir()) == []


def test_other_bad_usage(run_folder: Path, tmp_path: Path) -> None:
    refused(invoke(run_folder), 2, "-o")
    refused(invoke(run_folder, "-o", tmp_path / "a.bin"), 2, "a.bin: does not end in .onnx")
    refused(invoke(run_folder, "-o", tmp_path / "no" / "a.onnx"), 2, "its folder does not exist")
    refused(invoke(tmp_path / "nothing.pth", "-o", tmp_path / "a.onnx"), 2, "nothing.pth")
    refused(invoke(tmp_path, "-o", tmp_path / "a.onnx"), 2, "student.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_help_shows_an_example_without_loading_torch() -> None:
    result = invoke("-h")
    assert result.exit_code == 0 and "facekd export runs/student -o student.onnx" in result.stdout
    program = "import sys, facekd_cli.export; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
