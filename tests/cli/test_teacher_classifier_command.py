"""``facekd teacher classifier``: a classifier gathered, proved on faces, stored with names, and inherited by a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from torch.nn import functional

from facekd.data.images import encode_png
from facekd.data.open_source import open_identities
from facekd.engine.training.inheritance import CLASS_MEANS, embedded_class_means
from facekd.models.backbone import build_backbone
from facekd.models.embedder import load_embedder
from facekd.models.preprocessing import Preprocessing
from facekd.models.safetensors_file import decode
from facekd.models.weights import load_classifier, save_model

PEOPLE, EACH, SIDE, DIM = 24, 3, 32, 16
OPTIONS = {"channels": "8,16", "blocks": "1,1"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces that are their own mirror image, a model that tells its preprocessing, the same one bare, its shards."""
    root = tmp_path_factory.mktemp("classifier")
    draw = np.random.default_rng(0)
    for person in range(PEOPLE):
        (root / f"faces/p{person:02d}").mkdir(parents=True)
        half = draw.integers(30, 226, (4, 2, 3))
        pattern = np.concatenate([half, half[:, ::-1]], 1).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)
        for number in range(EACH):
            image = np.clip(pattern + draw.normal(0, 5, pattern.shape), 0, 255).astype(np.uint8)
            (root / f"faces/p{person:02d}/{number}.png").write_bytes(encode_png(image))
    torch.manual_seed(0)
    module = build_backbone("resnet_tiny", embedding_size=DIM, input_size=SIDE, options=OPTIONS).train()
    source = open_identities(root / "faces")
    images = torch.from_numpy(np.stack([source.read(i) for i in range(len(source))]).transpose(0, 3, 1, 2).copy())
    way = Preprocessing.named("half", size=(SIDE, SIDE))
    with torch.no_grad():
        for _ in range(20):
            module(way.apply(images))
    module.eval()
    save_model(
        root / "net.safetensors",
        module,
        backbone="resnet_tiny",
        embedding_size=DIM,
        options=OPTIONS,
        preprocessing=way,
        extra={},
    )
    torch.save(module.state_dict(), root / "bare.pt")
    means = embedded_class_means(load_embedder(root / "net.safetensors"), source)
    (root / "head").mkdir()
    for rank, part in enumerate(means.chunk(3)):
        torch.save({"state_dict_softmax_fc": {"weight": 3 * part.clone()}}, root / f"head/checkpoint_gpu_{rank}.pt")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["teacher", "classifier", *(str(argument) for argument in arguments)])


def test_class_means_are_named_checked_and_stored(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "means.safetensors"
    result = run(files / "net.safetensors", "--data", files / "faces", "-o", out, "--json", tmp_path / "a.json")
    assert result.exit_code == 0, result.output
    assert (
        f"source: {CLASS_MEANS}" in result.stdout
        and "of 72 images nearest to their own class, of which" in result.stdout
    )
    rows, names, source = load_classifier(out)
    assert names == [f"p{person:02d}" for person in range(PEOPLE)] and source == CLASS_MEANS
    assert torch.allclose(rows.norm(dim=1), torch.ones(PEOPLE))
    embedder = load_embedder(files / "net.safetensors")
    metadata = decode(out.read_bytes(), "means")[1]
    assert metadata["teacher_digest"] == embedder.digest
    figures = json.loads((tmp_path / "a.json").read_text())["classifier"]
    assert (figures["classes"], figures["embedding_size"], figures["checked_images"]) == (PEOPLE, DIM, 72)
    assert figures["agreement"] > 0.9 and figures["teacher_digest"] == embedder.digest


def test_shards_become_one_file_with_the_names_of_the_data(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.safetensors"
    arguments = (files / "net.safetensors", "--data", files / "faces", "--class-weights", files / "head", "-o", out)
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    rows, names, source = load_classifier(out)
    assert source == "arcface_torch partial FC v2: checkpoint_gpu_0.pt and 2 more shards"
    means = embedded_class_means(load_embedder(files / "net.safetensors"), open_identities(files / "faces"))
    assert torch.equal(rows, torch.cat([3 * part for part in means.chunk(3)])) and names[5] == "p05"
    again = run(*arguments)
    assert again.exit_code == 2 and "exists (choose another name, or add --force)" in again.stderr
    assert run(*arguments, "--force").exit_code == 0


def test_permuted_labels_are_refused_and_preprocessing_is_cleared(files: Path, tmp_path: Path) -> None:
    (tmp_path / "head").mkdir()
    whole = torch.cat([torch.load(path, weights_only=True)["state_dict_softmax_fc"]["weight"]
                       for path in sorted((files / "head").iterdir())])  # fmt: skip
    torch.save(whole.roll(1, 0), tmp_path / "head" / "rank_0_softmax_weight.pt")
    result = run(
        files / "net.safetensors",
        "--data",
        files / "faces",
        "--class-weights",
        tmp_path / "head",
        "-o",
        tmp_path / "o.safetensors",
    )
    assert result.exit_code == 2 and not (tmp_path / "o.safetensors").exists()
    (line,) = result.stderr.splitlines()
    assert "of 72 training images are nearest to their own class in its classifier (arcface_torch partial FC v1" in line
    assert "(labels in another order, or another teacher's classifier: at most " in line
    assert line.endswith("% are in any other colour order and scaling)")


def test_a_wrong_colour_order_is_named_as_the_cause(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.safetensors"
    base = (files / "bare.pt", "--data", files / "faces", "--class-weights", files / "head", "-o", out)
    wrong = run(*base, "--color", "rgb", "--normalize", "none")
    assert wrong.exit_code == 2 and not out.exists(), wrong.output
    line = wrong.stderr.splitlines()[-1]
    assert "(seen as rgb with half, " in line and line.endswith(" of 48 are: set its color and normalize)"), line
    right = run(*base, "--color", "rgb", "--normalize", "half")
    assert right.exit_code == 0 and "fits these faces better" not in right.stderr, right.output


def test_a_run_inherits_the_stored_file_and_its_record_names_the_source(files: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.safetensors"
    run(files / "net.safetensors", "--data", files / "faces", "--class-weights", files / "head", "-o", rows)
    for number, place in enumerate((rows, files / "head")):
        recipe = {
            "name": "inherit",
            "student": {"backbone": "resnet_tiny", "embedding_size": DIM, "input_size": SIDE, "options": OPTIONS},
            "teacher": {"weights": str(files / "net.safetensors"), "class_weights": str(place)},
            "data": {"source": "folder", "path": str(files / "faces")},
            "losses": [{"name": "margin_softmax", "class_weights": "teacher"}],
            "optimizer": {"learning_rate": 0.01},
            "train": {"epochs": 1, "batch_size": 24, "max_steps": 2},
        }
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
        folder = tmp_path / f"run{number}"
        result = CliRunner().invoke(cli, ["train", str(tmp_path / "r.yaml"), "--out", str(folder), "--device", "cpu"])
        assert result.exit_code == 0, result.output
        record = json.loads((folder / "environment.json").read_text())["inherited_classifier"]
        assert record["source"] == "arcface_torch partial FC v2: checkpoint_gpu_0.pt and 2 more shards"
        assert record["agreement"] > 0.9
        kept = load_classifier(folder / "classifier.safetensors")[0]
        assert torch.equal(functional.normalize(kept), functional.normalize(load_classifier(rows)[0]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--class-weights", "head", "--class-means"], "--class-means: contradicts --class-weights"),
        (["--class-weights", "absent"], "absent: no such file or folder"),
        (["--class-weights", "bare.pt"], "bare.pt: no class weights that are known here in it"),
        (["-o", "a.pt"], "a.pt: does not end in .safetensors"),
        (["-o", "absent/a.safetensors"], "its folder does not exist"),
        (["--color", "bgr"], "leave out --color"),
    ],
)
def test_refusals_are_one_line_and_exit_2(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(files)
    out = tmp_path / "o.safetensors"
    result = run("net.safetensors", "--data", "faces", "-o", out, *arguments)
    assert result.exit_code == 2 and not out.exists(), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("facekd: error: ") and message in line


def test_both_counts_are_named_when_the_data_are_others(files: Path, tmp_path: Path) -> None:
    rows = [f"p{person:02d}/0.png,p{person:02d}" for person in range(5)]
    (tmp_path / "five.csv").write_text("\n".join(["path,identity", *rows]) + "\n")
    out = tmp_path / "o.safetensors"
    result = run(
        files / "net.safetensors", "--data", tmp_path / "five.csv", "--images", files / "faces",
        "--class-weights", files / "head", "-o", out,
    )  # fmt: skip
    assert result.exit_code == 2 and "has 24 rows, the data 5 identities" in result.stderr


@pytest.mark.slow
def test_class_means_of_a_known_model(shared_data: Path, tmp_path: Path) -> None:
    lines = (shared_data / "lfw_train.csv").read_text().splitlines()
    (tmp_path / "some.csv").write_text("\n".join([lines[0], *lines[1:601]]) + "\n")
    model, images = shared_data / "models" / "edgeface_xs_raw_rgb.onnx", shared_data / "lfw112"
    out = tmp_path / "means.safetensors"
    arguments = ("--data", tmp_path / "some.csv", "--images", images, "--color", "rgb", "--normalize", "none")
    result = run(model, *arguments, "-o", out, "--json", tmp_path / "a.json")
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "a.json").read_text())["classifier"]["agreement"] > 0.99
