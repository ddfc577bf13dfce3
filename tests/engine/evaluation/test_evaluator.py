"""Results of whole sets: contract, brute-force figures, protocols, refusals."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from facekd.data.images import encode_png
from facekd.data.verification import VerificationSet, write_bin
from facekd.engine.embed import StoredEmbeddings
from facekd.engine.evaluation import figures
from facekd.engine.evaluation.evaluation_sets import OpenedSet, identity_set, open_set
from facekd.engine.evaluation.evaluator import evaluate_set, evaluate_stored
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.evaluation.requirements import parse_requirement, require
from facekd.errors import DataError, InputError, NonFiniteError, RequirementError, UsageError
from facekd.models.preprocessing import Preprocessing

KEYS = ["model", "model_digest", "set", "protocol", "flip", "pairs", "genuine", "impostor", "failed_images"]
KEYS.insert(3, "set_digest")
KEYS.insert(6, "resolution")
KEYS.insert(7, "precision")
KEYS += ["accuracy", "auc", "auc_ci95", "eer", "tpr_at_fpr", "refused", "seconds"]
POINT = "fpr tpr threshold attained_fpr false_accepts impostors ci95 nearest_fpr_tpr supported"
SETTINGS = EvalSettings(fprs=(0.1, 1e-2, 1e-6), bootstrap=60)


@dataclass(frozen=True)
class Glance:
    """Embeds an 8x8 image as its centred pixels."""

    name: str = "glance"
    digest: str = "d1"
    embedding_size: int = 192
    parameters: int = 0
    preprocessing: Preprocessing = Preprocessing.named("none", size=(8, 8))

    @property
    def metadata(self) -> dict[str, str]:
        return {}

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1).float() - 127


@dataclass(frozen=True)
class Faces:
    """Noisy pictures of a few symmetric people, image i of person labels[i]."""

    labels: np.ndarray
    digest: str = ""

    @property
    def names(self) -> list[str]:
        return [f"person {label}" for label in range(self.labels.max() + 1)]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> np.ndarray:
        person = np.random.default_rng([7, int(self.labels[index])]).integers(107, 148, (8, 8, 3))
        noise = np.random.default_rng([8, index]).normal(0, 45, (8, 8, 3))
        return np.clip(person + person[:, ::-1] - 127 + noise, 0, 255).astype(np.uint8)

    def sample_name(self, index: int) -> str:
        return f"face {index}"


LABELS = np.repeat(np.arange(20), 4)
FACES = Faces(LABELS)


def pair_set(count: int = 400, subjects: np.ndarray | None = LABELS) -> VerificationSet:
    rng = np.random.default_rng(2)
    genuine = np.arange(count) % 2 == 0
    first = rng.integers(0, 80, count)
    near = first // 4 * 4 + (first % 4 + rng.integers(1, 4, count)) % 4
    far = (first + 4 * rng.integers(1, 20, count)) % 80
    pairs = np.stack([first, np.where(genuine, near, far)], axis=1)
    return VerificationSet("pairs.csv", FACES, pairs, genuine, np.arange(count) // (count // 5), subjects, "", [])


def cosines(pairs: np.ndarray) -> np.ndarray:
    """Cosine of flip-summed embeddings, the slow way."""
    rows = []
    for index in range(len(FACES)):
        image = FACES.read(index).astype(np.float64) - 127
        total = image + image[:, ::-1]
        rows.append(total.ravel() / np.linalg.norm(total))
    return np.array([rows[i] @ rows[j] for i, j in pairs])


def test_result_of_pairs_holds_the_contract_and_the_figures() -> None:
    data = pair_set()
    result = evaluate_set(Glance(), OpenedSet("pairs.csv", "lfw", data), SETTINGS).result
    assert list(result) == KEYS and json.loads(json.dumps(result)) == result
    assert (result["model"], result["model_digest"], result["set"]) == ("glance", "d1", "pairs.csv")
    assert (result["pairs"], result["genuine"], result["impostor"], result["failed_images"]) == (400, 200, 200, 0)
    assert result["refused"] == [
        {"fpr": 1e-2, "impostors": 200, "needed": 300},
        {"fpr": 1e-6, "impostors": 200, "needed": 3_000_000},
    ]
    scores, (point,) = cosines(data.pairs), result["tpr_at_fpr"]
    assert list(point) == POINT.split()
    accepted = scores >= point["threshold"] - 1e-9
    assert accepted[data.genuine].mean() == point["tpr"] and 0.2 < point["tpr"] < 1
    assert int(accepted[~data.genuine].sum()) == point["false_accepts"] <= 20
    assert point["ci95"][0] < point["tpr"] < point["ci95"][1]
    assert set(result["accuracy"]) == {"mean", "std", "threshold", "ci95"} and 0.8 < result["accuracy"]["mean"] < 1
    assert set(result["eer"]) == {"value", "low", "high", "threshold", "ci95"}
    assert set(result["seconds"]) == {"embed", "score"}
    spans = (result["auc_ci95"], result["eer"]["ci95"], result["accuracy"]["ci95"])
    for (low, high), value in zip(
        spans, (result["auc"], result["eer"]["value"], result["accuracy"]["mean"]), strict=True
    ):
        assert low < value < high


def test_all_pairs_and_stored_embeddings_agree_with_brute_force() -> None:
    every = np.array([(i, j) for i in range(80) for j in range(i + 1, 80)])
    scores, genuine = cosines(every), LABELS[every[:, 0]] == LABELS[every[:, 1]]
    result = evaluate_set(Glance(), identity_set("faces", FACES), SETTINGS).result
    assert (result["protocol"], result["accuracy"]) == ("all-pairs", None)
    assert (result["genuine"], result["impostor"]) == (120, 3040)
    for point in result["tpr_at_fpr"]:
        highest = np.sort(scores[~genuine])[::-1][int(point["fpr"] * 3040)]
        assert point["tpr"] == (scores[genuine] > highest).mean()
        assert point["false_accepts"] == int(point["fpr"] * 3040)
    rows = np.stack([FACES.read(i).transpose(2, 0, 1).astype(np.float32) - 127 for i in range(80)])
    rows = (rows + rows[..., ::-1]).reshape(80, -1)
    stored = StoredEmbeddings(rows, LABELS, [str(i) for i in range(80)], [], "net", "d2", None)
    again = next(evaluate_stored(stored, "e.npz", SETTINGS)).result
    assert list(again) == KEYS and (again["model"], again["flip"]) == ("net", None)
    same = ("auc", "auc_ci95", "eer", "tpr_at_fpr", "refused", "pairs")
    assert {key: again[key] for key in same} == {key: result[key] for key in same}


@pytest.mark.parametrize("opened", [OpenedSet("p", "lfw", pair_set()), identity_set("f", FACES)], ids=["pairs", "all"])
def test_details_are_kept_on_demand_and_name_the_images_of_the_hardest_pairs(opened: OpenedSet) -> None:
    plain, kept = (evaluate_set(Glance(), opened, replace(SETTINGS, details=wanted)) for wanted in (False, True))
    assert plain.measured.details is None and {**plain.result, "seconds": 0} == {**kept.result, "seconds": 0}
    details, data = kept.measured.details, opened.data
    assert details is not None
    paired = isinstance(data, VerificationSet)
    pairs = data.pairs if paired else np.array([(i, j) for i in range(80) for j in range(i + 1, 80)])
    genuine = data.genuine if paired else LABELS[pairs[:, 0]] == LABELS[pairs[:, 1]]
    scores = cosines(pairs)
    for found, kind, sign in ((details.hardest_genuine, genuine, 1), (details.hardest_impostor, ~genuine, -1)):
        worst = np.sort(sign * scores[kind])[:12] * sign
        np.testing.assert_allclose([pair.score for pair in found], worst, atol=1e-6)
        again = cosines(np.array([(pair.first, pair.second) for pair in found]))
        np.testing.assert_allclose(again, worst, atol=1e-6)
    assert details.histogram.genuine.sum() == kept.measured.genuine == genuine.sum()
    assert details.histogram.impostor.sum() == kept.measured.impostor
    read = dict(zip(details.curve.fpr.tolist(), details.curve.tpr.tolist(), strict=True))
    assert read[0.1] == kept.measured.points[0].tpr


@pytest.mark.parametrize("batch", [1, 7, 80])
def test_batch_size_changes_nothing(batch: int) -> None:
    opened = OpenedSet("p", "pairs", pair_set())
    want = evaluate_set(Glance(), opened, SETTINGS).result
    found = evaluate_set(Glance(), opened, replace(SETTINGS, batch_size=batch)).result
    assert {**found, "seconds": 0} == {**want, "seconds": 0}


def test_no_flip_no_bootstrap_one_fold() -> None:
    one_fold = replace(pair_set(), folds=np.zeros(400, np.int64))
    result = evaluate_set(
        Glance(), OpenedSet("p", "pairs", one_fold), replace(SETTINGS, flip=False, bootstrap=0)
    ).result
    assert result["flip"] is False and result["accuracy"] is None
    assert [point["ci95"] for point in result["tpr_at_fpr"]] == [None]
    assert (result["auc_ci95"], result["eer"]["ci95"]) == (None, None)
    assert result["no_interval"] == "no replicates were asked for"
    flipped = evaluate_set(Glance(), OpenedSet("p", "pairs", one_fold), SETTINGS).result
    assert flipped["auc"] > result["auc"]


def test_unknown_people_resample_pairs() -> None:
    known, unknown = OpenedSet("p", "pairs", pair_set()), OpenedSet("p", "pairs", pair_set(subjects=None))
    assert known.subjects_known and not unknown.subjects_known and identity_set("f", FACES).subjects_known
    results = [evaluate_set(Glance(), one, SETTINGS).result for one in (known, unknown)]
    for found in (lambda r: r["tpr_at_fpr"][0]["ci95"], lambda r: r["auc_ci95"], lambda r: r["accuracy"]["ci95"]):
        assert found(results[0]) != found(results[1])


def test_intervals_of_all_pairs_are_those_of_the_same_pairs_listed() -> None:
    every = np.array([(i, j) for i in range(80) for j in range(i + 1, 80)])
    listed = replace(pair_set(), pairs=every, genuine=LABELS[every[:, 0]] == LABELS[every[:, 1]], folds=every[:, 0] * 0)
    settings = replace(SETTINGS, bootstrap=200)
    found = [
        evaluate_set(Glance(), one, settings).result
        for one in (OpenedSet("p", "pairs", listed), identity_set("faces", FACES))
    ]
    for figure in (lambda r: r["auc_ci95"], lambda r: r["eer"]["ci95"]):
        assert figure(found[0]) == pytest.approx(figure(found[1]), abs=2e-4)  # cosines in float64 and in float32


def test_bad_images_and_embeddings_stop_the_evaluation() -> None:
    @dataclass(frozen=True)
    class Broken:
        faces: Faces

        def __len__(self) -> int:
            return 80

        def sample_name(self, index: int) -> str:
            return f"face {index}"

        def read(self, index: int) -> np.ndarray:
            if index == 41:
                raise DataError("face 41", "zero bytes")
            return self.faces.read(index)

    with pytest.raises(DataError, match="face 41: zero bytes"):
        evaluate_set(Glance(), OpenedSet("p", "pairs", replace(pair_set(), images=Broken(FACES))), SETTINGS)

    @dataclass(frozen=True)
    class Blind(Glance):
        def embed(self, images: Tensor) -> Tensor:
            return torch.full((len(images), 192), torch.nan)

    with pytest.raises(NonFiniteError, match="the embedding of face 0 is not finite, 80 of 80"):
        evaluate_set(Blind(), OpenedSet("p", "pairs", pair_set()), SETTINGS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 people with 4 images each, a pairs file, a list and a .bin."""
    for index, label in enumerate(LABELS):
        person = tmp_path / "faces" / f"p{label:02d}"
        person.mkdir(parents=True, exist_ok=True)
        (person / f"{index % 4}.png").write_bytes(encode_png(FACES.read(index)))
    name = [f"p{label:02d}/{index % 4}.png" for index, label in enumerate(LABELS)]
    data = pair_set()
    lines = [f"{name[i]},{name[j]},{int(g)}" for (i, j), g in zip(data.pairs, data.genuine, strict=True)]
    (tmp_path / "pairs.csv").write_text("path1,path2,label\n" + "\n".join(dict.fromkeys(lines)))
    rows = [f"{path},{path[:3]}" for path in name]
    (tmp_path / "list.csv").write_text("path,identity\n" + "\n".join(rows))
    encoded = [encode_png(FACES.read(i)) for i in data.pairs.ravel()]
    write_bin(tmp_path / "set.bin", encoded, data.genuine.tolist())
    return tmp_path


def test_files_choose_their_protocol(folder: Path) -> None:
    faces = folder / "faces"
    found = {
        name: open_set(folder / name, images=faces if name.endswith("csv") else None)
        for name in ("faces", "list.csv", "pairs.csv", "set.bin")
    }
    assert {name: one.protocol for name, one in found.items()} == {
        "faces": "all-pairs",
        "list.csv": "all-pairs",
        "pairs.csv": "pairs",
        "set.bin": "lfw",
    }
    assert found["pairs.csv"].subjects_known and not found["set.bin"].subjects_known
    results = {name: evaluate_set(Glance(), one, SETTINGS).result for name, one in found.items()}
    assert results["faces"]["tpr_at_fpr"] == results["list.csv"]["tpr_at_fpr"]
    assert results["set.bin"]["accuracy"] is not None
    assert open_set(folder / "pairs.csv", images=faces, protocol="lfw").protocol == "lfw"


def test_protocols_that_do_not_fit_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="holds identities, and lfw needs pairs"):
        open_set(folder / "faces", protocol="lfw")
    with pytest.raises(UsageError, match="holds pairs, not identities"):
        open_set(folder / "set.bin", protocol="all-pairs")
    with pytest.raises(InputError, match="absent"):
        open_set(folder / "absent.bin")
    with pytest.raises(InputError, match="0 genuine pairs: TPR is not defined"):
        identity_set("alone", Faces(np.arange(4)))
    with pytest.raises(InputError, match="0 impostor pairs"):
        identity_set("one", Faces(np.zeros(4, np.int64)))
    with pytest.raises(InputError, match="40,001 images make 799,980,000 genuine pairs"):
        identity_set("many", Faces(np.append(np.zeros(40_000, np.int64), 1)))


def test_more_pairs_than_are_held__are_swept_to_the_same_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    rows = np.repeat(rng.normal(size=(40, 16)), 5, axis=0) + rng.normal(size=(200, 16))
    settings = EvalSettings(fprs=(1e-1, 1e-2, 1e-3), bootstrap=50, details=True)
    stored = StoredEmbeddings(rows, np.repeat(np.arange(40), 5), [str(i) for i in range(200)], [], "net", "d2", None)
    held = next(evaluate_stored(stored, "e.npz", settings))
    monkeypatch.setattr(figures, "HELD_PAIRS", 1000)
    swept = next(evaluate_stored(stored, "e.npz", settings))
    area = swept.result.pop("auc_error")
    assert area < 1e-4 and abs(swept.result.pop("auc") - held.result.pop("auc")) <= area
    del swept.result["seconds"], held.result["seconds"]
    assert swept.result.pop("no_interval") == "AUC and EER of more than 1,000 impostor pairs are not resampled"
    assert swept.result.pop("auc_ci95") is swept.result["eer"].pop("ci95") is None
    assert held.result.pop("auc_ci95") and held.result["eer"].pop("ci95") and swept.result == held.result
    assert swept.measured.details.hardest_genuine == held.measured.details.hardest_genuine


def test_requirements() -> None:
    result = evaluate_set(Glance(), OpenedSet("p", "pairs", pair_set()), SETTINGS).result
    require([result], [parse_requirement(text) for text in ("tpr@0.1>=0.2", "accuracy >= .5", "auc>=0.5", "eer<=5e-1")])
    with pytest.raises(RequirementError) as caught:
        require([result], [parse_requirement(text) for text in ("tpr@1e-1>=1", "eer<=0", "tpr@1e-6>=0", "tpr@0.3>=0")])
    for part in ("tpr@1e-1>=1 not met: tpr is 0.", "eer<=0 not met", "needs 3,000,000 impostor pairs", "not evaluated"):
        assert part in str(caught.value)
    assert caught.value.exit_code == 1 and len(caught.value.lines) == 1
    no_folds = {**result, "accuracy": None}
    with pytest.raises(RequirementError, match="gives no accuracy"):
        require([no_folds], [parse_requirement("accuracy>=0")])


@pytest.mark.parametrize(
    "text", ["", "tpr>=0.9", "tpr@1e-3", "tpr@1e-3>0.9", "tpr@1e-3<=0.9", "eer>=0.1", "auc>=95", "tpr@0>=1", "f1>=0.5",
             "tpr@1>=0.5", "accuracy@1e-3>=0.5", "auc>=nan", "auc>=-1"]
)  # fmt: skip
def test_other_demands_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_requirement(text)
