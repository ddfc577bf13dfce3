"""Five landmarks, one similarity, one warp."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facekd.data.align import (
    MAX_SIZE,
    TEMPLATE,
    best_similarity,
    five_points,
    landmark_problem,
    likeness,
    similarity,
    template,
    warp,
)
from facekd.data.synthetic import SyntheticFaces
from facekd.errors import DataError, InputError, UsageError


def umeyama(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama, "Least-squares estimation of transformation parameters between two point patterns", 1991, eq. 38-43."""
    mean_s, mean_t = source.mean(axis=0), target.mean(axis=0)
    s, t = source - mean_s, target - mean_t
    u, d, vt = np.linalg.svd(t.T @ s / len(s))
    sign = np.diag([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ sign @ vt
    scale = np.trace(np.diag(d) @ sign) / (s**2).sum(axis=1).mean()
    return np.column_stack([scale * rotation, mean_t - scale * rotation @ mean_s])


def turned(points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    angle = math.radians(degrees)
    rotation = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return scale * points @ rotation.T + shift


def slow_warp(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Every pixel of the crop looked up in the image by itself, bilinear, zero outside."""
    height, width = image.shape[:2]
    back = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    crop = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            x, y, _ = back @ (column, row, 1)
            x0, y0 = math.floor(x), math.floor(y)
            for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
                if 0 <= x0 + dx < width and 0 <= y0 + dy < height:
                    weight = (1 - abs(x - x0 - dx)) * (1 - abs(y - y0 - dy))
                    crop[row, column] += weight * image[y0 + dy, x0 + dx]
    return crop


def test_the_template_is_the_published_one() -> None:
    expected = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
    assert TEMPLATE.tolist() == [list(point) for point in expected]
    with pytest.raises(ValueError, match="read-only"):
        TEMPLATE[0, 0] = 1.0


def test_multiples_of_112_scale_and_multiples_of_128_also_move_right() -> None:
    np.testing.assert_allclose(template(336), 3 * TEMPLATE)
    np.testing.assert_allclose(template(128), TEMPLATE + (8, 0))
    np.testing.assert_allclose(template(256), 2 * TEMPLATE + (16, 0))
    np.testing.assert_allclose(template(896), 8 * TEMPLATE)  # a multiple of both is one of 112


@pytest.mark.parametrize("size", [-112, 0, 1, 96, 111, 160, 192, MAX_SIZE + 1, 112 * 10, 128 * 9])
def test_another_size_has_no_template(size: int) -> None:
    with pytest.raises(UsageError, match=rf"size: there is no template of {size} pixels \(multiples of 112 or 128"):
        template(size)


@pytest.mark.parametrize("seed", range(20))
def test_the_closed_form_is_umeyamas(seed: int) -> None:
    generator = np.random.default_rng(seed)
    landmarks = turned(TEMPLATE, *generator.uniform(-180, 180, 1), *generator.uniform(0.2, 9, 1), (40.0, -7.0))
    landmarks = landmarks + generator.normal(0, 3, (5, 2))
    size = (112, 128, 224)[seed % 3]
    np.testing.assert_allclose(similarity(landmarks, size), umeyama(landmarks, template(size)), atol=1e-9)


@pytest.mark.parametrize("degrees", [-170.0, -20.0, 0.0, 33.0, 90.0, 180.0])
@pytest.mark.parametrize("scale", [0.1, 1.0, 17.0])
def test_a_known_similarity_is_undone(degrees: float, scale: float) -> None:
    landmarks = turned(TEMPLATE, degrees, scale, (123.0, -45.0))
    matrix = similarity(landmarks)
    np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], TEMPLATE, atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(matrix[:, :2]), scale**-2, rtol=1e-9)


def test_no_other_similarity_fits_better() -> None:
    generator = np.random.default_rng(3)
    landmarks = TEMPLATE + generator.normal(0, 5, (5, 2))
    best = similarity(landmarks)
    least = ((landmarks @ best[:, :2].T + best[:, 2] - TEMPLATE) ** 2).sum()
    for a, b, c, d in generator.normal(0, 1e-3, (200, 4)):
        other = best + np.array([[a, -b, c], [b, a, d]])
        assert ((landmarks @ other[:, :2].T + other[:, 2] - TEMPLATE) ** 2).sum() >= least


def test_mirrored_landmarks_are_never_mirrored_back() -> None:
    mirrored = TEMPLATE * (-1, 1)
    assert np.linalg.det(similarity(mirrored)[:, :2]) > 0
    assert likeness(mirrored) < 0.25


def test_landmarks_on_a_line_are_fine_and_in_one_point_are_not() -> None:
    line = np.stack([np.full(5, 30.0), TEMPLATE[:, 1]], axis=1)
    np.testing.assert_allclose(similarity(line), umeyama(line, TEMPLATE), atol=1e-9)
    assert landmark_problem(line, 112, 112) is None
    for bad in (np.full((5, 2), 30.0), np.full((5, 2), np.nan), TEMPLATE * np.inf):
        with pytest.raises(InputError, match="landmarks: are all one point or not finite"):
            similarity(bad)


def test_best_similarity_takes_any_number_of_points() -> None:
    square = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    a, b = best_similarity(square, turned(square, 30.0, 2.0, (3.0, 4.0)))
    assert abs(a - 2 * np.exp(1j * math.pi / 6)) < 1e-12
    assert abs(b - (3 + 4j)) < 1e-12


def test_sixty_eight_points_become_five() -> None:
    points = np.random.default_rng(0).uniform(0, 100, (68, 2))
    expected = [points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]]
    np.testing.assert_allclose(five_points(points), expected)
    for bad in (np.zeros((4, 2)), np.zeros((5, 3)), np.zeros((67, 2))):
        with pytest.raises(InputError, match="give 5 or 68"):
            five_points(bad)


@pytest.mark.parametrize("size", [112, 128])
def test_the_warp_is_bilinear_with_a_black_border(size: int) -> None:
    image = np.random.default_rng(1).integers(0, 256, (90, 70, 3), np.uint8)
    landmarks = turned(TEMPLATE, 25.0, 0.6, (4.0, -12.0))
    crop = warp(image, landmarks, size)
    expected = slow_warp(image, similarity(landmarks, size), size)
    assert crop.shape == (size, size, 3)
    assert (expected == 0).all(axis=2).sum() > 500
    assert np.abs(crop - expected).max() <= 8  # OpenCV may round positions to 1/32 pixel
    assert np.abs(crop - expected).mean() < 1


def test_a_face_on_the_template_stays_as_it_is() -> None:
    image = SyntheticFaces(identities=1, samples=1).read(0)
    assert np.array_equal(warp(image, TEMPLATE), image)


def test_rendered_faces_are_on_the_template_already() -> None:
    faces = SyntheticFaces(identities=4, samples=5, seed=5)
    for index in range(len(faces)):
        face = faces.face(index)
        matrix = similarity(face.landmarks)
        scale = math.hypot(matrix[0, 0], matrix[1, 0])
        assert abs(scale - 1) < 0.2
        assert abs(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))) < 20
        assert landmark_problem(face.landmarks, 112, 112) is None


@pytest.mark.parametrize(("degrees", "scale"), [(0.0, 2.0), (17.0, 1.5), (-20.0, 2.0), (140.0, 1.3)])
def test_the_crop_does_not_depend_on_where_the_face_was(degrees: float, scale: float) -> None:
    face = SyntheticFaces(identities=3, samples=4, seed=2).face(7)
    straight = warp(face.image, face.landmarks)
    shift = (160 - turned(np.array([[56.0, 56.0]]), degrees, scale, (0.0, 0.0)))[0]
    matrix = np.column_stack([turned(np.eye(2), degrees, scale, (0.0, 0.0)).T, shift])
    photograph = slow_warp(face.image, matrix, 320).round().astype(np.uint8)
    again = warp(photograph, turned(face.landmarks, degrees, scale, (shift[0], shift[1])))
    centre = (slice(12, 100), slice(12, 100))
    difference = np.abs(again[centre].astype(int) - straight[centre])
    assert difference.mean() < 2.5
    elsewhere = warp(photograph, turned(face.landmarks, degrees, scale, (shift[0] + 8, shift[1])))
    assert np.abs(elsewhere[centre].astype(int) - straight[centre]).mean() > 3 * difference.mean()


@pytest.mark.parametrize(
    ("landmarks", "told"),
    [
        (TEMPLATE[:4], "not five finite points"),
        (np.where(TEMPLATE > 90, np.nan, TEMPLATE), "not five finite points"),
        (TEMPLATE - (67, 0), r"point 1, \(-28.7, 51.7\), is far outside the image of 112x100 pixels"),
        (TEMPLATE + (0, 36), r"point 4, \(41.5, 128.4\), is far outside"),
        (TEMPLATE * 0.01 + 50, "within one pixel"),
        (TEMPLATE[[1, 0, 2, 4, 3]], "their order"),
        (TEMPLATE[:, ::-1], "their order"),
    ],
)
def test_what_is_no_face_is_told(landmarks: np.ndarray, told: str) -> None:
    with pytest.raises(AssertionError, match=told):
        raise AssertionError(landmark_problem(landmarks, 100, 112))


def test_landmarks_a_little_outside_and_faces_upside_down_pass() -> None:
    assert landmark_problem(TEMPLATE - (60, 0), 112, 112) is None
    assert landmark_problem(112 - TEMPLATE, 112, 112) is None


def test_an_image_too_wide_for_opencv_is_refused() -> None:
    with pytest.raises(DataError, match="40000x8 pixels cannot be warped"):
        warp(np.zeros((8, 40000, 3), np.uint8), TEMPLATE)
