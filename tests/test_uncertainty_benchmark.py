"""The benchmark of uncertainty ranks what it says it ranks, on people nobody trained on, and shows losses as losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from facekd_cli.main import cli
from facekd_cli.shipped import find_recipe

from benchmarks import degraded_faces, real_faces, uncertainty, uncertainty_real, uncertainty_uses
from benchmarks.uncertainty_tables import correlation_table, curves_table
from benchmarks.uncertainty_tables import uncertainty as drawn_tables
from benchmarks.uncertainty_tables import uncertainty_real as real_tables
from facekd.data.images import encode_png
from facekd.engine.embed import StoredEmbeddings
from facekd.recipe import load_recipe

STUDENT = (
    "data.synthetic={identities: 4, samples: 8}",
    "student.embedding_size=32",
    'student.options={channels: "8,16,16,32", blocks: "1,1,1,1"}',
    "train.epochs=40",
    "train.freeze_norm_epochs=0",
    "train.batch_size=16",
)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1000], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [5, 6, 7, 8, 7], 8.0 / np.sqrt(10 * 9.5)),
        ([1, 1, 1], [1, 2, 3], 0.0),
    ],
)
def test_spearman__closed_forms(one: list[float], other: list[float], expected: float) -> None:
    assert degraded_faces.spearman(np.array(one), np.array(other)) == pytest.approx(expected)


def test_spearman__is_the_sum_of_squared_rank_differences_without_ties() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.permutation(50).astype(float), rng.permutation(50).astype(float)
    expected = 1 - 6 * ((one - other) ** 2).sum() / (50 * (50**2 - 1))
    assert degraded_faces.spearman(one, np.sinh(other / 9)) == pytest.approx(expected)


def series(people: int) -> list[str]:
    kinds = degraded_faces.STRENGTHS.items()
    return [
        f"{who}/00-{kind}-{level}.png" for who in range(people) for kind, levels in kinds for level in range(levels)
    ]


def test_correlations__a_person_confuses_the_pooled_figure_alone() -> None:
    names = series(5)
    level = np.array([float(name[-5]) for name in names])
    person = np.array([float(name[0]) for name in names])
    plain = degraded_faces.correlations(names, level)
    assert plain == {way: dict.fromkeys(("blur", "resolution", "both"), pytest.approx(1.0)) for way in plain}
    confused = degraded_faces.correlations(names, level + 100 * person)
    assert confused["per_image"]["both"] == pytest.approx(1.0) and confused["pooled"]["both"] < 0.3
    assert degraded_faces.correlations(names, -level)["pooled"]["blur"] == pytest.approx(-1.0)
    heaviest_alone = degraded_faces.correlations(names, (level == 5) + 0.01 * person)
    assert heaviest_alone["milder"]["both"] == pytest.approx(0.0) and heaviest_alone["pooled"]["both"] > 0.3


def test_series__level_nought_is_the_face_and_each_level_is_worse() -> None:
    face = degraded_faces.perfect_face(degraded_faces.FIRST_UNSEEN, 0)
    assert np.array_equal(degraded_faces.WORSE["resolution"](face, 0), face)
    for kind, levels in degraded_faces.STRENGTHS.items():
        seen = [degraded_faces.WORSE[kind](face, level).astype(float) for level in range(levels)]
        detail = [np.abs(np.diff(image, axis=1)).mean() for image in seen]
        assert detail == sorted(detail, reverse=True) and len(set(detail)) == levels


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("student") / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(find_recipe("quickstart/teacher").read_text())
    return run


@pytest.mark.parametrize("method", uncertainty.METHODS)
def test_methods__read_the_same_frozen_student_and_differ_in_their_losses_alone(method: str, student: Path) -> None:
    def recipe(name: str):
        settings = uncertainty.head_settings(student, ("data.path=people",), uncertainty.METHODS[name], 0)
        return load_recipe(find_recipe(uncertainty.RECIPE), settings)

    this, first = recipe(method), recipe("PAD")
    made = load_recipe(student / "recipe.yaml").student
    assert this.student == first.student and this.student.frozen
    assert (this.student.backbone, this.student.options) == (made.backbone, made.options)
    assert (this.data, this.optimizer, this.schedule) == (first.data, first.optimizer, first.schedule)
    assert this.train == first.train.model_copy(update={"images_per_identity": this.train.images_per_identity})
    assert this.losses[0].head == "mlp"


def test_people__nobody_measured_was_trained_on(student: Path) -> None:
    recipe = load_recipe(student / "recipe.yaml")
    words = uncertainty.people_of(recipe, Path("people"))
    told = dict(zip(words[3::2], map(int, words[4::2]), strict=True))
    assert told["--first-identity"] + told["--identities"] <= degraded_faces.FIRST_UNSEEN
    assert told["--identities"] == recipe.data.synthetic.identities


def test_study__a_student_of_the_unseen_people_is_refused(tmp_path: Path) -> None:
    told = find_recipe("quickstart/teacher").read_text()
    (tmp_path / "recipe.yaml").write_text(
        told.replace("{identities: 600,", "{identities: 600, first_identity: 999999,")
    )
    with pytest.raises(SystemExit, match="identities below 1,000,000"):
        uncertainty.study(tmp_path / "runs", tmp_path, [0], (1, 1))


def row(method: str, pooled: float, single: float, seed: int | None = 0) -> dict:
    kinds = ("blur", "resolution", "both")
    told = {"spread": None if seed is None else 0.5, "pooled": dict.fromkeys(kinds, pooled)}
    camera = {**told, "milder": told["pooled"], "per_image": dict.fromkeys(kinds, single)}
    return {"method": method, "seed": seed, "steps": 9, "cameras": {"perfect": camera, "drawn": camera}}


def test_drawn_tables__say_who_reaches_the_target_and_who_does_not() -> None:
    rows = [row("worse", -0.2, 0.1), row("best", 0.8, 0.9), row("best", 0.71, 0.9, seed=1), row("close", 0.69, 0.99)]
    lines = correlation_table(rows, "perfect", 0.7).splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == ["| best", "| close", "| worse"]
    assert [line.split(" | ")[-1] for line in lines] == ["yes |", "no |", "no |"]
    assert "-0.20" in lines[2] and "0.76 (0.71 to 0.80)" in lines[0]
    student = {"name": "s", "parameters": 10, "epochs": 2, "identities": 5}
    on = {"people": 2, "samples": 3, "blurs": [0, 1.5], "sides": [112, 8]}
    trained = {"identities": 5, "samples": 4}
    data = {"rows": rows, "student": student, "measured_on": on, "trained_on": trained, "target": {"pooled": 0.7}}
    text = drawn_tables({**data, "recipe": "r", "recipes": {"best": "x"}})
    assert "sigma 0, 1.5 of 112 pixels and 112, 8 pixels" in text and text.count("| best |") == 2


def test_reject_curves__the_oracle_falls_first() -> None:
    scores = np.array([0.1, 0.2, 0.8, 0.9, 0.8, 0.9, 0.8, 0.9, 0.8, 0.9])
    orders = {"oracle": -scores, "blind": scores}
    curves = uncertainty_uses.reject_curves(scores, orders, threshold=0.5)
    assert curves["oracle"] == pytest.approx([0.2, 0.2, 1 / 9, 0.0, 0.0])
    assert curves["blind"] == pytest.approx([0.2, 0.2, 2 / 9, 2 / 8, 2 / 7])
    assert curves["random"][-1] == pytest.approx(0.2, abs=0.05)


def test_curves_table__methods_by_seed_then_the_orders_that_are_no_method_s_once() -> None:
    def one(*curve: float) -> dict:
        return {"fnmr": {"uncertainty": curve, "random": (0.5, 0.25)}}

    heads = {"PAD": [one(0.4, 0.1), one(0.4, 0.3), one(0.4, 0.2)], "PFE": [one(0.4, 0.2)]}
    assert curves_table(heads, "fnmr", (0.0, 0.5)).splitlines()[2:] == [
        "| PAD | 0.4000 (0.4000 to 0.4000) | 0.2000 (0.1000 to 0.3000) |",
        "| PFE | 0.4000 | 0.2000 |",
        "| random | 0.5000 | 0.2500 |",
    ]


def test_kept_tprs__images_that_look_like_everybody_are_turned_away_first() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(50), 4)
    pairs, genuine = uncertainty_uses.all_pairs(labels)
    unsure = np.where(np.arange(200) % 10 == 0, 5.0, 1.0) + 0.01 * rng.random(200)
    like = (unsure[pairs] > 2).all(axis=1)
    scores = np.where(like, 0.9, np.where(genuine, 0.5, 0.1)) + 0.01 * rng.random(len(pairs))
    found = uncertainty_uses.kept_tprs(scores, genuine, pairs, {"right": unsure, "wrong": -unsure})
    assert found["right"][0] == found["wrong"][0] < 0.05
    assert found["right"][2:] == [1.0, 1.0, 1.0] and max(found["wrong"]) < 0.05


def test_sets__blur_the_share_they_say_and_no_further() -> None:
    for blurs in uncertainty_real.SETS.values():
        sigmas = np.array([blurs.sigma(index) for index in range(2000)])
        assert (sigmas > 0).mean() == pytest.approx(blurs.share, abs=0.03)
        assert sigmas[sigmas > 0].min() >= blurs.least and sigmas.max() <= blurs.most
        assert np.median(sigmas[sigmas > 0]) == pytest.approx((blurs.least + blurs.most) / 2, rel=0.1)


def test_quality_groups__part_the_pairs_by_how_many_images_are_unsure() -> None:
    pairs, genuine = uncertainty_uses.all_pairs(np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    unsure = np.array([0.0, 0.0, 9.0, 9.0] * 2)
    scores = np.where(genuine & (unsure[pairs].max(axis=1) == 0), 0.9, 0.1)
    found = uncertainty_uses.quality_groups(scores, genuine, pairs, unsure, 0.5)
    assert [(group["genuine"], group["impostor"], group["tpr"]) for group in found] == [
        (2, 4, 1.0),
        (8, 8, 0.0),
        (2, 4, 0.0),
    ]


def test_figures__a_variance_that_is_right_helps_and_has_a_table() -> None:
    rng = np.random.default_rng(0)
    labels, sigmas = np.repeat(np.arange(40), 6), rng.uniform(0.1, 6, 240)
    centres = rng.standard_normal((40, 8))
    noise = 0.2 * sigmas[:, None] * rng.standard_normal((240, 8))
    embeddings = (centres[labels] + noise).astype(np.float32)
    names = [str(index) for index in range(240)]
    log_variance = np.log(0.04 * sigmas[:, None] ** 2 / 8)
    stored = StoredEmbeddings(embeddings, labels, names, [], "m", "", True, log_variance)
    found = uncertainty_uses.figures(stored, sigmas)
    assert found["correlation"]["uncertainty"] == pytest.approx(1.0)
    assert found["fnmr"]["uncertainty"] == found["fnmr"]["true strength"]
    kept = found["kept_tpr"]
    assert kept["uncertainty"] == kept["true strength"] and kept["uncertainty"][-1] > kept["random"][-1] + 0.05
    assert found["fnmr"]["uncertainty"][-1] < found["fnmr"]["random"][-1] - 0.05
    templates = found["templates"]
    plain, weighted = (points[0]["tpr"] for points in templates["tpr_at_fpr"].values())
    assert weighted > plain
    assert (templates["templates"], templates["genuine"]) == (80, 40)
    student = {"name": "s", "losses": ["l2"], "parameters": 10}
    told = {"method": "PAD", "seed": 0, "steps": 9, "blurred": "every image by up to 6"}
    data = {"rows": [{**told, **found}], "student": student, "fpr": 1e-3, "rejected": uncertainty_uses.REJECTED}
    text = real_tables({**data, "recipe": "r", "recipes": {"PAD": "x"}})
    assert "every image by up to 6 pixels" in text and "templates of 3: plain mean" in text


def run_in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    calls: list[str] = []

    def facekd(*words: str) -> None:
        calls.append(words[0])
        found = CliRunner().invoke(cli, list(words))
        assert found.exit_code == 0, found.output

    for module in (uncertainty, real_faces):
        monkeypatch.setattr(module, "facekd", facekd)
    return calls


@pytest.mark.slow
def test_study__runs_from_nothing_and_a_second_time_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = run_in_process(monkeypatch)
    monkeypatch.setattr(uncertainty, "EQUAL", ("train.epochs=1", "train.batch_size=16"))
    monkeypatch.setattr(uncertainty, "SAMPLES", 8)
    train_to_end = uncertainty.train_to_end

    def short(recipe: str, changes: tuple[str, ...], out: Path) -> None:
        train_to_end(recipe, STUDENT if out.name == "student" else changes, out)

    monkeypatch.setattr(uncertainty, "train_to_end", short)
    first = uncertainty.study(tmp_path / "runs", None, [3], (2, 1))
    methods = len(uncertainty.METHODS)
    assert calls == ["train", "data", *["train", "embed", "embed"] * methods]
    assert [row["method"] for row in first["rows"]] == [*uncertainty.METHODS, uncertainty.LENGTH]
    correlated = [row["cameras"]["drawn"]["pooled"]["both"] for row in first["rows"]]
    assert all(-1 <= value <= 1 for value in correlated)
    assert "| DUL regression |" in drawn_tables(json.loads(json.dumps(first)))
    assert uncertainty.study(tmp_path / "runs", None, [3], (2, 1)) == first and len(calls) == 2 + 3 * methods


def photographs(folder: Path, people: dict[str, range]) -> None:
    for name, chosen in people.items():
        lines = ["path,identity"]
        for who in chosen:
            for sample in range(6):
                place = folder / "lfw112" / f"p{who}" / f"{sample}.png"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(encode_png(degraded_faces.drawn_face(who, sample)))
                lines.append(f"p{who}/{sample}.png,p{who}")
        (folder / name).write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_real_study__runs_from_a_student_and_a_second_time_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = run_in_process(monkeypatch)
    photographs(tmp_path, {"lfw_train.csv": range(4), "lfw_test.csv": range(100, 121)})
    student = tmp_path / "student"
    real_faces.train_to_end("quickstart/teacher", (*STUDENT, "train.epochs=2"), student)
    monkeypatch.setattr(uncertainty, "EQUAL", ("train.epochs=1", "train.batch_size=16"))
    heads = ("PAD", "PFE")
    given = (tmp_path, tmp_path / "runs", student, [0], heads)
    first = uncertainty_real.study(*given)
    assert calls == ["train", *["train", "embed", "embed", "embed"] * 2]
    assert [(row["method"], row["blurred"]) for row in first["rows"]] == [
        (head, blurs) for head in heads for blurs in uncertainty_real.SETS
    ]
    assert {(row["images"], row["genuine"]) for row in first["rows"]} == {(126, 21 * 15)}
    assert real_tables(json.loads(json.dumps(first))).count("weighted by 1 / sigma^2") == len(first["rows"])
    assert uncertainty_real.study(*given) == first and len(calls) == 9
