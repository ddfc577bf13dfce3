"""Figures and limits of the parity gate, on numbers one can do in the head."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facekd.engine.parity import MAX_RELATIVE, MIN_COSINE, compare, probe_images


def test_equal_embeddings_pass_with_zeros() -> None:
    embeddings = np.array([[3.0, 4.0], [-1.0, 0.0]], np.float32)
    check = compare("here", embeddings, embeddings.copy())
    assert (check.batch, check.max_abs, check.max_relative, check.min_cosine) == (2, 0.0, 0.0, 1.0)
    assert check.passed


def test_the_difference_is_relative_to_the_largest_magnitude() -> None:
    expected = np.array([[-100.0, 0.0]])
    within, beyond = expected + [0.0, 0.9e-2], expected + [0.0, 1.1e-2]
    assert compare("here", expected, within).max_relative == pytest.approx(0.9e-4)
    assert compare("here", expected, within).passed
    assert not compare("here", expected, beyond).passed


def test_one_turned_image_fails_by_its_cosine() -> None:
    angle = 1.1 * math.acos(MIN_COSINE)
    expected = np.array([[1e3, 0.0], [1e-2, 0.0]])
    actual = np.array([[1e3, 0.0], [1e-2 * math.cos(angle), 1e-2 * math.sin(angle)]])
    check = compare("here", expected, actual)
    assert check.max_relative < MAX_RELATIVE
    assert check.min_cosine == pytest.approx(math.cos(angle), abs=1e-12)
    assert check.mean_cosine == pytest.approx((1 + math.cos(angle)) / 2, abs=1e-12)
    assert not check.passed


@pytest.mark.parametrize(
    "actual",
    [
        np.array([[np.nan, 4.0]]),
        np.array([[np.inf, 4.0]]),
        np.array([[3.0, 4.0, 0.0]]),
        np.array([3.0, 4.0]),
        np.array([[0.0, 0.0]]),
    ],
)
def test_nothing_to_compare_never_passes(actual: np.ndarray) -> None:
    assert not compare("here", np.array([[3.0, 4.0]]), actual).passed


def test_a_model_that_gives_nan_never_passes() -> None:
    assert not compare("here", np.array([[np.nan]]), np.array([[np.nan]])).passed


def test_probe_images_are_smooth_coloured_and_use_the_whole_range() -> None:
    images = probe_images(4, (112, 96)).astype(np.int64)
    assert images.shape == (4, 3, 112, 96)
    assert images.min() == 0 and images.max() == 255
    assert np.abs(np.diff(images, axis=3)).mean() < 0.3 * images.std()
    assert np.abs(images[:, 0] - images[:, 2]).mean() > 20
    assert len({image.tobytes() for image in images}) == 4
    assert (probe_images(1, (8, 8), seed=1) != probe_images(1, (8, 8), seed=2)).any()
