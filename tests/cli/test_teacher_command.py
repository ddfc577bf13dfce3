"""``facekd teacher``: what is shown of a model, what is written as JSON, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli

from facekd.models.backbone import build_backbone


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["teacher", *map(str, arguments)])


def refused(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("facekd: error: ") and all(part in line for part in parts), line


def filled(name: str, **options: object) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return build_backbone(name, embedding_size=16, input_size=32, options=options).state_dict()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "magface.pth"
    state = {f"features.module.{key}": value for key, value in filled("iresnet18").items()}
    torch.save({"state_dict": state | {"fc.weight": torch.ones(16, 9)}, "epoch": 25}, path)
    return path


def test_everything_is_shown(checkpoint: Path) -> None:
    result = invoke("inspect", checkpoint)
    assert result.exit_code == 0, result.output
    rows = {}
    for line in result.stdout.splitlines():
        cells = [cell.strip() for cell in line.split("│")]
        if len(cells) == 4:
            rows[cells[1]] = cells[2]
    assert rows["written by"] == "MagFace iresnet"
    assert rows["backbone"] == "iresnet18"
    assert rows["taken off the keys"] == "features. (187), module. (187)"
    assert rows["colour order"] == "bgr, says dialect MagFace iresnet"
    assert rows["scaling"] == "unit, says dialect MagFace iresnet"
    assert rows["classifier"] == "9 classes of 16 values, stored width x classes"
    assert rows["self-test"] == "passed"
    assert "a network that was never trained" in result.stdout


def test_json_says_the_same(checkpoint: Path) -> None:
    result = invoke("inspect", checkpoint, "--json", "-")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["source"], told["color"], told["normalize"]) == ("MagFace iresnet", "bgr", "unit")
    assert (told["size"], told["tensors"], told["probe"]) == ([32, 32], 187, None)
    assert told["prefixes"] == [["features.", 187], ["module.", 187]]


def test_the_user_s_word_is_before_the_project_s(checkpoint: Path) -> None:
    told = json.loads(invoke("inspect", checkpoint, "--color", "rgb", "--json", "-").stdout)
    assert (told["color"], told["normalize"], told["preprocessing_source"]) == ("rgb", "unit", "user")


def test_a_file_that_does_not_fit_is_shown_and_refused(tmp_path: Path) -> None:
    state = filled("iresnet18")
    lost = state.pop("layer2.1.prelu.weight")
    torch.save(state | {"layer2.1.prelu.slope": lost}, tmp_path / "a.pt")
    result = invoke("inspect", tmp_path / "a.pt", "--json", tmp_path / "a.json")
    refused(result, "a.pt: 1 missing tensors: layer2.1.prelu.weight; 1 unexpected tensors: layer2.1.prelu.slope")
    assert "against iresnet18" in result.stdout and "missing" in result.stdout
    assert len(json.loads((tmp_path / "a.json").read_text())["keys"]["differences"]) == 2


def test_many_differences_are_counted(tmp_path: Path) -> None:
    state = {key: value for key, value in filled("iresnet18").items() if not key.startswith("layer4.1.")}
    torch.save(state, tmp_path / "a.pt")
    result = invoke("inspect", tmp_path / "a.pt")
    refused(result, "a.pt: belongs to no backbone known here")
    torch.save(state | {f"layer4.1.{index}": torch.ones(1) for index in range(40)}, tmp_path / "a.pt")
    result = invoke("inspect", tmp_path / "a.pt")
    assert "more; --json has them all" in result.stdout


def test_refusals(tmp_path: Path) -> None:
    refused(invoke("inspect", tmp_path / "none.pt"), "none.pt: no such file or folder")
    (tmp_path / "a.pt").write_bytes(b"<html>")
    refused(invoke("inspect", tmp_path / "a.pt"), "a.pt: not a checkpoint")
    refused(invoke("inspect", tmp_path / "a.pt", "--images", tmp_path), "--images: has no meaning without --on")
    refused(invoke("inspect", "hf:nobody"), "hf:nobody: names no file on the hub")


def test_few_people_cannot_tell_colours_apart(checkpoint: Path, tmp_path: Path) -> None:
    from facekd.data.synthetic import SyntheticFaces

    faces = SyntheticFaces(3, 2, seed=0)
    for index in range(len(faces)):
        folder = tmp_path / "faces" / faces.sample_name(index).split("/")[0]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index}.png").write_bytes(faces.encoded(index))
    result = invoke("inspect", checkpoint, "--on", tmp_path / "faces")
    refused(result, "faces: shows 3 people at least twice, fewer than 20")


@pytest.mark.slow
def test_real_faces_show_what_a_silent_model_expects(shared_data: Path) -> None:
    model = shared_data / "models" / "edgeface_xs_raw_rgb.onnx"
    pairs = ("--on", shared_data / "lfw_pairs_test.txt", "--images", shared_data / "lfw112", "--sample", 40)
    result = invoke("inspect", model, *pairs, "--json", "-")
    assert result.exit_code == 0, result.output
    probe = json.loads(result.stdout)["probe"]
    assert probe["best"] == {"color": "rgb", "normalize": "none"} and len(probe["fits"]) == 10
    assert "best: --color rgb --normalize none" in result.stderr
