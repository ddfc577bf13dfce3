"""``facekd eval --cross``: probes of one model among faces that another enrolled, against plain products."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model
from sklearn.metrics import roc_auc_score

from facekd.engine.embed import load_embeddings

FIXED = ("--device", "cpu", "--allow-resize")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models of one embedding size and one of another, and a folder of drawn faces."""
    root = tmp_path_factory.mktemp("cross")
    for name, size in (("one", 64), ("two", 64), ("short", 32)):
        save_random_model(root / f"{name}.safetensors", size=size, seed=len(name) + size)
    assert run("data", "synth", root / "faces", "--identities", 8, "--samples", 5).exit_code == 0
    return root


def rows(files: Path, name: str, out: Path) -> tuple[np.ndarray, np.ndarray]:
    assert run("embed", files / f"{name}.safetensors", files / "faces", "-o", out, *FIXED).exit_code == 0
    stored = load_embeddings(out)
    found = stored.embeddings.astype(float)
    return found / np.linalg.norm(found, axis=1, keepdims=True), stored.labels


def test_each_alone_and_both_ways_are_those_of_the_products(files: Path, tmp_path: Path) -> None:
    models = [files / "one.safetensors", files / "two.safetensors"]
    options = ("--cross", "--bootstrap", 0, "--fpr", 0.1, "--json", tmp_path / "cross.json")
    told = run("eval", *models, "--on", files / "faces", *options, *FIXED)
    assert told.exit_code == 0, told.output
    results = json.loads((tmp_path / "cross.json").read_text())["results"]
    digests = [result["model_digest"] for result in results[:2]]
    whose = [(result["model_digest"], result.get("gallery_model_digest")) for result in results]
    assert whose == [(digests[0], None), (digests[1], None), tuple(digests), tuple(digests[::-1])]
    (first, labels), (second, _) = (rows(files, name, tmp_path / f"{name}.npz") for name in ("one", "two"))
    above = np.triu(np.ones((labels.size, labels.size), bool), 1)
    same = (labels[:, None] == labels)[above]
    pairs = ((first, first), (second, second), (first, second), (second, first))
    for (probe, gallery), result in zip(pairs, results, strict=True):
        scores = (probe @ gallery.T)[above].astype(np.float32)
        assert result["auc"] == pytest.approx(roc_auc_score(same, scores), abs=1e-12)
        point = result["tpr_at_fpr"][0]
        assert point["tpr"] == np.mean(scores[same] >= np.float32(point["threshold"]))
    assert run("eval", "--verify", tmp_path / "cross.json").exit_code == 0


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (("one", "short"), (), "gives 64 and .* gives 32 numbers a face"),
        (("one",), (), "--cross: takes two models, not 1"),
        (("one", "two"), ("--resolution", 16), "--cross: compares faces at full resolution"),
    ],
)
def test_what_cannot_be_compared_is_refused(files: Path, names: tuple, options: tuple, message: str) -> None:
    models = [files / f"{name}.safetensors" for name in names]
    told = run("eval", *models, "--on", files / "faces", "--cross", *options, *FIXED)
    assert told.exit_code == 2 and re.search(message, told.output)


def test_options_for_a_foreign_model_leave_one_that_states_its_own_alone(files: Path) -> None:
    models, options = [files / "one.safetensors", files / "two.safetensors"], ("--normalize", "none", "--bootstrap", 0)
    assert run("eval", *models, "--on", files / "faces", *options, *FIXED).exit_code == 0
    told = run("eval", models[0], "--on", files / "faces", *options, *FIXED)
    assert told.exit_code == 2 and "leave out --normalize" in told.output
