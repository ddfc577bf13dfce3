"""Which colour order and scaling fits a model: the right one is found, and a right model is never accused."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from facekd.data.verification import VerificationSet
from facekd.engine.evaluation.evaluation_sets import OpenedSet
from facekd.engine.probe import (
    LEAST_PEOPLE,
    Probe,
    advice,
    doubt,
    people_by_label,
    people_of_set,
    probe_preprocessing,
    probe_set,
    says_itself,
)
from facekd.metrics.roc import auc
from facekd.models.preprocessing import COLORS, NORMALIZATIONS, Preprocessing
from facekd.models.preprocessing_ways import OWN, all_ways, other_ways

SIDE, PEOPLE = 8, 40
RGB = Preprocessing.named("half", size=(SIDE, SIDE))


@dataclass(frozen=True)
class Reds:
    """Knows people by what their first channel shows, and is saturated by pixels that are not about 1 in size."""

    preprocessing: Preprocessing = RGB
    blind: bool = False
    name: str = "reds"
    digest: str = "0"
    embedding_size: int = SIDE * SIDE
    metadata: dict[str, str] = field(default_factory=lambda: {"preprocessing_source": "user"})
    parameters: int = 0
    warnings: tuple[str, ...] = ()

    def embed(self, images: Tensor) -> Tensor:
        if self.blind:
            return torch.full((len(images), self.embedding_size), torch.nan)
        pixels = self.preprocessing.apply(images)
        return torch.tanh(pixels[:, 0]).flatten(1) + 0.01 * torch.tanh(pixels[:, 2]).flatten(1)


@dataclass(frozen=True)
class Grey(Reds):
    """Does not care for the colour order, nor for the scale."""

    name: str = "grey"

    def embed(self, images: Tensor) -> Tensor:
        grey = images.float().mean(dim=1).flatten(1)
        return grey - grey.mean(dim=1, keepdim=True)


class Faces:
    """Two images of each person, alike in red only; blue is the same for all."""

    def __init__(self, seed: int = 0, people: int = PEOPLE, noise: float = 40.0) -> None:
        draw = np.random.default_rng(seed)
        red = draw.integers(60, 196, (people, 1, SIDE, SIDE)).repeat(2, axis=1)
        green = draw.integers(0, 256, (people, 2, SIDE, SIDE))
        blue = np.broadcast_to(draw.integers(60, 196, (SIDE, SIDE)), red.shape)
        images = np.stack([red, green, blue], axis=-1) + draw.normal(0, noise, (people, 2, SIDE, SIDE, 3))
        self.images = np.clip(images, 0, 255).astype(np.uint8).reshape(-1, SIDE, SIDE, 3)
        self.labels = np.arange(people).repeat(2)
        self.names = [str(person) for person in range(people)]
        self.digest, self.warnings = "faces", []

    def __len__(self) -> int:
        return len(self.images)

    def read(self, index: int) -> np.ndarray:
        return self.images[index]

    def sample_name(self, index: int) -> str:
        return f"face {index}"

    def encoded(self, index: int) -> bytes:
        raise NotImplementedError


def probed(embedder: Reds, faces: Faces | None = None) -> Probe:
    faces = faces or Faces()
    return probe_preprocessing(embedder, faces.read, people_by_label(faces.labels))


def test_a_wrong_colour_order_is_found_and_told() -> None:
    found = probed(Reds(Preprocessing.named("half", "bgr", (SIDE, SIDE))))
    assert found.better is not None and (found.better.color, found.in_use.color) == ("rgb", "bgr")
    assert found.better.auc > 0.95 > 0.8 > found.in_use.auc and found.people == PEOPLE
    told = advice(found)
    assert told is not None and told.startswith("rgb ") and "on 40 people" in told
    line = doubt(Reds(), found)
    assert line is not None and line.startswith("reds: rgb ") and ": check --color" in line
    by_file = doubt(replace(Reds(), metadata={"preprocessing_source": "file"}), found)
    assert by_file is not None and by_file.endswith(": though its file says so")


def test_a_wrong_scaling_is_found_and_told() -> None:
    found = probed(Reds(Preprocessing.named("none", size=(SIDE, SIDE))))
    assert found.better is not None and found.better.color == "rgb" and found.better.normalize in ("half", "128")
    assert found.in_use.separation < 0.5 * found.better.separation
    told = advice(found)
    assert told is not None and "fits these faces better than none (AUC" in told and "rgb" not in told
    assert str(doubt(Reds(), found)).endswith(": check --normalize")


def test_every_way_is_tried_and_ranked_once() -> None:
    found = probed(Reds())
    assert [(fit.color, fit.normalize) for fit in found.fits] != sorted((f.color, f.normalize) for f in found.fits)
    assert {(f.color, f.normalize) for f in found.fits} == {(c, n) for c in COLORS for n in NORMALIZATIONS}
    separations = [fit.separation for fit in found.fits]
    assert separations == sorted(separations, reverse=True) and len(found.fits) == len(COLORS) * len(NORMALIZATIONS)


def test_a_right_model_is_never_accused() -> None:
    """Negative control: forty draws of faces, of which any noise that counted would accuse some."""
    for seed in range(40):
        found = probed(Reds(), Faces(seed, noise=60.0))
        assert found.better is None and doubt(Reds(), found) is None, seed


def test_a_model_that_does_not_care_is_never_accused() -> None:
    for seed in range(10):
        for color in COLORS:
            own = Preprocessing.named("half", color, (SIDE, SIDE))
            assert probed(Grey(own), Faces(seed)).better is None


def test_noise_alone_is_no_evidence() -> None:
    """Negative control: embeddings that know nobody, different ones for each way of seeing."""

    @dataclass(frozen=True)
    class Guess(Reds):
        def embed(self, images: Tensor) -> Tensor:
            way = sum(self.preprocessing.mean) + (self.preprocessing.color == "bgr")
            seeds = [int(image.long().sum()) + int(1000 * way) for image in images]
            rows = [np.random.default_rng(seed).normal(size=self.embedding_size) for seed in seeds]
            return torch.from_numpy(np.stack(rows)).float()

    accused = [seed for seed in range(30) if probed(Guess(), Faces(seed)).better is not None]
    assert len(accused) <= 1


@dataclass(frozen=True)
class Bent(Reds):
    """Sees the first channel of an RGB image whichever the order, but bends its values where it is told bgr."""

    power: float = 1.0

    def embed(self, images: Tensor) -> Tensor:
        reds = RGB.apply(images)[:, 0].flatten(1)
        return reds if self.preprocessing.color == "rgb" else reds.sign() * reds.abs() ** self.power


@pytest.mark.parametrize(("power", "told"), [(1.1, False), (1.3, True)])
def test_a_gain_must_be_worth_telling(power: float, told: bool) -> None:
    """Both gains are beyond chance; 1 % is not worth a word, 4 % is."""
    found = probed(Bent(Preprocessing.named("half", "bgr", (SIDE, SIDE)), power=power), Faces(noise=20.0))
    gain = found.fits[0].separation / found.in_use.separation - 1
    assert found.fits[0].color == "rgb" and found.fits[0].chance == 0.0
    assert (found.better is not None) == told and (0.03 < gain < 0.05 if told else 0.005 < gain < 0.015)


def test_figures_are_those_of_plain_loops() -> None:
    faces = Faces(3, people=LEAST_PEOPLE)
    pairs = people_by_label(faces.labels)
    found = probe_preprocessing(Reds(), faces.read, pairs, ways=[])
    embed = {i: Reds().embed(torch.from_numpy(faces.read(i).transpose(2, 0, 1).copy())[None])[0] for i in pairs.ravel()}
    cosine = {(a, b): float(torch.cosine_similarity(embed[a], embed[b], dim=0)) for a in embed for b in embed}
    genuine = [cosine[a, b] for a, b in pairs.tolist()]
    impostor = [cosine[a, d] for a, b in pairs.tolist() for c, d in pairs.tolist() if (a, b) != (c, d)]
    separation = (np.mean(genuine) - np.mean(impostor)) / np.std(impostor)
    assert found.in_use.separation == pytest.approx(separation, rel=1e-4)
    assert found.in_use.auc == pytest.approx(auc(genuine, impostor), abs=1e-9)
    assert found.fits == (found.in_use,) and found.better is None


def test_embeddings_without_a_cosine_separate_nothing() -> None:
    found = probed(Reds(blind=True))
    assert found.better is None and (found.in_use.auc, found.in_use.separation) == (0.5, 0.0)


def test_a_scaling_without_a_name_is_called_its_own() -> None:
    own = Preprocessing("bgr", (10.0, 20.0, 30.0), (100.0, 100.0, 100.0), (SIDE, SIDE))
    found = probed(Reds(own))
    assert found.in_use.normalize == OWN and len(found.fits) == 1 + len(COLORS) * len(NORMALIZATIONS)
    assert advice(found) and "better than bgr with its own scaling" in str(advice(found))


def test_ways_worth_trying_leave_the_twin_out() -> None:
    for normalize in ("half", "128"):
        ways = other_ways(Preprocessing.named(normalize))
        assert len(ways) == 2 * (len(NORMALIZATIONS) - 1) - 1 and len(all_ways(RGB)) == 2 * len(NORMALIZATIONS)


def test_too_few_people_are_refused() -> None:
    faces = Faces(people=LEAST_PEOPLE - 1)
    with pytest.raises(ValueError, match="19 people, fewer than 20"):
        probed(Reds(), faces)
    assert probe_set(Reds(), OpenedSet("few", "all-pairs", faces)) is None


def test_two_images_of_each_person_are_drawn() -> None:
    labels = np.array([4, 9, 9, 4, 7, 4, 2, 2])
    pairs = people_by_label(labels, seed=1)
    assert (labels[pairs[:, 0]] == labels[pairs[:, 1]]).all() and (pairs[:, 0] != pairs[:, 1]).all()
    assert sorted(labels[pairs[:, 0]]) == [2, 4, 9]
    assert len(people_by_label(labels, most=2)) == 2
    assert people_by_label(np.arange(5)).shape == (0, 2)
    assert np.array_equal(people_by_label(labels, seed=5), people_by_label(labels, seed=5))


def verification(subjects: np.ndarray | None) -> OpenedSet:
    pairs = np.array([[0, 1], [1, 0], [2, 2], [0, 2], [4, 5], [5, 6], [7, 8]])
    genuine = np.array([1, 1, 1, 0, 1, 1, 1], bool)
    images = Faces(people=5)
    data = VerificationSet("set", images, pairs, genuine, np.zeros(7, np.int64), subjects, "d")
    return OpenedSet("set", "pairs", data)


def test_pairs_of_a_set_show_different_people() -> None:
    subjects = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3, 4])
    known = people_of_set(verification(subjects))
    assert sorted(subjects[known[:, 0]]) == [0, 2, 3]
    for seed in range(5):
        unknown = people_of_set(verification(None), seed)
        assert len(np.unique(unknown)) == unknown.size and (unknown[:, 0] != unknown[:, 1]).all()


def test_a_set_is_probed_in_its_own_images() -> None:
    faces = Faces()
    wrong = Reds(Preprocessing.named("half", "bgr", (SIDE, SIDE)))
    seen: list[tuple[str, int, int]] = []
    found = probe_set(wrong, OpenedSet("faces", "all-pairs", faces), progress=lambda *told: seen.append(told))
    assert found is not None and found.better is not None and found.better.color == "rgb"
    assert seen[-1] == ("probe", 2 * 2 * PEOPLE, 2 * 2 * PEOPLE)


def test_a_set_is_probed_in_every_way_where_faces_are_told_apart_badly() -> None:
    found = probe_set(Reds(blind=True), OpenedSet("faces", "all-pairs", Faces()))
    assert found is not None and len(found.fits) == 2 * (len(NORMALIZATIONS) - 1)


def test_who_says_its_preprocessing() -> None:
    assert not says_itself(Reds()) and not says_itself(replace(Reds(), metadata={"preprocessing_source": "dialect x"}))
    assert says_itself(replace(Reds(), metadata={"preprocessing_source": "file"}))


@pytest.mark.slow
def test_a_known_model_fits_its_own_preprocessing_best(shared_data) -> None:
    from facekd.engine.evaluation.evaluation_sets import open_set
    from facekd.models.embedder import load_embedder

    opened = open_set(shared_data / "lfw_pairs_test.txt", images=shared_data / "lfw112")
    model = shared_data / "models" / "edgeface_xs_raw_rgb.onnx"
    right = probe_set(load_embedder(model, color="rgb", normalize="none"), opened)
    swapped = probe_set(load_embedder(model, color="bgr", normalize="none"), opened)
    assert right is not None and right.better is None
    assert swapped is not None and swapped.better is not None
    assert (swapped.better.color, swapped.better.normalize) == ("rgb", "none")
