"""``facekd export`` in fewer bits, judged on pairs, with what it leaves beside the file."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model
from torch import Tensor

from facekd.data.images import encode_png
from facekd.data.open_source import open_identities
from facekd.engine.evaluation.evaluation_sets import open_set
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.export import exporter
from facekd.engine.export.judge import judge_on
from facekd.engine.parity import probe_images
from facekd.errors import RequirementError
from facekd.models.embedder import Embedder, load_embedder
from facekd.runtime import load_model

PEOPLE = 40


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_random_model(path)
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of each person: one, and the same with a little noise."""
    root = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for person, image in enumerate(probe_images(PEOPLE, (32, 32), seed=2).transpose(0, 2, 3, 1)):
        (root / f"p{person:02}").mkdir()
        noisy = np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
        for name, face in (("a", image), ("b", noisy)):
            (root / f"p{person:02}" / f"{name}.png").write_bytes(encode_png(np.ascontiguousarray(face)))
    return root


def export(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["export", *(str(argument) for argument in arguments)])


@pytest.mark.slow
def test_int8_from_faces_judged_on_a_set(student: Path, faces: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    words = ("--precision", "int8", "--calibrate", faces, "--on", faces, "--max-drop", "0.02")
    told = export(student, "-o", out, *words, "--json", tmp_path / "a.json")
    assert told.exit_code == 0, told.output
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["precision"] == "int8" and report["bytes"] < 0.4 * report["float_bytes"]
    assert report["quantised"]["faces"] == 2 * PEOPLE - 8
    before, after = report["measured"]
    assert before["tpr_at_fpr"][0]["tpr"] - after["tpr_at_fpr"][0]["tpr"] <= 0.02
    assert "operations in integers" in told.output and "of fp32" in told.output
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "a.json",
        "small.onnx",
        "small.onnx.card.md",
        "small.onnx.manifest.json",
    ]
    assert load_model(out).metadata["facekd.precision"] == "int8"


class Scrambled:
    """A model whose embeddings have lost what they said."""

    def __init__(self, embedder: Embedder, noise: float) -> None:
        self.embedder, self.noise = embedder, noise

    def __getattr__(self, name: str) -> object:
        return getattr(self.embedder, name)

    def embed(self, images: Tensor) -> Tensor:
        found = self.embedder.embed(images)
        generator = torch.Generator().manual_seed(len(images))
        return found + self.noise * found.std() * torch.randn(found.shape, generator=generator)


@pytest.mark.parametrize(("noise", "most", "refused"), [(3.0, 0.005, True), (3.0, None, False), (0.0, 0.0, False)])
def test_a_fall_beyond_the_limit_is_refused(
    student: Path, faces: Path, noise: float, most: float | None, refused: bool
) -> None:
    embedder = load_embedder(student)
    judge = judge_on(embedder, [open_set(faces)], EvalSettings(bootstrap=0), most)
    if refused:
        with pytest.raises(RequirementError, match=r"TPR at FPR 0.01 falls from .* more than 0.005") as caught:
            judge(Scrambled(embedder, noise))
        assert caught.value.exit_code == 1
    else:
        assert [row["set"] for row in judge(Scrambled(embedder, noise))] == [faces.name] * 2


def test_a_set_too_small_to_show_a_fall_is_refused(student: Path, faces: Path, tmp_path: Path) -> None:
    for person in ("p00", "p01", "p02"):
        (tmp_path / "few" / person).mkdir(parents=True)
        for image in (faces / person).iterdir():
            (tmp_path / "few" / person / image.name).write_bytes(image.read_bytes())
    told = export(student, "-o", tmp_path / "a.onnx", "--on", tmp_path / "few", "--max-drop", "0.1", "--no-opencv")
    assert told.exit_code == 1 and "12 impostor pairs are too few to show a fall" in told.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["few"]


def test_parity_is_checked_on_faces_of_the_set_that_is_named(
    monkeypatch: pytest.MonkeyPatch, student: Path, faces: Path, tmp_path: Path
) -> None:
    seen: list[np.ndarray] = []

    def checked(embedder: Embedder, exported: Embedder, images: Tensor, *rest: object, **more: object) -> list:
        seen.extend(images.permute(0, 2, 3, 1).numpy())
        return []

    monkeypatch.setattr(exporter, "check_batch", checked)
    assert export(student, "-o", tmp_path / "a.onnx", "--on", faces).exit_code == 0
    source = open_identities(faces)
    own = {source.read(index).tobytes() for index in range(len(source))}
    assert len(seen) == 8 and {image.tobytes() for image in seen} <= own


def test_options_that_do_nothing_are_refused(student: Path, faces: Path, tmp_path: Path) -> None:
    for words, line in (
        (("--precision", "int8"), "takes its ranges from faces"),
        (("--calibrate", faces), "fp32 takes no ranges"),
        (("--max-drop", "0.1"), "nothing to measure the fall on"),
        (("--precision", "int8", "--calibrate", tmp_path / "none"), "none: no such file"),
    ):
        told = export(student, "-o", tmp_path / "a.onnx", *words)
        assert told.exit_code == 2 and line in told.stderr and len(told.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_lies_beside_the_file_is_not_overwritten_and_tells_of_it(student: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.onnx"
    assert export(student, "-o", out, "--preprocess", "uint8", "--unit", "--no-opencv").exit_code == 0
    manifest = json.loads((tmp_path / "a.onnx.manifest.json").read_text())
    model = load_model(out)
    assert (manifest["digest"], manifest["unit"], manifest["preprocess"]) == (model.digest, True, "uint8")
    assert manifest["input_shape"] == ["batch", 32, 32, 3] and manifest["calibration"] is None
    assert manifest["metadata"] == {key.removeprefix("facekd."): text for key, text in model.metadata.items()}
    card = (tmp_path / "a.onnx.card.md").read_text()
    for word in (model.digest, "uint8", "of length one", "not stated", "facekd calibrate"):
        assert word in card
    out.unlink()
    told = export(student, "-o", out, "--no-opencv")
    assert told.exit_code == 2 and "a.onnx.manifest.json: exists already" in told.stderr
    assert export(student, "-o", out, "--no-opencv", "--force").exit_code == 0


@pytest.mark.slow
def test_thresholds_travel_with_float_files_and_not_with_int8(student: Path, faces: Path, tmp_path: Path) -> None:
    record = {"set": "x", "set_digest": "y", "flip": False, "thresholds": [{"fpr": 0.01, "cosine": 0.2, "tpr": 0.9}]}
    record |= {
        "probability": {"prior": 0.5, "slope": 1.0, "intercept": 0.0},
        "model_digest": load_embedder(student).digest,
    }
    model = tmp_path / "student.safetensors"
    model.write_bytes(student.read_bytes())
    (tmp_path / "student.safetensors.calibration.json").write_text(json.dumps(record))
    forms = {"half": ("--precision", "fp16"), "small": ("--precision", "int8", "--calibrate", faces)}
    for name, words in forms.items():
        told = export(model, "-o", tmp_path / f"{name}.onnx", *words, "--no-opencv")
        assert told.exit_code == 0, told.output
    assert load_model(tmp_path / "half.onnx").thresholds == {0.01: 0.2}
    assert "0.2000" in (tmp_path / "half.onnx.card.md").read_text()
    assert load_model(tmp_path / "small.onnx").thresholds == {}
    assert "left out" in told.output
    (tmp_path / "student.safetensors.calibration.json").write_text(json.dumps(record | {"model_digest": "0"}))
    told = export(model, "-o", tmp_path / "b.onnx")
    assert told.exit_code == 2 and "is of another model" in told.stderr


def test_thresholds_beside_an_onnx_file_travel_where_embeddings_stay_equal(student: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.onnx"
    assert export(student, "-o", source, "--no-opencv").exit_code == 0
    record = {"set": "x", "set_digest": "y", "flip": False, "thresholds": [{"fpr": 0.01, "cosine": 0.2, "tpr": 0.9}]}
    record |= {"probability": {"prior": 0.5, "slope": 1.0, "intercept": 0.0}}
    beside = tmp_path / "a.onnx.calibration.json"
    beside.write_text(json.dumps(record | {"model_digest": load_embedder(source).digest}))
    told = export(source, "-o", tmp_path / "half.onnx", "--precision", "fp16", "--no-opencv")
    assert told.exit_code == 0 and "thresholds of the model" not in told.output, told.output
    assert load_model(tmp_path / "half.onnx").thresholds == {0.01: 0.2}
    told = export(source, "-o", tmp_path / "unit.onnx", "--unit", "--no-opencv")
    assert told.exit_code == 0 and "thresholds of the model do not hold for this file" in told.output
    assert load_model(tmp_path / "unit.onnx").thresholds == {}
    beside.write_text(json.dumps(record | {"model_digest": "0" * 64}))
    told = export(source, "-o", tmp_path / "b.onnx")
    assert told.exit_code == 2 and "is of another model" in told.stderr and not (tmp_path / "b.onnx").exists()


def test_an_onnx_file_of_bytes_or_fixed_batch_keeps_to_what_it_is(student: Path, tmp_path: Path) -> None:
    assert export(student, "-o", tmp_path / "bytes.onnx", "--preprocess", "uint8", "--no-opencv").exit_code == 0
    assert (
        export(student, "-o", tmp_path / "two.onnx", "--batch", "2", "--preprocess", "baked", "--no-opencv").exit_code
        == 0
    )
    for source, words, line in (
        ("bytes", (), "takes bytes, not float"),
        ("two", ("--batch", "dynamic"), "takes 2 images at once"),
        ("two", ("--preprocess", "plain"), "normalises its input itself"),
    ):
        told = export(tmp_path / f"{source}.onnx", "-o", tmp_path / "b.onnx", *words)
        assert told.exit_code == 2 and line in told.stderr, told.output
    told = export(tmp_path / "two.onnx", "-o", tmp_path / "b.onnx", "--no-opencv", "--json", tmp_path / "b.json")
    assert told.exit_code == 0, told.output
    report = json.loads((tmp_path / "b.json").read_text())
    assert (report["batch"], report["preprocess"]) == (2, "baked")
    assert {check["batch"] for check in report["parity"]} == {2}


def test_a_file_that_changes_under_the_command_is_refused(student: Path, tmp_path: Path) -> None:
    from facekd.engine.export.exporter import export_onnx
    from facekd.errors import CheckpointError

    assert export(student, "-o", tmp_path / "a.onnx", "--no-opencv").exit_code == 0
    opened = load_embedder(tmp_path / "a.onnx")
    with pytest.raises(CheckpointError, match="has changed since it was opened"):
        export_onnx(replace(opened, digest="0" * 64), tmp_path / "b.onnx")
    assert not (tmp_path / "b.onnx").exists()
