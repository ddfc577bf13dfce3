"""Images brought down and up again: exact where exactness is promised, without detail, the same bits anywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from facekd.data.augment import AugmentSettings
from facekd.data.loading import RememberedImages, TrainingImages, step_data
from facekd.data.resolution import ResolutionSettings, at_resolution, drawn_resolution
from facekd.data.samplers import StepBatches, shuffled

SETTINGS = AugmentSettings(flip=0.5, shift=0.1, color=0.3, mix=0.3)
LOWERED = ResolutionSettings((28, 14, 7), 0.75)


def noise(side: int = 112, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def energy_above(image: np.ndarray, cutoff: float) -> float:
    """Share of the energy, its mean left out, at more than ``cutoff`` cycles an image in either direction."""
    spectrum = np.abs(np.fft.fft2(image.astype(float) - image.mean(axis=(0, 1)), axes=(0, 1))) ** 2
    cycles = np.abs(np.fft.fftfreq(len(image), 1 / len(image)))
    high = np.maximum(cycles[:, None], cycles[None, :]) > cutoff
    return float(spectrum[high].sum() / spectrum.sum())


def test_own_resolution__is_the_identity_itself() -> None:
    image = noise()
    assert at_resolution(image, 112) is image


@pytest.mark.parametrize("side", [56, 28, 14, 13])
def test_lowered__has_hardly_any_energy_above_its_cutoff(side: int) -> None:
    image = noise()
    lowered = at_resolution(image, side)
    assert lowered.shape == image.shape and lowered.dtype == np.uint8
    assert energy_above(image, 0.75 * side) > 0.4 and energy_above(lowered, 0.75 * side) < 0.05
    assert energy_above(image, side / 2) > 0.7 and energy_above(lowered, side / 2) < 0.12  # its own highest frequency
    assert energy_above(lowered, side / 4) > 0.1
    assert abs(lowered.mean() - image.mean()) < 2


def test_lowered__a_pattern_finer_than_its_pixels_leaves_no_alias() -> None:
    stripes = np.zeros((112, 112, 3), np.uint8)
    stripes[:, ::2] = 255
    assert at_resolution(stripes, 14).std() < 1.0
    assert stripes[4::8, 4::8].std() == 0 and stripes[4::8, 4::8].mean() == 255  # points picked would be one alias


def test_lowered__keeps_a_slope_and_is_what_averaging_by_hand_gives() -> None:
    slope = np.repeat((np.arange(112) * 2)[None, :, None], 112, 0).repeat(3, 2).astype(np.uint8)
    lowered = at_resolution(slope, 28)
    assert np.abs(lowered[8:-8, 8:-8].astype(int) - slope[8:-8, 8:-8]).max() <= 1
    image = noise()
    by_hand = image.reshape(28, 4, 28, 4, 3).mean(axis=(1, 3))
    blocks = at_resolution(image, 28).reshape(28, 4, 28, 4, 3)[:, 1:3, :, 1:3].mean(axis=(1, 3))
    assert np.corrcoef(by_hand.ravel(), blocks.ravel())[0, 1] > 0.99


def test_longer_side_counts_and_the_shape_stays() -> None:
    image = noise()[:56]
    assert at_resolution(image, 14).shape == (56, 112, 3) and at_resolution(image, 112) is image
    assert energy_above(at_resolution(image, 14)[:, :56], 14) < 0.02


@pytest.mark.parametrize("side", [0, -3, 113])
def test_side_out_of_range__is_refused(side: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 112"):
        at_resolution(noise(), side)


def test_drawn__is_a_function_of_its_arguments_with_the_stated_share() -> None:
    drawn = [drawn_resolution(LOWERED, 3, epoch, index) for epoch in range(40) for index in range(100)]
    assert drawn == [drawn_resolution(LOWERED, 3, epoch, index) for epoch in range(40) for index in range(100)]
    counts = {side: drawn.count(side) / len(drawn) for side in (None, 28, 14, 7)}
    assert all(abs(share - 0.25) < 0.03 for share in counts.values())
    assert drawn != [drawn_resolution(LOWERED, 4, epoch, index) for epoch in range(40) for index in range(100)]


class Faces:
    """An identity source of noise at 40 pixels."""

    names = ["a", "b"]
    labels = np.arange(12) % 2
    digest = "noise"

    def __len__(self) -> int:
        return 12

    def sample_name(self, index: int) -> str:
        return f"image {index}"

    def read(self, index: int) -> np.ndarray:
        return noise(40, index)


def dataset(resolutions: ResolutionSettings, versions: int | None = None, seed: int = 7) -> TrainingImages:
    source = Faces()
    held = RememberedImages(source, source.read, (40, 40), shared=True)
    return TrainingImages(
        held, source.labels, SETTINGS, seed=seed, size=(40, 40), versions=versions, resolutions=resolutions
    )


def batches(workers: int, first: int = 0) -> list:
    steps = StepBatches(shuffled(12, 4, 7), 3, 7, first, 6)
    return list(step_data(dataset(LOWERED), steps, workers, pin=False))


def test_batches__same_bits_for_0_and_2_workers_and_for_a_later_start() -> None:
    plain, parallel, late = batches(0), batches(2), batches(0, first=4)
    assert all(torch.equal(one.images, other.images) for one, other in zip(plain, parallel, strict=True))
    assert all(torch.equal(one.images, other.images) for one, other in zip(plain[4:], late, strict=True))


@pytest.mark.parametrize("versions", [None, 2])
def test_lowering__comes_last_and_changes_no_other_draw(versions: int | None) -> None:
    sharp, lowered = dataset(ResolutionSettings(), versions), dataset(LOWERED, versions)
    for epoch in range(4):
        for index in range(12):
            image, *told = sharp[(epoch, index)]
            low, *told_low = lowered[(epoch, index)]
            side = drawn_resolution(LOWERED, 7, epoch, index)
            assert told == told_low
            assert np.array_equal(low, image if side is None else at_resolution(image, side))
            assert np.array_equal(lowered.augmented(epoch, index)[0], image)


def test_lowering__to_the_own_size_is_no_change() -> None:
    sharp, same = dataset(ResolutionSettings()), dataset(ResolutionSettings((40,)))
    assert all(np.array_equal(sharp[(0, index)][0], same[(0, index)][0]) for index in range(12))
