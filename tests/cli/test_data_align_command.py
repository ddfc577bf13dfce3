"""``facekd data align``: options, what is said, exit codes, signals, and real faces found again."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from facekd_cli.main import cli

from facekd.data.align import TEMPLATE, similarity, warp_affine
from facekd.data.detect import load_detector
from facekd.data.image_folder import ImageFolder
from facekd.data.images import decode, encode_jpeg, encode_png, read_bytes, to_chw
from facekd.data.open_source import open_identities
from facekd.data.synthetic import SyntheticFaces
from facekd.engine.sets import alignment
from facekd.engine.sets.landmark_finding import DetectedLandmarks
from facekd.engine.sets.synthesis import write_faces
from facekd.errors import FacekdError


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(cli, ["data", "align", *(str(word) for word in words)])


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two drawn people of two images with ``faces/faces.csv``; the test runs beside them."""
    write_faces(tmp_path / "faces", SyntheticFaces(identities=2, samples=2, seed=3))
    monkeypatch.chdir(tmp_path)
    return Path("faces")


def test_a_folder_with_landmarks_becomes_aligned_faces(faces: Path) -> None:
    result = run(faces, "out", "--landmarks", faces / "faces.csv", "--size", "224", "--png")
    assert result.exit_code == 0, result.output
    assert result.output == "wrote 4 aligned faces of 4 images to out\n"
    assert ImageFolder(Path("out")).read(3).shape == (224, 224, 3)
    assert json.loads(Path("out/alignment.json").read_text())["size"] == 224


def test_a_list_takes_its_images_from_their_root(faces: Path) -> None:
    Path("list.csv").write_text("path,identity\nsynthetic-000000/0000.png,ann\nsynthetic-000001/0001.png,bob\n")
    result = run("list.csv", "out", "--images", faces, "--landmarks", faces / "faces.csv")
    assert result.exit_code == 0, result.output
    assert "2 lines are of no image here and not used" in result.output
    assert ImageFolder(Path("out")).names == ["ann", "bob"]
    assert Path("out/ann/synthetic-000000_0000.jpg").is_file()


def test_images_in_a_pack_have_landmarks_by_their_names_there(faces: Path) -> None:
    Path("packed").mkdir()
    packed = CliRunner().invoke(cli, ["data", "pack", "faces", "-o", "packed/train.rec"])
    assert packed.exit_code == 0, packed.output
    names = [open_identities(Path("packed")).sample_name(index) for index in range(4)]
    rows = (faces / "faces.csv").read_text().splitlines()[1:]
    lines = [",".join([name, *row.split(",")[2:12]]) for name, row in zip(names, rows, strict=True)]
    Path("points.csv").write_text("\n".join(lines))
    result = run("packed", "out", "--landmarks", "points.csv", "--png")
    assert result.exit_code == 0, result.output
    assert run(faces, "again", "--landmarks", faces / "faces.csv", "--png").exit_code == 0
    from_pack, from_folder = ImageFolder(Path("out")), ImageFolder(Path("again"))
    assert from_pack.names == from_folder.names
    assert all(np.array_equal(from_pack.read(index), from_folder.read(index)) for index in range(4))


@pytest.mark.parametrize(("missing", "code"), [("refuse", 3), ("list", 0)])
def test_images_without_a_face_decide_the_exit_code(faces: Path, missing: str, code: int) -> None:
    (faces / "synthetic-000001" / "0001.png").write_bytes(b"<html>")
    result = run(faces, "out", "--landmarks", faces / "faces.csv", "--missing", missing)
    assert result.exit_code == code
    assert "wrote 3 aligned faces of 4 images to out" in result.output
    told = "out/failed.csv: 1 of 4 images have no aligned face: synthetic-000001/0001.png: not an image"
    assert f"facekd: {'error' if code else 'warning'}: {told}" in result.output
    assert Path("out/failed.csv").read_text().startswith("path,identity,reason\nsynthetic-000001/0001.png,")


def test_landmarks_that_lack_images_are_refused_or_listed(faces: Path) -> None:
    lines = (faces / "faces.csv").read_text().splitlines()
    Path("points.csv").write_text("\n".join(lines[:2]))
    refused = run(faces, "out", "--landmarks", "points.csv")
    assert refused.exit_code == 2
    assert refused.output == (
        "facekd: error: points.csv: 3 of 4 images have no landmarks: 'synthetic-000000/0001.png', "
        "'synthetic-000001/0000.png', 'synthetic-000001/0001.png' "
        "(list every image, by its path below the image root)\n"
    )
    assert not Path("out").exists()
    result = run(faces, "out", "--landmarks", "points.csv", "--missing", "list")
    assert result.exit_code == 0
    assert "1 identities have no image left, the first is 'synthetic-000001'" in result.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["faces", "out"], "one source of landmarks is needed"),
        (["faces", "out", "--landmarks", "faces/faces.csv", "--detector", "d.onnx"], "one source of landmarks"),
        (["faces", "out", "--landmarks", "faces/faces.csv", "--center"], "--center chooses among faces of a detector"),
        (["faces", "out", "--landmarks", "none.csv"], "none.csv: no such file"),
        (["faces", "out", "--detector", "none.onnx"], "none.onnx: no such file"),
        (["faces", "out", "--detector", "faces/faces.csv"], "faces.csv: OpenCV cannot run it"),
        (["faces", "out", "--landmarks", "faces/faces.csv", "--size", "96"], "there is no template of 96 pixels"),
        (["faces", "faces", "--landmarks", "faces/faces.csv"], "faces: is not empty"),
        (["faces", "none/out", "--landmarks", "faces/faces.csv"], "is not a folder"),
        (["none", "out", "--landmarks", "faces/faces.csv"], "none: no such file"),
        (["faces", "out", "--landmarks", "faces/faces.csv", "--missing", "skip"], "--missing"),
    ],
)
def test_what_cannot_be_aligned_is_refused(faces: Path, words: list[str], told: str) -> None:
    before = sorted(Path().rglob("*"))
    result = run(*words)
    assert result.exit_code == 2
    assert told in result.output
    assert result.output.startswith("facekd: error: ")
    assert result.output.count("\n") == 1
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_it_and_the_same_command_goes_on(
    faces: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: int
) -> None:
    warped: list[tuple[int, ...]] = []
    genuine = alignment.warp

    def signalled(image: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
        warped.append(image.shape)
        if len(warped) == 2:
            signal.raise_signal(number)
        return genuine(image, landmarks, size)

    monkeypatch.setattr(alignment, "warp", signalled)
    words = (faces, "out", "--landmarks", faces / "faces.csv")
    stopped = run(*words)
    assert stopped.exit_code == code
    assert stopped.output == ("facekd: error: facekd data align: stopped; the same command goes on from out.partial\n")
    assert not Path("out").exists()
    other = run(*words, "--png")
    assert other.exit_code == 2
    assert "out.partial: was begun with other options or images: encoding" in other.output
    assert run(*words).exit_code == 0
    assert len(warped) == 4
    assert len(ImageFolder(Path("out"))) == 4
    assert not Path("out.partial").exists()


def test_help_shows_an_example_that_parses(faces: Path) -> None:
    result = CliRunner().invoke(cli, ["data", "align", "-h"])
    assert result.exit_code == 0
    for word in ("--landmarks", "--detector", "yunet.onnx", "EXIF", "failed.csv"):
        assert word in result.output


def in_a_larger_picture(crop: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The crop turned by up to 20 degrees, scaled 0.7 to 2 and set on gray; and its similarity (2, 3)."""
    angle, scale = math.radians(generator.uniform(-20, 20)), generator.uniform(0.7, 2)
    turn = scale * np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    matrix = np.column_stack([turn, generator.uniform(180, 220, 2) - turn @ (55.5, 55.5)])
    side = 400
    inside = warp_affine(np.full_like(crop, 255), matrix, side)[..., :1] / 255
    picture = inside * warp_affine(crop, matrix, side) + (1 - inside) * 120
    return decode(encode_jpeg(picture.round().astype(np.uint8), 95), "picture"), matrix


@pytest.mark.slow
def test_real_faces_are_found_in_larger_pictures_and_laid_back(shared_data: Path, tmp_path: Path) -> None:
    from facekd.models.embedder import load_embedder

    generator = np.random.default_rng(7)
    people = sorted((shared_data / "lfw112").iterdir())
    chosen = [people[int(k)] for k in generator.choice(len(people), 30, replace=False)]
    crops, matrices = [], []
    for person in chosen:
        crop = decode(read_bytes(sorted(person.iterdir())[0]), person.name)
        picture, matrix = in_a_larger_picture(crop, generator)
        (tmp_path / "photos" / person.name).mkdir(parents=True)
        (tmp_path / "photos" / person.name / "1.png").write_bytes(encode_png(picture))
        crops.append(crop)
        matrices.append(matrix)
    model = shared_data / "models" / "yunet.onnx"
    result = run(tmp_path / "photos", tmp_path / "out", "--detector", model)
    assert result.exit_code == 0, result.output
    photographs, aligned = ImageFolder(tmp_path / "photos"), ImageFolder(tmp_path / "out")
    assert len(aligned) == 30
    order = [sorted(person.name for person in chosen).index(person.name) for person in chosen]
    embedder = load_embedder(shared_data / "models" / "edgeface_xs_raw_rgb.onnx", color="rgb", normalize="none")

    def embeddings(images: list[np.ndarray]) -> np.ndarray:
        import torch

        found = embedder.embed(torch.from_numpy(np.stack([to_chw(image) for image in images]))).numpy()
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    cosines = (embeddings(crops) * embeddings([aligned.read(place) for place in order])).sum(axis=1)
    assert np.mean(cosines) > 0.94
    assert np.min(cosines) > 0.8
    finder, errors, shifts = DetectedLandmarks(load_detector(model)), [], []
    for place, matrix in zip(order, matrices, strict=True):
        landmarks = finder.find("picture", photographs.read(place)).landmarks
        in_crop = (landmarks - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
        errors.append(np.linalg.norm(in_crop - TEMPLATE, axis=1).mean())
        back = similarity(landmarks)
        there = (TEMPLATE @ matrix[:, :2].T + matrix[:, 2]) @ back[:, :2].T + back[:, 2]
        shifts.append(np.linalg.norm(there - TEMPLATE, axis=1).mean())
    assert np.mean(errors) < 4.5  # pixels of the 112x112 crop; real faces do not have the template's shape
    assert np.mean(shifts) < 3


@pytest.mark.slow
def test_a_picture_without_a_person_has_no_face(shared_data: Path) -> None:
    from sklearn.datasets import load_sample_image

    finder = DetectedLandmarks(load_detector(shared_data / "models" / "yunet.onnx"))
    for name in ("china.jpg", "flower.jpg"):
        with pytest.raises(FacekdError, match=f"{name}: no face found"):
            finder.find(name, load_sample_image(name))
