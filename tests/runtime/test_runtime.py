"""An exported file used without torch gives what the model gives, and decides where it was told to."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from facekd_cli.main import cli
from random_model import save_random_model
from unsealed import save_unsealed

from facekd.data.images import encode_png
from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.engine.parity import probe_images
from facekd.errors import DataError, InputError, UsageError
from facekd.models.embedder import TorchEmbedder, load_embedder
from facekd.runtime import FaceModel, load_model, read_face, similarity

THRESHOLDS = [{"fpr": 1e-3, "cosine": 0.31}, {"fpr": 1e-2, "cosine": 0.25}]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "student.safetensors"
    save_random_model(path)
    return path


@pytest.fixture(scope="module")
def exported(student: Path) -> Path:
    out = student.with_name("student.onnx")
    export_onnx(load_embedder(student), out, opencv=False)
    return out


def calibrated(exported: Path, folder: Path, *, flip: bool = False) -> Path:
    out = folder / "student.onnx"
    out.write_bytes(exported.read_bytes())
    record = {"model_digest": load_model(exported).digest, "flip": flip, "thresholds": THRESHOLDS}
    (folder / "student.onnx.calibration.json").write_text(json.dumps(record))
    return out


def pictures(count: int, seed: int = 5) -> list[np.ndarray]:
    return list(np.ascontiguousarray(probe_images(count, (32, 32), seed=seed).transpose(0, 2, 3, 1)))


@pytest.mark.parametrize("preprocess", ["plain", "baked", "uint8"])
@pytest.mark.parametrize("batch", ["dynamic", 2])
def test_embeddings_are_those_of_the_model(student: Path, preprocess: str, batch: str | int, tmp_path: Path) -> None:
    embedder = load_embedder(student)
    export_onnx(embedder, tmp_path / "a.onnx", Form(preprocess, batch=batch), opencv=False)
    faces = pictures(5)
    images = torch.from_numpy(np.stack(faces).transpose(0, 3, 1, 2).copy())
    for flip in (False, True):
        raw = embedder.embed(images) + (embedder.embed(images.flip(3)) if flip else 0)
        expected = torch.nn.functional.normalize(raw).numpy()
        np.testing.assert_allclose(load_model(tmp_path / "a.onnx").embed(faces, flip=flip), expected, atol=1e-5)


def test_torch_is_never_imported(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode_png(pictures(1)[0]))
    program = (
        "import sys\n"
        "from facekd.runtime import load_model, read_face\n"
        f"model = load_model({str(exported)!r})\n"
        f"face = read_face({str(tmp_path / 'a.png')!r}, model)\n"
        "assert model.embed([face]).shape == (1, 64)\n"
        "sys.exit('torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_cosine_decides_at_a_named_point(exported: Path, tmp_path: Path) -> None:
    model = load_model(calibrated(exported, tmp_path))
    first = np.array([1.0, 0.0])
    at, below = (np.array([c, np.sqrt(1 - c * c)]) for c in (0.31 + 1e-9, 0.3))
    assert similarity(first, at) == pytest.approx(0.31)
    assert [model.is_match(first, other, fpr=1e-3) for other in (at, below)] == [True, False]
    assert model.is_match(first, below, fpr=1e-2) and model.is_match(first, below, threshold=0.0)
    with pytest.raises(InputError, match="has no threshold at FPR 0.0001, only at 0.001, 0.01"):
        model.is_match(first, at, fpr=1e-4)
    for wrong in ({}, {"fpr": 1e-3, "threshold": 0.2}):
        with pytest.raises(UsageError, match="one of the two"):
            model.is_match(first, at, **wrong)


def test_faces_are_mirrored_as_the_thresholds_were_found(exported: Path, tmp_path: Path) -> None:
    model = load_model(calibrated(exported, tmp_path, flip=False))
    faces = pictures(2)
    assert np.array_equal(model.embed(faces), model.embed(faces, flip=False))
    assert not np.allclose(model.embed(faces), model.embed(faces, flip=True))


@pytest.mark.parametrize(
    ("thresholds", "what"),
    [
        ([{"fpr": 1e-3}], "its thresholds cannot be read: KeyError"),
        ([{"fpr": 1e-3, "cosine": "high"}], "its thresholds cannot be read: ValueError"),
        ([{"fpr": 1e-3, "cosine": None}], "its thresholds cannot be read: TypeError"),
        (7, "its thresholds cannot be read: TypeError"),
        ([{"fpr": 1e-3, "cosine": float("nan")}], "holds a threshold that is no number"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_thresholds_that_are_none_are_refused(
    student: Path, exported: Path, thresholds: object, what: str, inside: bool, tmp_path: Path
) -> None:
    told = json.dumps({"thresholds": thresholds, "flip": True})
    if inside:
        embedder = load_embedder(student)
        assert isinstance(embedder, TorchEmbedder)
        embedder = replace(embedder, metadata={**embedder.metadata, "calibration": told})
        out = tmp_path / "student.onnx"
        export_onnx(embedder, out, Form(batch=1), opencv=False)
    else:
        out = calibrated(exported, tmp_path)
        side = tmp_path / "student.onnx.calibration.json"
        side.write_text(json.dumps(json.loads(side.read_text()) | json.loads(told)))
    with pytest.raises(InputError, match=f"student.onnx: {what}") as caught:
        load_model(out)
    assert len(caught.value.lines) == 1


@pytest.mark.parametrize("kind", ["calibration", "manifest"])
def test_what_lies_beside_must_be_of_this_file(exported: Path, kind: str, tmp_path: Path) -> None:
    out = calibrated(exported, tmp_path)
    side = tmp_path / f"student.onnx.{kind}.json"
    side.write_text(json.dumps({"model_digest": "0" * 64, "digest": "0" * 64, "thresholds": [], "flip": True}))
    with pytest.raises(InputError, match=f"{kind}.json: is of another file"):
        load_model(out)
    side.write_text("{")
    with pytest.raises(InputError, match=f"{kind}.json: cannot be read"):
        load_model(out)


def test_wrong_images_are_refused(exported: Path, tmp_path: Path) -> None:
    model = load_model(exported)
    face = pictures(1)[0]
    for image in (face[:16], face.astype(np.float32), face[..., 0]):
        with pytest.raises(InputError, match=r"image 1: is .* takes uint8 \(32, 32, 3\)"):
            model.embed([face, image])
    with pytest.raises(InputError, match="none given"):
        model.embed([])


def test_a_file_that_does_not_say_what_it_takes_is_refused(tmp_path: Path, exported: Path) -> None:
    import onnx

    model = onnx.load(exported)
    del model.metadata_props[:]
    save_unsealed(model, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="does not say what it expects .*facekd export"):
        load_model(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="b.onnx: cannot be read: No such file"):
        load_model(tmp_path / "b.onnx")


def match(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["match", *(str(argument) for argument in arguments)])


@pytest.fixture
def gallery(tmp_path: Path) -> Path:
    for number, face in enumerate(pictures(6)):
        folder = tmp_path / "gallery" / f"p{number // 2}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(encode_png(face))
    return tmp_path / "gallery"


def test_two_faces_on_the_command_line(exported: Path, gallery: Path, tmp_path: Path) -> None:
    model = calibrated(exported, tmp_path)
    pair = [gallery / "p0" / name for name in ("0.png", "1.png")]
    loaded = load_model(model)
    first, second = loaded.embed([read_face(path, loaded) for path in pair])
    told = match(*pair, "--model", model, "--fpr", "1e-2", "--json", "-")
    assert told.exit_code == 0, told.output
    record = json.loads(told.stdout)
    assert record["similarity"] == pytest.approx(similarity(first, second))
    assert (record["threshold"], record["match"]) == (0.25, record["similarity"] >= 0.25)
    same = match(pair[0], pair[0], "--model", model)
    assert "similarity 1.0000" in same.stdout and "match" not in same.stdout


def test_a_gallery_is_ranked_by_its_best_image(exported: Path, gallery: Path, tmp_path: Path) -> None:
    told = match(
        gallery / "p1" / "3.png", gallery, "--model", exported, "--top", "2", "--threshold", "0.99", "--json", "-"
    )
    assert told.exit_code == 0, told.output
    ranking = json.loads(told.stdout)["ranking"]
    assert [entry["rank"] for entry in ranking] == [1, 2]
    assert ranking[0]["identity"] == "p1" and ranking[0]["image"].endswith("3.png") and ranking[0]["match"]
    assert ranking[0]["similarity"] == pytest.approx(1.0) and ranking[1]["identity"] != "p1"


def test_refusals_of_the_command(exported: Path, gallery: Path, tmp_path: Path) -> None:
    face = gallery / "p0" / "0.png"
    (tmp_path / "large.png").write_bytes(encode_png(np.zeros((50, 60, 3), np.uint8)))
    for words, code, line in (
        ([face, tmp_path / "none.png", "--model", exported], 2, "none.png: no such file"),
        ([face, face, "--model", exported, "--fpr", "1e-3"], 2, "has no threshold at FPR 0.001"),
        ([face, face, "--model", exported, "--fpr", "1e-3", "--threshold", "0.1"], 2, "one of the two"),
        ([face, face, "--model", exported, "--detector", face], 2, "0.png"),
    ):
        told = match(*words)
        assert told.exit_code == code and line in told.stderr, told.output
        assert len(told.stderr.splitlines()) == 1


def test_a_picture_of_another_cut_is_refused_without_a_detector(exported: Path, tmp_path: Path) -> None:
    loaded = load_model(exported)
    wide = FaceModel(**{**vars(loaded), "preprocessing": type(loaded.preprocessing).named("half", size=(112, 112))})
    (tmp_path / "large.png").write_bytes(encode_png(np.zeros((50, 60, 3), np.uint8)))
    with pytest.raises(DataError, match=r"large.png: 60x50 pixels, .* 112x112 \(--detector"):
        read_face(tmp_path / "large.png", wide)


@pytest.mark.slow
def test_real_faces_found_by_a_real_detector(shared_data: Path, tmp_path: Path) -> None:
    """The same person is more alike than another, found and aligned by YuNet in enlarged crops."""
    source = load_embedder(shared_data / "models" / "edgeface_xs_raw_rgb.onnx", color="rgb", normalize="none")
    export_onnx(source, tmp_path / "teacher.onnx", Form("uint8"), opencv=False)
    people = sorted(path for path in (shared_data / "lfw112").iterdir() if len(list(path.iterdir())) > 1)[:2]
    first, again, other = (sorted(people[p].iterdir())[i] for p, i in ((0, 0), (0, 1), (1, 0)))
    detector = shared_data / "models" / "yunet.onnx"
    scores = []
    for pair in ((first, again), (first, other)):
        told = match(*pair, "--model", tmp_path / "teacher.onnx", "--detector", detector, "--json", "-")
        assert told.exit_code == 0, told.output
        scores.append(json.loads(told.stdout)["similarity"])
    assert scores[0] > 0.4 > 0.2 > scores[1]
