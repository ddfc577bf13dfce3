"""Probes of few pixels against sharp galleries: each mode against brute force, and every image brought down once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from facekd.data.resolution import at_resolution, reader_at
from facekd.data.verification import VerificationSet
from facekd.engine.evaluation.evaluation_sets import OpenedSet, identity_set
from facekd.engine.evaluation.evaluator import evaluate_resolutions, evaluate_set
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.evaluation.requirements import parse_requirement, require
from facekd.engine.evaluation.resolution_modes import FULL, Resolution, resolution_modes
from facekd.errors import DataError, RequirementError
from facekd.models.preprocessing import Preprocessing

SETTINGS = EvalSettings(fprs=(0.1,), bootstrap=0, flip=False)
LABELS = np.repeat(np.arange(10), 3)


@dataclass(frozen=True)
class Glance:
    """Embeds a 16x16 image as its centred pixels, and counts what it is shown."""

    name: str = "glance"
    digest: str = "d1"
    embedding_size: int = 768
    parameters: int = 0
    preprocessing: Preprocessing = Preprocessing.named("none", size=(16, 16))
    metadata: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    shown: Counter = field(default_factory=Counter)

    def embed(self, images: Tensor) -> Tensor:
        self.shown["images"] += len(images)
        return images.flatten(1).float() - 127


@dataclass(frozen=True)
class Faces:
    """Pictures whose people differ in fine detail and whose images differ by noise."""

    labels: np.ndarray
    digest: str = ""

    @property
    def names(self) -> list[str]:
        return [f"person {label}" for label in range(self.labels.max() + 1)]

    def __len__(self) -> int:
        return len(self.labels)

    def read(self, index: int) -> np.ndarray:
        person = np.random.default_rng([7, int(self.labels[index])]).integers(60, 196, (16, 16, 3))
        noise = np.random.default_rng([8, index]).normal(0, 60, (16, 16, 3))
        return np.clip(person + noise, 0, 255).astype(np.uint8)

    def sample_name(self, index: int) -> str:
        return f"face {index}"


FACES = Faces(LABELS)


def rows_at(side: int | None) -> np.ndarray:
    """Unit embeddings of every image at a resolution, the slow way."""
    images = [FACES.read(index) for index in range(len(FACES))]
    lowered = [image if side is None else at_resolution(image, side) for image in images]
    rows = np.stack([image.transpose(2, 0, 1).ravel().astype(np.float64) - 127 for image in lowered])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pair_set() -> VerificationSet:
    rng = np.random.default_rng(2)
    genuine = np.arange(120) % 2 == 0
    first = rng.integers(0, 30, 120)
    near, far = first // 3 * 3 + (first % 3 + rng.integers(1, 3, 120)) % 3, (first + 3 * rng.integers(1, 10, 120)) % 30
    pairs = np.stack([first, np.where(genuine, near, far)], axis=1)
    return VerificationSet("pairs.csv", FACES, pairs, genuine, np.arange(120) // 24, LABELS, "", [])


def accepted(scores: np.ndarray, genuine: np.ndarray) -> float:
    """TPR where a tenth of the impostors may pass."""
    impostors = np.sort(scores[~genuine])[::-1]
    return float((scores[genuine] > impostors[len(impostors) // 10]).mean())


MODES = resolution_modes([8, 4], "both")


def test_pairs__the_first_image_is_the_probe_in_every_mode() -> None:
    data = pair_set()
    results = [found.result for found in evaluate_resolutions(Glance(), OpenedSet("p", "lfw", data), SETTINGS, MODES)]
    told = [result["resolution"] for result in results]
    assert told == [None] + [{"probe": p, "gallery": g} for p, g in ((8, None), (8, 8), (4, None), (4, 4))]
    for mode, result in zip(MODES, results, strict=True):
        probe, gallery = rows_at(mode.probe), rows_at(mode.gallery)
        scores = np.array([probe[i] @ gallery[j] for i, j in data.pairs])
        assert result["tpr_at_fpr"][0]["tpr"] == accepted(scores, data.genuine)
        assert (result["pairs"], result["protocol"]) == (120, "lfw") and result["accuracy"] is not None


def test_all_pairs__the_image_that_comes_first_is_the_probe() -> None:
    results = [found.result for found in evaluate_resolutions(Glance(), identity_set("f", FACES), SETTINGS, MODES)]
    pairs = np.array([(i, j) for i in range(30) for j in range(i + 1, 30)])
    genuine = LABELS[pairs[:, 0]] == LABELS[pairs[:, 1]]
    for mode, result in zip(MODES, results, strict=True):
        probe, gallery = rows_at(mode.probe), rows_at(mode.gallery)
        scores = np.array([probe[i] @ gallery[j] for i, j in pairs]).astype(np.float32)
        assert result["tpr_at_fpr"][0]["tpr"] == accepted(scores, genuine)
        assert (result["genuine"], result["impostor"]) == (30, 405)
    figures = [result["auc"] for result in results]
    assert len(set(figures)) == 5 and figures[0] > figures[3]


def test_full_resolution__is_the_plain_evaluation_and_so_is_the_images_own_size() -> None:
    opened = identity_set("f", FACES)
    plain = evaluate_set(Glance(), opened, SETTINGS).result
    for mode in (FULL, Resolution(16, None), Resolution(16, 16)):
        (result,) = (found.result for found in evaluate_resolutions(Glance(), opened, SETTINGS, [mode]))
        same = result.keys() - {"seconds", "resolution"}
        assert {key: result[key] for key in same} == {key: plain[key] for key in same}


def test_every_resolution_is_embedded_once_for_all_its_modes() -> None:
    glance = Glance()
    list(evaluate_resolutions(glance, identity_set("f", FACES), SETTINGS, MODES))
    assert glance.shown["images"] == 3 * 30


def test_image_smaller_than_its_resolution__is_refused_by_name() -> None:
    with pytest.raises(DataError, match="face 0: 16x16 pixels cannot be brought down to 28 .leave that resolution out"):
        list(evaluate_resolutions(Glance(), identity_set("f", FACES), SETTINGS, resolution_modes([28])))
    assert np.array_equal(reader_at(FACES.read, FACES.sample_name, 4)(3), at_resolution(FACES.read(3), 4))


def test_missed_demand__says_at_which_resolution() -> None:
    results = [
        found.result
        for found in evaluate_resolutions(Glance(), identity_set("f", FACES), SETTINGS, resolution_modes([4]))
    ]
    least = results[0]["auc"]
    assert results[1]["auc"] < least
    with pytest.raises(RequirementError) as caught:
        require(results, [parse_requirement(f"auc>={least}")])
    assert "glance on f (4 px to full): auc>=" in str(caught.value)
    assert "glance on f:" not in str(caught.value)


def test_run__measures_its_student_at_every_resolution(make_recipe, tmp_path) -> None:
    import json

    from facekd.engine.training.trainer import train

    faces = {"sets": [{"synthetic": {"identities": 4, "samples": 3}}], "fpr": [0.1], "resolutions": [28], "every": 1.0}
    results = train(make_recipe(("train.epochs=2",), evaluate=faces | {"gallery": "both"}), tmp_path / "run")
    assert [r["resolution"] for r in results] == [None, {"probe": 28, "gallery": None}, {"probe": 28, "gallery": 28}]
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [len(record["evaluation"]) for record in records if "evaluation" in record] == [3, 3]
    assert torch.tensor([r["auc"] for r in results]).isfinite().all()
