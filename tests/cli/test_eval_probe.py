"""``facekd eval`` says when a foreign model sees the faces in the wrong way, and only then."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from onnx import TensorProto, helper

from facekd.data.images import encode_png

PEOPLE, SIDE = 30, 32


def reds(path: Path, **stated: str) -> Path:
    """A model whose embedding is the first channel's mean over each of 8 x 8 squares."""
    constants = [
        helper.make_tensor(name, TensorProto.INT64, [1], [value]) for name, value in (("a", 0), ("b", 1), ("axis", 1))
    ]
    nodes = [
        helper.make_node("Slice", ["image", "a", "b", "axis"], ["red"]),
        helper.make_node("AveragePool", ["red"], ["squares"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["squares"], ["embedding"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    embedding = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["batch", 64])
    model = helper.make_model(
        helper.make_graph(nodes, "reds", [image], [embedding], constants),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    helper.set_model_props(model, {f"facekd.{key}": value for key, value in stated.items()})
    onnx.save(model, str(path))
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """People who differ in red; every blue is the same."""
    root = tmp_path_factory.mktemp("probe")
    draw = np.random.default_rng(0)
    for person in range(PEOPLE):
        (root / f"faces/p{person:02d}").mkdir(parents=True)
        red = draw.integers(40, 216, (8, 8)).repeat(4, 0).repeat(4, 1)
        for number in range(2):
            image = np.stack([red, np.full_like(red, 128), np.full_like(red, 90)], axis=2)
            noisy = np.clip(image + draw.normal(0, 25, image.shape), 0, 255).astype(np.uint8)
            (root / f"faces/p{person:02d}/{number}.png").write_bytes(encode_png(noisy))
    reds(root / "bare.onnx")
    mean = "127.5,127.5,127.5"
    reds(root / "stated.onnx", color="bgr", mean=mean, std=mean, size=f"{SIDE}x{SIDE}")
    return root


def run(files: Path, *arguments: object) -> Result:
    given = ["eval", *arguments, "--on", files / "faces", "--bootstrap", 0, "--no-flip", "--device", "cpu"]
    return CliRunner().invoke(cli, [str(argument) for argument in given])


def warnings(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line for line in result.stderr.splitlines() if "fits these faces better" in line]


def test_a_swapped_colour_order_is_told_in_one_line(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    (line,) = warnings(run(files, files / "bare.onnx", "--color", "bgr", "--normalize", "half", "--json", out))
    assert line.startswith("facekd: warning: ") and "bare.onnx: rgb fits these faces better than bgr (AUC " in line
    assert line.endswith(", on 30 people): check --color")
    (found,) = json.loads(out.read_text())["results"]
    assert not any("probe" in key or "fit" in key for key in found)


def test_a_right_model_is_not_doubted_and_nobody_is_on_request(files: Path) -> None:
    assert warnings(run(files, files / "bare.onnx", "--color", "rgb", "--normalize", "half")) == []
    wrong = (files / "bare.onnx", "--color", "bgr", "--normalize", "half")
    assert warnings(run(files, *wrong, "--no-probe")) == []


def test_a_model_that_states_its_own_is_doubted_on_request_only(files: Path) -> None:
    assert warnings(run(files, files / "stated.onnx")) == []
    (line,) = warnings(run(files, files / "stated.onnx", "--probe"))
    assert line.endswith("though its file says so")


def test_each_model_is_doubted_on_the_first_set_only(files: Path) -> None:
    wrong = run(files, files / "bare.onnx", "--color", "bgr", "--normalize", "half", "--on", files / "faces")
    assert len(warnings(wrong)) == 1


@pytest.mark.parametrize(("color", "doubted"), [("bgr", True), ("rgb", False)])
def test_a_training_run_doubts_a_teacher_that_sees_in_the_wrong_order(
    files: Path, tmp_path: Path, color: str, doubted: bool
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "name: doubted\n"
        f"student: {{backbone: resnet_tiny, embedding_size: 64, input_size: {SIDE}, "
        'options: {channels: "4,8", blocks: "1,1"}}\n'
        f"teacher: {{weights: {files / 'bare.onnx'}, color: {color}, normalize: half}}\n"
        f"data: {{source: folder, path: {files / 'faces'}}}\n"
        "losses: [{name: l2}]\n"
        "optimizer: {name: sgd, learning_rate: 0.1}\n"
        "train: {epochs: 1, batch_size: 8, max_steps: 1}\n"
    )
    result = CliRunner().invoke(cli, ["train", str(recipe), "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    told = "rgb fits these faces better than bgr" in (tmp_path / "run" / "log.txt").read_text()
    assert told == doubted
