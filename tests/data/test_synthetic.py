"""Synthetic faces are a function, carry true labels, and are hard for raw pixels."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest

from facekd.data import synthetic_geometry as geometry
from facekd.data.synthetic import QUALITY_FACTORS, SyntheticFaces, contact_sheet, render_face
from facekd.data.synthetic_capture import NUISANCE, OCCLUDERS, Pose, Sensor, draw_capture
from facekd.data.synthetic_degrade import degrade
from facekd.data.synthetic_features import landmarks
from facekd.data.synthetic_geometry import TEMPLATE
from facekd.data.synthetic_identity import BEARDS, HAIR_STYLES, draw_identity
from facekd.data.synthetic_paint import CLASS, PARSING, smooth
from facekd.data.synthetic_render import photograph
from facekd.errors import UsageError

FRONTAL = Pose(yaw=0.0, pitch=0.0, roll=0.0, shift=(0.0, 0.0), zoom=1.0)


def fingerprint(places: list[tuple[int, int, int]]) -> str:
    digest = hashlib.sha256()
    for place in places:
        face = render_face(*place)
        for part in (face.image, face.landmarks, face.parsing):
            digest.update(part.tobytes())
        digest.update(repr(sorted(face.quality.items())).encode())
    return digest.hexdigest()


def raw_pixel_tpr(faces: SyntheticFaces, fpr: float) -> float:
    """TPR of the cosine of mean-subtracted pixels over all pairs, the slow plain way."""
    pixels = np.stack([faces.read(index) for index in range(len(faces))]).reshape(len(faces), -1).astype(np.float32)
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    first, second = np.triu_indices(len(faces), 1)
    scores, same = (pixels @ pixels.T)[first, second], faces.labels[first] == faces.labels[second]
    impostor = np.sort(scores[~same])[::-1]
    return float((scores[same] > impostor[int(fpr * len(impostor))]).mean())


def test_a_face_does_not_depend_on_what_was_drawn_before() -> None:
    alone = render_face(5, 7, 3).image
    draw_identity.cache_clear()
    for other in range(3):
        render_face(5, other, 7)
        render_face(6, 7, 3)
    assert np.array_equal(render_face(5, 7, 3).image, alone)
    assert np.array_equal(SyntheticFaces(4, 5, seed=5, first_identity=6).read(5 + 3), alone)


def test_another_process_draws_the_same_bits() -> None:
    places = [(0, 1, 2), (3, 40, 5), (2**32 - 1, 2**32 - 1, 2**32 - 1)]
    script = (
        "import sys; sys.path.insert(0, 'tests/data')\n"
        f"from test_synthetic import fingerprint\nprint(fingerprint({places!r}))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    assert told.stdout.strip() == fingerprint(places)


def test_seed_identity_and_sample_each_change_the_pixels() -> None:
    faces = [render_face(*place).image for place in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 1, 1)]]
    for a in range(len(faces)):
        for b in range(a):
            assert not np.array_equal(faces[a], faces[b])


def test_a_prefix_of_seed_words_is_another_stream() -> None:
    """SeedSequence pads with zeros: without a tag, identity (s, i) and sample (s, i, 0) would share their numbers."""
    who = draw_identity(3, 4)
    capture = draw_capture(who, 3, 4, 0)
    first = np.random.Generator(np.random.Philox(np.random.SeedSequence([3, 4])))
    assert capture.pose.yaw != pytest.approx(NUISANCE.yaw * first.standard_normal(), abs=1e-9)


@pytest.mark.parametrize("identity", range(12))
def test_a_frontal_face_lies_on_the_template(identity: int) -> None:
    who = draw_identity(1, identity)
    capture = replace(draw_capture(who, 1, identity, 0), pose=FRONTAL)
    _, points, _ = photograph(who, capture)
    assert np.abs(points - TEMPLATE).max() < 4.5
    assert np.linalg.norm(points - TEMPLATE, axis=1).mean() < 3.0


def test_landmarks_stay_inside_and_follow_the_pose() -> None:
    faces = [render_face(0, identity, sample) for identity in range(30) for sample in range(4)]
    points = np.stack([face.landmarks for face in faces])
    assert points.dtype == np.float32
    assert points.min() > 0
    assert points.max() < 111
    nose_offset = points[:, 2, 0] - points[:, :2, 0].mean(axis=1)
    assert np.corrcoef(nose_offset, [face.quality["yaw"] for face in faces])[0, 1] > 0.9
    eyes = points[:, 1] - points[:, 0]
    tilt = np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]))
    assert np.corrcoef(tilt, [face.quality["roll"] for face in faces])[0, 1] > 0.8


def test_landmarks_lie_on_what_they_name() -> None:
    wanted = [("eye",), ("eye",), ("nose",), ("mouth",), ("mouth",)]
    hits, seen = np.zeros(5), 0
    for identity in range(40):
        face = render_face(2, identity, 0)
        if CLASS["occluder"] in face.parsing or CLASS["glasses"] in face.parsing:
            continue
        seen += 1
        for k, (x, y) in enumerate(face.landmarks.round().astype(int)):
            around = face.parsing[max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
            hits[k] += any(CLASS[name] in around for name in wanted[k])
    assert seen > 20
    assert (hits / seen > 0.95).all(), hits / seen


def test_the_pixel_map_inverts_the_projection() -> None:
    """Where a face point lands, the crop shows that face point: forward and inverse are independent code."""
    who = draw_identity(0, 3)
    look = draw_capture(who, 0, 3, 0).expression
    height, points = geometry.relief(who, look), landmarks(who, look)
    for yaw, pitch in ((0.0, 0.0), (20.0, 0.0), (-30.0, 10.0), (35.0, -20.0)):
        projection = geometry.project(height, points, replace(FRONTAL, yaw=yaw, pitch=pitch))
        cells = geometry.inverse_map(height, projection)
        landed = projection.points(points, geometry.height_at(height, points))
        for point, (x, y) in zip(points, landed.round().astype(int), strict=True):
            step = geometry.SPAN / geometry.RELIEF
            seen = geometry.ORIGIN + step * (np.array([cells[0][y, x], cells[1][y, x]]) + 0.5)
            assert np.abs(seen - point).max() < 1.5


def test_parsing_has_every_class_and_no_other() -> None:
    seen = np.unique(np.stack([render_face(0, identity, identity % 5).parsing for identity in range(60)]))
    assert seen.tolist() == list(range(len(PARSING)))


def test_the_face_fills_the_crop_and_the_background_does_not() -> None:
    shares = np.array([np.bincount(render_face(3, k, 1).parsing.ravel(), minlength=13) for k in range(20)]) / 112**2
    assert shares[:, CLASS["background"]].mean() < 0.4
    assert 0.2 < shares[:, CLASS["skin"]].mean() < 0.7


def test_all_styles_and_covers_occur() -> None:
    people = [draw_identity(0, identity) for identity in range(300)]
    assert {who.hair_style for who in people} == set(HAIR_STYLES)
    assert {who.beard for who in people} == set(BEARDS)
    scenes = [draw_capture(who, 0, number, 0).scene for number, who in enumerate(people)]
    assert {scene.occluder for scene in scenes} == set(OCCLUDERS)
    assert 0.03 < np.mean([scene.glasses for scene in scenes]) < 0.5


def sharpness(image: np.ndarray) -> float:
    return float(cv2.Laplacian(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def sensor(blur: float = 0.0, resolution: float = 112.0, noise: float = 0.0) -> Sensor:
    return Sensor(blur=blur, resolution=resolution, noise=noise, jpeg=95, dice=np.array([0.3, 0.6, 0.1]))


@pytest.mark.parametrize("identity", range(4))
def test_each_quality_factor_moves_what_it_names(identity: int) -> None:
    who = draw_identity(0, identity)
    image, _, _ = photograph(who, draw_capture(who, 0, identity, 0))
    blurred = [sharpness(degrade(image, sensor(blur=sigma))) for sigma in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)]
    assert blurred == sorted(blurred, reverse=True)
    shrunk = [sharpness(degrade(image, sensor(resolution=side))) for side in (112.0, 80.0, 56.0, 40.0, 24.0)]
    assert shrunk == sorted(shrunk, reverse=True)
    clean = degrade(image, sensor()).astype(float)
    errors = [float(np.abs(degrade(image, sensor(noise=level)) - clean).mean()) for level in (2.0, 5.0, 10.0, 20.0)]
    assert errors == sorted(errors)


def test_noise_has_the_stated_strength_at_mid_grey() -> None:
    flat = np.full((112, 112, 3), 128.0, np.float32)
    lossless = replace(sensor(noise=6.0), jpeg=100)
    weights = np.array([0.299, 0.587, 0.114])
    luma = degrade(flat, lossless) @ weights
    assert luma.std() == pytest.approx(6.0 * np.linalg.norm(weights), rel=0.06)


def test_reported_quality_agrees_with_the_pixels() -> None:
    faces = [render_face(4, identity, 0) for identity in range(120)]
    assert all(tuple(face.quality) == QUALITY_FACTORS for face in faces)
    quiet = [face for face in faces if face.quality["noise"] < 4 and face.quality["resolution"] == 112]
    blur = np.array([face.quality["blur"] for face in quiet])
    edges = np.log([sharpness(face.image) for face in quiet])
    assert len(quiet) > 25
    assert np.corrcoef(blur.argsort().argsort(), edges.argsort().argsort())[0, 1] < -0.3
    for name, low, high in (("blur", 0, NUISANCE.blur_limit), ("resolution", NUISANCE.lowest_resolution, 112)):
        values = [face.quality[name] for face in faces]
        assert low <= min(values) < max(values) <= high


def test_raw_pixels_do_not_tell_identities_apart() -> None:
    assert raw_pixel_tpr(SyntheticFaces(60, 6, first_identity=10_000), 1e-2) < 0.15


def test_the_source_names_labels_and_bounds() -> None:
    faces = SyntheticFaces(identities=3, samples=2, seed=1, first_identity=12)
    assert faces.names == ["synthetic-000012", "synthetic-000013", "synthetic-000014"] == sorted(faces.names)
    assert faces.labels.dtype == np.int64
    assert faces.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert faces.sample_name(5) == "synthetic-000014/0001"
    assert faces.face(4).identity == 14
    assert np.array_equal(faces.read(4), render_face(1, 14, 0).image)
    for index in (-1, 6):
        with pytest.raises(UsageError, match="no image"):
            faces.read(index)
        with pytest.raises(UsageError, match="no image"):
            faces.sample_name(index)


def test_names_of_a_million_identities_stay_sorted() -> None:
    names = SyntheticFaces(identities=3, samples=1, first_identity=999_998).names
    assert names == sorted(names)
    assert names[0] == "synthetic-0000999998"


def test_the_digest_knows_every_parameter() -> None:
    sources = [SyntheticFaces(2, 2), SyntheticFaces(3, 2), SyntheticFaces(2, 3), SyntheticFaces(2, 2, seed=1)]
    digests = {source.digest for source in [*sources, SyntheticFaces(2, 2, first_identity=1)]}
    assert len(digests) == 5
    assert SyntheticFaces(2, 2).digest == sources[0].digest


@pytest.mark.parametrize(
    ("identities", "samples", "seed", "first", "named"),
    [
        (0, 1, 0, 0, "identities"),
        (1, 0, 0, 0, "samples"),
        (1, 1, -1, 0, "seed"),
        (1, 1, 2**32, 0, "seed"),
        (1, 1, 0, -1, "first_identity"),
        (2, 1, 0, 2**32 - 1, "first_identity"),
    ],
)
def test_a_source_out_of_range_is_refused(identities: int, samples: int, seed: int, first: int, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        SyntheticFaces(identities, samples, seed, first)


@pytest.mark.parametrize("place", [(-1, 0, 0), (0, 2**32, 0), (0, 0, -2)])
def test_a_face_out_of_range_is_refused(place: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="out of range"):
        render_face(*place)


def test_a_contact_sheet_is_the_faces_side_by_side() -> None:
    sheet = contact_sheet([3, 1], 2, seed=9)
    assert sheet.shape == (224, 224, 3)
    assert np.array_equal(sheet[112:, 112:], render_face(9, 1, 1).image)
    with pytest.raises(UsageError):
        contact_sheet([], 2)


def test_a_smooth_curve_passes_through_its_points() -> None:
    points = np.random.default_rng(0).normal(size=(6, 2))
    assert np.allclose(smooth(points, closed=True, steps=4)[::4], points)
    assert np.allclose(smooth(points, closed=False, steps=4)[::4], points)


def test_the_aligning_similarity_is_the_least_squares_one() -> None:
    """Against the same fit posed as a linear system in (a, b, tx, ty)."""
    rng = np.random.default_rng(1)
    source, target = rng.normal(size=(5, 2)), rng.normal(size=(5, 2))
    rows = [[x, -y, 1, 0] for x, y in source] + [[y, x, 0, 1] for x, y in source]
    wanted = np.linalg.lstsq(np.array(rows), np.concatenate([target[:, 0], target[:, 1]]), rcond=None)[0]
    a, b = geometry.best_similarity(source, target)
    assert np.allclose([a.real, a.imag, b.real, b.imag], wanted)
