"""``facekd eval --uncertainty``: mutual likelihood, quality, turning away and fused templates, against plain loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from ijb_folder import write_ijb
from random_model import save_random_model, save_random_run
from sklearn.metrics import roc_auc_score

from facekd.engine.embed import load_embeddings
from facekd.engine.evaluation import uncertain_pairs

PEOPLE, EACH = 9, 4


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a variance head, the same without, drawn faces, and an IJB folder."""
    root = tmp_path_factory.mktemp("sure")
    save_random_run(root / "run")
    save_random_model(root / "plain.safetensors")
    assert run("data", "synth", root / "faces", "--identities", PEOPLE, "--samples", EACH).exit_code == 0
    write_ijb(root / "ijbc")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


FIXED = ("--device", "cpu", "--bootstrap", 20, "--fpr", 0.1, "--fpr", 0.01)


def results(out: Path, *words: object) -> list[dict]:
    told = run("eval", *words, *FIXED, "--json", out)
    assert told.exit_code == 0, told.output
    return json.loads(out.read_text())["results"]


def likelihood(one: np.ndarray, other: np.ndarray, v: np.ndarray, w: np.ndarray) -> float:
    one, other, both = one / np.linalg.norm(one), other / np.linalg.norm(other), np.exp(v) + np.exp(w)
    return float(-0.5 * ((one - other) ** 2 / both + np.log(both)).sum() - 0.5 * len(one) * np.log(2 * np.pi))


def tpr_by_loops(genuine: np.ndarray, impostor: np.ndarray, fpr: float) -> float:
    kept = [t for t in [*impostor.tolist(), *genuine.tolist(), np.inf] if (impostor >= t).mean() <= fpr]
    return max(float((genuine >= t).mean()) for t in kept)


@pytest.mark.slow
def test_all_pairs__are_scored_by_likelihood_and_parted_by_quality_as_plain_loops_do(
    files: Path, tmp_path: Path
) -> None:
    plain, *_ = results(tmp_path / "plain.json", files / "run", "--on", files / "faces")
    cosine, likely = results(tmp_path / "sure.json", files / "run", "--on", files / "faces", "--uncertainty")
    told = cosine.pop("by_uncertainty")
    assert {**cosine, "seconds": 0} == {**plain, "seconds": 0} and likely["score"] == "mutual-likelihood"
    npz = tmp_path / "faces.npz"
    assert run("embed", files / "run", files / "faces", "-o", npz, "--uncertainty", "--device", "cpu").exit_code == 0
    stored = load_embeddings(npz)
    pairs = np.array([(i, j) for i in range(PEOPLE * EACH) for j in range(i + 1, PEOPLE * EACH)])
    genuine = stored.labels[pairs[:, 0]] == stored.labels[pairs[:, 1]]
    rows, log_variance = stored.embeddings.astype(float), stored.log_variance.astype(float)
    scores = np.array([likelihood(rows[i], rows[j], log_variance[i], log_variance[j]) for i, j in pairs.tolist()])
    assert likely["auc"] == pytest.approx(roc_auc_score(genuine, scores))
    for point in likely["tpr_at_fpr"]:
        assert point["tpr"] == pytest.approx(tpr_by_loops(scores[genuine], scores[~genuine], point["fpr"]))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = (unit @ unit.T)[pairs[:, 0], pairs[:, 1]]
    doubt = 64 / np.exp(-log_variance).sum(1)
    low = (doubt > np.median(doubt))[pairs].sum(1)
    for point, found in zip(cosine["tpr_at_fpr"], told, strict=True):
        accepted = cosines >= point["threshold"] - 1e-7
        assert found["fpr"] == point["fpr"] and found["threshold"] == point["threshold"]
        for count, rates in enumerate(found["quality"]):
            chosen = low == count
            assert rates["quality"] == ("high", "mixed", "low")[count]
            assert (rates["genuine"], rates["impostor"]) == (
                int((chosen & genuine).sum()),
                int((chosen & ~genuine).sum()),
            )
            assert rates["tpr"] == pytest.approx(accepted[chosen & genuine].mean())
            assert rates["fpr"] == pytest.approx(accepted[chosen & ~genuine].mean())
        assert [step["turned_away"] for step in found["reject"]] == [k / 20 for k in range(11)]
        order = np.argsort(-doubt[pairs[genuine]].max(1), kind="stable")
        for step in found["reject"]:
            rest = order[int(step["turned_away"] * genuine.sum()) :]
            assert step["missed"] == pytest.approx(1 - accepted[genuine][rest].mean())


def test_stored_variances__give_the_figures_of_the_run(files: Path, tmp_path: Path) -> None:
    npz = tmp_path / "faces.npz"
    assert run("embed", files / "run", files / "faces", "-o", npz, "--uncertainty", "--device", "cpu").exit_code == 0
    live = results(tmp_path / "live.json", files / "run", "--on", files / "faces", "--uncertainty")
    stored = results(tmp_path / "stored.json", npz, "--uncertainty")
    assert [one["tpr_at_fpr"] for one in stored] == [one["tpr_at_fpr"] for one in live]
    assert stored[0]["by_uncertainty"] == live[0]["by_uncertainty"]


def test_pairs_in_folds__keep_their_accuracy_by_cosine_and_have_none_by_likelihood(files: Path, tmp_path: Path) -> None:
    names = [f"synthetic-{p:06d}" for p in range(PEOPLE)]
    rows = [f"{n}/0000.png,{n}/0001.png,1,{k % 2}" for k, n in enumerate(names)]
    rows += [f"{names[k]}/0000.png,{names[k - d]}/0001.png,0,{k % 2}" for k in range(PEOPLE) for d in (1, 2, 3, 4)]
    (tmp_path / "pairs.csv").write_text("\n".join(["path1,path2,label,fold", *rows]) + "\n")
    on = ("--on", tmp_path / "pairs.csv", "--images", files / "faces", "--protocol", "lfw", "--uncertainty")
    cosine, likely = results(tmp_path / "out.json", files / "run", *on)
    assert cosine["accuracy"]["mean"] > 0 and likely["accuracy"] is None
    assert "by_uncertainty" in cosine and "by_uncertainty" not in likely


def test_probes_of_few_pixels__have_variances_of_their_own(files: Path, tmp_path: Path) -> None:
    on = ("--on", files / "faces", "--uncertainty", "--resolution", 8)
    full, likely, low, low_likely = results(tmp_path / "out.json", files / "run", *on)
    assert full["resolution"] is None or full["resolution"] != low["resolution"]
    assert low["by_uncertainty"] != full["by_uncertainty"] and low_likely["auc"] != likely["auc"]


def test_templates__are_fused_and_compared_by_likelihood(files: Path, tmp_path: Path) -> None:
    on = ("--on", files / "ijbc", "--uncertainty", "--cache", tmp_path / "cache")
    mean, fused, likely = results(tmp_path / "out.json", files / "run", *on)
    assert "fusion" not in mean and (fused["fusion"], likely["fusion"]) == ("inverse-variance",) * 2
    assert "score" not in fused and likely["score"] == "mutual-likelihood"
    assert len({one["auc"] for one in (mean, fused, likely)}) == 3
    plain = results(tmp_path / "plain.json", files / "run", *on[:2], "--cache", tmp_path / "other")
    assert {**plain[0], "seconds": 0} == {**mean, "seconds": 0}


def test_searches__are_fused_too(files: Path, tmp_path: Path) -> None:
    on = ("--on", files / "ijbc", "--uncertainty", "--protocol", "ijb-1:n", "--cache", tmp_path / "cache")
    mean, fused = results(tmp_path / "out.json", files / "run", *on)
    assert fused["fusion"] == "inverse-variance" and fused["probes"] == mean["probes"]
    assert fused["rank"].keys() == mean["rank"].keys()


def test_pictures_and_page__show_what_it_tells_and_verify_agrees(files: Path, tmp_path: Path) -> None:
    page, out = tmp_path / "page.html", tmp_path / "out.json"
    more = ("--report", page, "--plot", tmp_path / "curves.svg")
    results(out, files / "run", "--on", files / "faces", "--uncertainty", *more)
    text = page.read_text()
    for told in ("How sure", "Error versus reject", "mutual likelihood", "low quality"):
        assert told in text
    assert "--uncertainty" in text
    assert "Error versus reject" in (tmp_path / "curves.svg").read_text()
    assert run("eval", "--verify", out, "--device", "cpu").exit_code == 0


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("plain.safetensors", "--on", "faces"), "has no uncertainty.safetensors beside it"),
        (("plain.npz",), "holds no log_variance"),
        (("run", "run", "--on", "faces", "--cross"), "leave --uncertainty out"),
    ],
)
def test_what_knows_no_uncertainty_is_refused(files: Path, words: tuple[str, ...], line: str) -> None:
    if not (files / "plain.npz").exists():
        made = ("embed", files / "plain.safetensors", files / "faces", "-o", files / "plain.npz", "--device", "cpu")
        assert run(*made).exit_code == 0
    told = run("eval", *(word if word.startswith("--") else files / word for word in words), "--uncertainty", *FIXED)
    assert told.exit_code == 2 and line in told.output and told.output.count("error:") == 1


def test_more_pairs_than_are_held__are_refused_before_any_work(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uncertain_pairs, "HELD_PAIRS", 100)
    told = run("eval", files / "run", "--on", files / "faces", "--uncertainty", *FIXED)
    assert told.exit_code == 2 and "at most 100 are told apart by their uncertainty" in told.output
