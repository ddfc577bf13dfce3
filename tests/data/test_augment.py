"""Augmentation: pure, reproducible, each part what it says, and exact where exactness is promised."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from facekd.data.augment import LUMA, AugmentSettings, augment, blend, color_map

OFF = AugmentSettings(flip=0.0)
FULL = AugmentSettings(0.5, 0.1, 0.1, 15.0, 0.4, 0.2, 0.5, 0.5, 0.5)


def smooth_image(side: int = 112) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    return np.stack([x * 255 // side, y * 255 // side, (x + y) * 255 // (2 * side)], axis=2).astype(np.uint8)


def run(settings: AugmentSettings, seed: int = 0, image: np.ndarray | None = None) -> np.ndarray:
    return augment(smooth_image() if image is None else image, np.random.default_rng(seed), settings)[0]


def test_nothing_switched_on_changes_nothing_and_returns_a_copy():
    image = smooth_image()
    result, flipped = augment(image, np.random.default_rng(0), OFF)
    assert np.array_equal(result, image) and result is not image and not flipped


def test_same_generator_state_same_bits_and_input_untouched():
    image = smooth_image()
    before = image.copy()
    for seed in range(30):
        first, second = run(FULL, seed, image), run(FULL, seed, image)
        assert np.array_equal(first, second)
        assert first.shape == image.shape and first.dtype == np.uint8 and first.flags["C_CONTIGUOUS"]
    assert np.array_equal(image, before)


def test_shapes_other_than_square_survive():
    assert run(FULL, 3, smooth_image(64)[:40]).shape == (40, 64, 3)


def test_flip_is_exact_has_its_probability_and_ignores_the_other_settings():
    image = smooth_image()
    flips = []
    for seed in range(400):
        plain, flipped = augment(image, np.random.default_rng(seed), AugmentSettings())
        assert np.array_equal(plain, image[:, ::-1] if flipped else image)
        assert augment(image, np.random.default_rng(seed), FULL)[1] == flipped
        flips.append(flipped)
    assert 160 <= sum(flips) <= 240


def test_one_setting_does_not_change_the_draws_of_another():
    blurred_alone = run(dataclasses.replace(OFF, blur=1.0), 7)
    with_identity_warp = run(dataclasses.replace(OFF, blur=1.0, rotate=1e-9), 7)
    assert np.array_equal(blurred_alone, with_identity_warp)


def test_shift_moves_by_at_most_its_fraction():
    image = np.zeros((100, 100, 3), np.uint8)
    image[48:52, 48:52] = 255
    distances = []
    for seed in range(100):
        weight = run(dataclasses.replace(OFF, shift=0.1), seed, image)[..., 0].astype(float)
        center = [(weight.sum(1 - axis) * np.arange(100)).sum() / weight.sum() for axis in (0, 1)]
        distances.append(np.abs(np.array(center) - 49.5).max())
    assert 8.5 < max(distances) < 10.2


def test_scale_and_rotation_keep_the_center_and_respect_their_limits():
    y, x = np.mgrid[:101, :101]
    image = np.repeat(((x - 50) ** 2 + (y - 50) ** 2 <= 20**2)[..., None] * np.uint8(255), 3, axis=2)
    areas = [run(dataclasses.replace(OFF, scale=0.2), seed, image).mean() / image.mean() for seed in range(60)]
    assert 0.8**2 - 0.02 < min(areas) < 0.75 and 1.3 < max(areas) < 1.2**2 + 0.02
    for seed in range(10):
        turned = run(dataclasses.replace(OFF, rotate=45.0), seed, image).astype(int)
        assert (np.abs(turned - image) > 200).mean() < 0.01


def test_rotation_reaches_its_angle_and_no_further():
    y, x = np.mgrid[:101, :101]
    bar = np.repeat(((np.abs(y - 50) < 3) & (np.abs(x - 50) < 40))[..., None] * np.uint8(255), 3, axis=2)
    angles = []
    for seed in range(80):
        turned = run(dataclasses.replace(OFF, rotate=20.0), seed, bar)[..., 0]
        rows, columns = np.nonzero(turned > 127)
        angles.append(abs(np.degrees(np.arctan(np.polyfit(columns - 50.0, rows - 50.0, 1)[0]))))
    assert 17 < max(angles) < 20.5


def test_color_equals_the_float_formula_within_a_level():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for seed in range(20):
        draws = np.random.default_rng(seed).random(18)[6:9]
        brightness, contrast, saturation = 1 + 0.4 * (2 * draws - 1)
        wide = image.astype(float)
        luma = wide @ np.array(LUMA)
        mixed = saturation * wide + (1 - saturation) * luma[..., None]
        expected = brightness * (luma.mean() + contrast * (mixed - luma.mean()))
        result = run(dataclasses.replace(OFF, color=0.4), seed, image)
        assert np.abs(result - np.clip(expected, 0, 255)).max() < 1.0


def test_grayscale_makes_channels_equal_to_luma():
    result = run(dataclasses.replace(OFF, grayscale=1.0))
    luma = smooth_image() @ np.array(LUMA)
    assert np.array_equal(result[..., 0], result[..., 2])
    assert np.abs(result[..., 0] - luma).max() <= 0.51


def test_color_map_of_ones_is_the_identity():
    assert np.allclose(color_map(1.0, 1.0, 1.0, 99.0), np.eye(3, 4))


@pytest.mark.parametrize("name", ["blur", "downscale"])
def test_blur_and_downscale_remove_detail_and_keep_the_mean(name):
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    for seed in range(10):
        result = run(dataclasses.replace(OFF, **{name: 1.0}), seed, image)
        assert result.std() < 0.95 * image.std()
        assert abs(result.mean() - image.mean()) < 2


def test_erase_covers_one_rectangle_within_its_limits_with_one_color():
    image = smooth_image()
    for seed in range(40):
        result = run(dataclasses.replace(OFF, erase=1.0), seed, image)
        changed = (result != image).any(axis=2)
        rows, columns = np.nonzero(changed.any(axis=1))[0], np.nonzero(changed.any(axis=0))[0]
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert 10 <= height <= 46 and 10 <= width <= 46
        assert changed.sum() >= 0.9 * height * width
        assert len(np.unique(result[changed], axis=0)) == 1


def test_blend__is_a_mean_in_bounds_or_a_seam_between_the_two() -> None:
    low, high = np.full((60, 40, 3), 10, np.uint8), np.full((60, 40, 3), 210, np.uint8)
    means, seams = 0, 0
    for seed in range(60):
        mixed = blend(low, high, np.random.default_rng(seed))
        values = np.unique(mixed)
        if len(values) == 1:
            means += 1
            assert 10 + 0.3 * 200 - 1 <= values[0] <= 10 + 0.7 * 200 + 1
        else:
            seams += 1
            assert values.tolist() == [10, 210]
            change = np.flatnonzero(np.diff(mixed[:, 0, 0].astype(int)))
            assert len(change) == 1 and 0.4 * 60 <= change[0] + 1 <= 0.67 * 60 + 1
    assert min(means, seams) > 15
