"""``facekd calibrate``: what is kept beside a model, equal to what ``facekd eval`` measures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model

from facekd.engine.evaluation.calibration import calibrate_model, some_people
from facekd.metrics.all_pairs import count_pairs

PEOPLE, EACH = 12, 6


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, and a folder of drawn faces."""
    root = tmp_path_factory.mktemp("calibrate")
    save_random_model(root / "net.safetensors")
    assert run("data", "synth", root / "faces", "--identities", PEOPLE, "--samples", EACH).exit_code == 0
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def calibrate(files: Path, *options: object) -> Result:
    fixed = ("--device", "cpu", "--allow-resize", "--bootstrap", 50)
    return run("calibrate", files / "net.safetensors", "--on", files / "faces", *fixed, *options)


def test_thresholds_are_those_of_eval_written_in_three_ways(files: Path, tmp_path: Path) -> None:
    told = calibrate(files, "--fpr", "0.1", "--fpr", "0.01", "--fpr", "1e-6")
    assert told.exit_code == 0, told.output
    kept = json.loads((files / "net.safetensors.calibration.json").read_text())
    measured = tmp_path / "eval.json"
    options = (
        "--fpr",
        "0.1",
        "--fpr",
        "0.01",
        "--device",
        "cpu",
        "--allow-resize",
        "--bootstrap",
        50,
        "--json",
        measured,
    )
    assert run("eval", files / "net.safetensors", "--on", files / "faces", *options).exit_code == 0
    (result,) = json.loads(measured.read_text())["results"]
    assert len(kept["thresholds"]) == 2 and kept["model_digest"] == result["model_digest"]
    for entry, point in zip(kept["thresholds"], result["tpr_at_fpr"], strict=True):
        assert (entry["cosine"], entry["tpr"], entry["ci95"]) == (point["threshold"], point["tpr"], point["ci95"])
        assert entry["distance"] == pytest.approx(np.sqrt(2 - 2 * point["threshold"]))
        assert entry["percent"] == pytest.approx(50 + 50 * point["threshold"])
    assert kept["refused"][0]["needed"] == 3_000_000 and "FPR 1e-06 refused" in told.output


def test_probabilities_rise_with_the_score_inside_their_interval(files: Path) -> None:
    assert calibrate(files).exit_code == 0
    odds = json.loads((files / "net.safetensors.calibration.json").read_text())["probability"]
    assert (odds["genuine"], odds["impostor"], odds["resampled"]) == (180, 2376, "people")
    for name in ("cosine", "logistic", "isotonic"):
        assert sorted(knot[name] for knot in odds["knots"]) == [knot[name] for knot in odds["knots"]]
    assert all(knot[name][0] <= knot[name][1] for knot in odds["knots"] for name in ("ci95", "isotonic_ci95"))
    assert any(knot["isotonic_ci95"][0] < knot["isotonic"] < knot["isotonic_ci95"][1] for knot in odds["knots"])


def test_pairs_can_be_given_and_another_place(files: Path, tmp_path: Path) -> None:
    images = sorted((files / "faces").glob("*/*.*"))
    pairs = [(a, b) for at, a in enumerate(images) for b in images[at + 1 : at + 9]]
    rows = [f"{a.relative_to(files)},{b.relative_to(files)},{int(a.parent == b.parent)}" for a, b in pairs]
    (files / "pairs.csv").write_text("\n".join(["path1,path2,label", *rows]))
    place = tmp_path / "kept.json"
    options = ("-o", place, "--device", "cpu", "--allow-resize", "--bootstrap", 20)
    told = run("calibrate", files / "net.safetensors", "--on", files / "pairs.csv", *options)
    assert told.exit_code == 0, told.output
    assert json.loads(place.read_text())["probability"]["slope"] > 0


def test_scores_are_compared_on_the_device_asked_for(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(arguments[2].device)
        return calibrate_model(*arguments, **options)

    monkeypatch.setattr("facekd.engine.training.build.resolve_device", lambda name: torch.device("cpu", 0))
    monkeypatch.setattr("facekd.engine.evaluation.calibration.calibrate_model", watched)
    assert calibrate(files).exit_code == 0 and seen == ["cpu:0"]


def test_what_cannot_be_kept_is_refused_before_any_work(files: Path) -> None:
    told = calibrate(files, "-o", files / "absent" / "kept.json")
    assert told.exit_code == 2 and "its folder does not exist" in told.output
    told = run("calibrate", "timm/resnet18", "--on", files / "faces")
    assert told.exit_code == 2 and "has no place to keep it" in told.output


def test_people_are_left_out_where_pairs_are_too_many() -> None:
    labels = np.random.default_rng(0).integers(0, 200, 2000)
    kept = some_people(labels, 300_000)
    genuine, impostor = count_pairs(labels[kept])
    assert 280_000 < impostor <= 300_000 and genuine > 0
    assert {*labels[kept]}.isdisjoint(labels[~kept])


def test_export_carries_what_was_kept_and_refuses_what_another_model_left(files: Path, tmp_path: Path) -> None:
    assert calibrate(files, "--fpr", "0.1").exit_code == 0
    model, beside = files / "net.safetensors", files / "net.safetensors.calibration.json"
    assert run("export", model, "-o", tmp_path / "net.onnx", "--no-opencv").exit_code == 0
    facts = {entry.key: entry.value for entry in onnx.load(tmp_path / "net.onnx").metadata_props}
    carried, kept = json.loads(facts["facekd.calibration"]), json.loads(beside.read_text())
    assert (
        carried["thresholds"] == kept["thresholds"] and carried["probability"]["slope"] == kept["probability"]["slope"]
    )
    for text, message in ((json.dumps(kept | {"model_digest": "0"}), "is of another model"), ("{", "cannot be read")):
        beside.write_text(text)
        told = run("export", model, "-o", tmp_path / "other.onnx", "--no-opencv")
        assert told.exit_code == 2 and message in told.output and not (tmp_path / "other.onnx").exists()
    beside.unlink()
    assert run("export", model, "-o", tmp_path / "other.onnx", "--no-opencv").exit_code == 0
