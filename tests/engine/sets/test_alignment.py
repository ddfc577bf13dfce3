"""Photographs become a folder of aligned crops, whole, and goes on where it stopped."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from facekd.data.align import TEMPLATE, similarity, warp_affine
from facekd.data.faces import Face
from facekd.data.image_folder import ImageFolder
from facekd.data.image_list import ImageList
from facekd.data.images import encode_png
from facekd.data.photographs import PhotographFolder, open_photographs
from facekd.data.synthetic import render_face
from facekd.engine.sets import alignment
from facekd.engine.sets.alignment import align_photographs, crop_names
from facekd.engine.sets.landmark_finding import DetectedLandmarks, Finder, Found, listed_landmarks
from facekd.engine.sets.synthesis import csv_header
from facekd.errors import DataError, DeviceError, InputError, Interrupted, UsageError

PLACE = np.array([[1.7, -0.4], [0.4, 1.7]])
SHIFT = np.array([60.0, 20.0])


def photograph(face: np.ndarray) -> np.ndarray:
    """A face turned, enlarged and moved into a larger picture."""
    return warp_affine(face, np.column_stack([PLACE, SHIFT]), 300)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, three photographs each, and ``points.csv`` with their landmarks."""
    root = tmp_path_factory.mktemp("photographs")
    with open(root / "points.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(csv_header()[:12])
        for person in range(2):
            (root / f"p{person}").mkdir()
            for sample in range(3):
                face, name = render_face(1, person, sample), f"p{person}/{sample}.png"
                (root / name).write_bytes(encode_png(photograph(face.image)))
                rows.writerow([name, f"p{person}", *(face.landmarks @ PLACE.T + SHIFT).ravel().tolist()])
    return root


def listed(root: Path, complete: bool = True) -> tuple[ImageFolder, Finder]:
    source = ImageFolder(root)
    return source, listed_landmarks(root / "points.csv", source, complete=complete)[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_crops_show_the_faces_that_were_photographed(photographs: Path, tmp_path: Path) -> None:
    out = tmp_path / "faces"
    done = align_photographs(out, *listed(photographs), png=True)
    assert (done.aligned, done.failed, done.several, done.emptied) == (6, 0, 0, [])
    assert sorted(contents(out)) == [
        "alignment.json", "landmarks.csv", *(f"p{person}/{sample}.png" for person in range(2) for sample in range(3))
    ]  # fmt: skip
    assert [path.name for path in tmp_path.iterdir()] == ["faces"]
    folder = ImageFolder(out)
    for index in range(6):
        face = render_face(1, index // 3, index % 3)
        straight = warp_affine(face.image, similarity(face.landmarks), 112)
        difference = np.abs(folder.read(index).astype(int) - straight)[16:96, 16:96]
        assert difference.mean() < 3


def test_jpeg_of_another_size_is_the_same_picture(photographs: Path, tmp_path: Path) -> None:
    align_photographs(tmp_path / "a", *listed(photographs), size=128)
    align_photographs(tmp_path / "b", *listed(photographs), size=128, png=True)
    jpeg, png = ImageFolder(tmp_path / "a"), ImageFolder(tmp_path / "b")
    assert (tmp_path / "a" / "p1" / "2.jpg").read_bytes()[:3] == b"\xff\xd8\xff"
    assert jpeg.read(5).shape == (128, 128, 3)
    assert 0 < np.abs(jpeg.read(5).astype(int) - png.read(5)).mean() < 4


def test_the_record_names_what_the_crops_depend_on(photographs: Path, tmp_path: Path) -> None:
    source, finder = listed(photographs)
    align_photographs(tmp_path / "faces", source, finder, size=224)
    record = json.loads((tmp_path / "faces" / "alignment.json").read_text())
    assert record["template"][0] == [76.5892, 103.3926]
    assert (record["aligner"], record["size"], record["encoding"]) == (1, 224, "jpeg 95")
    assert (record["landmarks"], record["layout"]) == ("file", "5 points")
    assert record["landmarks_digest"] == finder.record["landmarks_digest"]
    assert (record["source_digest"], record["images"], record["aligned"], record["failed"]) == (source.digest, 6, 6, 0)
    assert {"transform", "opencv", "facekd"} <= record.keys()


def test_what_was_used_gives_the_same_crops_again(photographs: Path, tmp_path: Path) -> None:
    source = ImageFolder(photographs)
    found = DetectedLandmarks(Scripted([face_at((40, 40), score=0.75)]))
    align_photographs(tmp_path / "a", source, found)
    finder, warnings = listed_landmarks(tmp_path / "a" / "landmarks.csv", source, complete=True)
    align_photographs(tmp_path / "b", source, finder)
    assert warnings == []
    first, second = contents(tmp_path / "a"), contents(tmp_path / "b")
    crops = [name for name in first if name.endswith(".jpg")]
    assert len(crops) == 6
    assert all(first[name] == second[name] for name in crops)
    rows = rows_of(tmp_path / "a" / "landmarks.csv")
    assert rows[3]["path"] == "p1/0.png"
    assert (rows[3]["aligned"], rows[3]["identity"]) == ("p1/0.jpg", "p1")
    assert (rows[3]["score"], rows[3]["faces"]) == ("0.75", "1")
    assert len(ImageList(tmp_path / "a" / "landmarks.csv", photographs)) == 6


@dataclass(frozen=True)
class Scripted:
    """A detector that sees the same faces in every image, and none in dark ones."""

    faces: list[Face]
    kind: str = "scripted"
    digest: str = "0" * 64

    def detect(self, image: np.ndarray) -> list[Face]:
        return self.faces if image.any() else []

    def refined(self, image: np.ndarray, face: Face) -> Face:
        return Face(face.box, face.score, face.landmarks + 1 / 3)


def face_at(corner: tuple[float, float], scale: float = 1.0, score: float = 0.9) -> Face:
    return Face(np.array([*corner, 112 * scale, 112 * scale]), score, scale * TEMPLATE + corner)


@pytest.mark.parametrize(("choice", "corner"), [("largest", (0.0, 0.0)), ("center", (120.0, 110.0))])
def test_one_of_several_faces_is_taken_and_looked_at_again(choice: str, corner: tuple[float, float]) -> None:
    finder = DetectedLandmarks(Scripted([face_at((0.0, 0.0), 1.2), face_at((120.0, 110.0), 0.5)]), choice)
    found = finder.find("a.jpg", np.ones((300, 300, 3), np.uint8))
    scale = 1.2 if choice == "largest" else 0.5
    np.testing.assert_array_equal(found.landmarks, np.round(scale * TEMPLATE + corner + 1 / 3, 3))
    assert (found.score, found.faces) == (0.9, 2)
    assert finder.record == {
        "landmarks": "detector", "detector": "scripted", "detector_digest": "0" * 64, "choice": choice
    }  # fmt: skip


def test_landmarks_of_a_detector_that_are_no_face_are_none() -> None:
    odd = Face(np.array([0.0, 0.0, 90.0, 90.0]), 0.9, TEMPLATE[:, ::-1].copy())
    with pytest.raises(DataError, match=r"a.jpg: a face was found, but the points do not lie like a face"):
        DetectedLandmarks(Scripted([odd])).find("a.jpg", np.ones((120, 120, 3), np.uint8))


def test_images_without_a_face_are_counted_and_listed(tmp_path: Path) -> None:
    light, dark = (encode_png(np.full((200, 200, 3), value, np.uint8)) for value in (90, 0))
    contents_of = {"ann/1.png": light, "ann/2.png": dark, "ann/3.png": light[:-40], "bob/1.png": dark}
    for name, data in contents_of.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    finder = DetectedLandmarks(Scripted([face_at((9, 9)), face_at((40, 40))]))
    done = align_photographs(tmp_path / "out", ImageFolder(tmp_path / "in"), finder)
    assert (done.aligned, done.several, done.failed, done.emptied) == (1, 1, 3, ["bob"])
    assert done.reasons[0] == "ann/2.png: no face found"
    failed = rows_of(tmp_path / "out" / "failed.csv")
    assert [row["path"] for row in failed] == ["ann/2.png", "ann/3.png", "bob/1.png"]
    assert failed[1]["reason"].startswith("cut short or damaged")
    assert failed[2] == {"path": "bob/1.png", "identity": "bob", "reason": "no face found"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "alignment.json", "ann", "failed.csv", "landmarks.csv"
    ]  # fmt: skip


def test_no_face_at_all_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(encode_png(np.zeros((50, 50, 3), np.uint8)))
    source = PhotographFolder(tmp_path / "in")
    with pytest.raises(DataError, match="none of 1 images could be aligned: a.png: no face found"):
        align_photographs(tmp_path / "out", source, DetectedLandmarks(Scripted([])))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_photographs_of_nobody_lie_in_the_folder_itself(photographs: Path, tmp_path: Path) -> None:
    source = open_photographs(photographs / "p0")
    align_photographs(tmp_path / "out", source, DetectedLandmarks(Scripted([face_at((40, 40))])))
    assert sorted(contents(tmp_path / "out")) == ["0.jpg", "1.jpg", "2.jpg", "alignment.json", "landmarks.csv"]


@dataclass
class Counting:
    """Landmarks from a file, and how often they were asked for."""

    finder: Finder
    asked: list[str] = field(default_factory=list)

    @property
    def record(self) -> dict[str, object]:
        return self.finder.record

    def find(self, name: str, image: np.ndarray) -> Found:
        self.asked.append(name)
        return self.finder.find(name, image)


@dataclass
class StopAfter:
    """Asks the work to stop after some images, once."""

    images: int

    def __call__(self) -> None:
        self.images -= 1
        if self.images == -1:
            raise Interrupted(15, "align", "stopped")


def test_a_stopped_alignment_goes_on_and_ends_with_the_same_bytes(photographs: Path, tmp_path: Path) -> None:
    source, finder = listed(photographs)
    align_photographs(tmp_path / "whole", source, finder)
    counting, out = Counting(finder), tmp_path / "out"
    with pytest.raises(Interrupted):
        align_photographs(out, source, counting, poll=StopAfter(4))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial", "whole"]
    told: list[tuple[str, int, int]] = []
    done = align_photographs(out, source, counting, progress=lambda *told_now: told.append(told_now))
    assert (done.aligned, told) == (6, [("align", 5, 6), ("align", 6, 6)])
    assert counting.asked == [source.sample_name(index) for index in range(6)]
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut line", "half an image", "no image", "no journal"])
def test_what_a_crash_left_half_done_is_done_again(photographs: Path, tmp_path: Path, damage: str) -> None:
    source, finder = listed(photographs)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    with pytest.raises(Interrupted):
        align_photographs(out, source, finder, poll=StopAfter(4))
    journal, image = partial / ".journal.jsonl", partial / "p0" / "2.jpg"
    if damage == "cut line":
        journal.write_bytes(journal.read_bytes()[:-20])
    elif damage == "half an image":
        image.write_bytes(image.read_bytes()[:100])
    elif damage == "no image":
        image.unlink()
    else:
        journal.unlink()
    counting = Counting(finder)
    align_photographs(out, source, counting)
    begin = {"cut line": 3, "no journal": 0}.get(damage, 2)
    assert counting.asked == [source.sample_name(index) for index in range(begin, 6)]
    align_photographs(tmp_path / "whole", source, finder)
    assert contents(out) == contents(tmp_path / "whole")


def test_only_the_same_alignment_goes_on(photographs: Path, tmp_path: Path) -> None:
    source, finder = listed(photographs)
    out = tmp_path / "out"
    with pytest.raises(Interrupted):
        align_photographs(out, source, finder, poll=StopAfter(2))
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"out.partial: was begun with other options or images: encoding \(repeat"):
        align_photographs(out, source, finder, png=True)
    with pytest.raises(UsageError, match="other options or images: size, template"):
        align_photographs(out, source, finder, size=128)
    with pytest.raises(UsageError, match="choice, detector, detector_digest, landmarks, landmarks_digest, layout"):
        align_photographs(out, source, DetectedLandmarks(Scripted([])))
    assert contents(tmp_path) == before


def test_a_folder_in_the_way_is_left_alone(photographs: Path, tmp_path: Path) -> None:
    for name in ("full", "out.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("kept")
    before = contents(tmp_path)
    for name, told in (("full", "is not empty"), ("out", "is in the way"), ("none/out", "is not a folder")):
        with pytest.raises(UsageError, match=told):
            align_photographs(tmp_path / name, *listed(photographs))
    with pytest.raises(UsageError, match="there is no template of 100 pixels"):
        align_photographs(tmp_path / "new", *listed(photographs), size=100)
    assert contents(tmp_path) == before


def test_a_full_disk_keeps_what_is_done(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, finder = listed(photographs)

    def refuse(image: np.ndarray, quality: int) -> bytes:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(alignment, "encode_jpeg", refuse)
        with pytest.raises(DeviceError, match=r"No space left on device \(free some space"):
            align_photographs(tmp_path / "out", source, finder)
    assert align_photographs(tmp_path / "out", source, finder).aligned == 6


def lists_of(folder: Path, rows: list[tuple[str, str]]) -> ImageList:
    for path, _ in rows:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")
    with open(folder / "list.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([("path", "identity"), *rows])
    return ImageList(folder / "list.csv")


def test_no_two_crops_share_a_name(tmp_path: Path) -> None:
    rows = [
        ("x/1.jpg", "ann"), ("y/1.jpg", "ann"), ("ann/1.jpg", "ann"), ("ann/1.png", "ann"), ("ANN/1.JPEG", "bob"),
        ("ann/x_1.webp", "ann"), (".dot.jpg", "bob"), ("plain", "bob"), (f"{'long' * 60}.png", "bob"),
    ]  # fmt: skip
    names = crop_names(lists_of(tmp_path, rows), ".jpg")
    assert names[:6] == [
        "ann/x_1.jpg", "ann/y_1.jpg", "ann/1.jpg", "ann/1-2.jpg", "bob/ANN_1.jpg", "ann/x_1-2.jpg"
    ]  # fmt: skip
    assert names[6].startswith("bob/_dot-")
    assert names[7] == "bob/plain.jpg"
    assert names[8].startswith("bob/longlonglong")
    assert len(names[8]) < 120


def test_identities_keep_their_labels_and_stay_inside(tmp_path: Path) -> None:
    rows = [("1.jpg", "../up"), ("2.jpg", "failed.csv"), ("3.jpg", "ann"), ("4.jpg", "a/b")]
    source = lists_of(tmp_path, rows)
    folders = [Path(name).parts[0] for name in crop_names(source, ".jpg")]
    by_label = [folders[int(np.flatnonzero(source.labels == label)[0])] for label in range(4)]
    assert by_label == sorted(by_label)
    assert len({*by_label, "failed.csv", ".."}) == 6
    assert all(len(Path(name).parts) == 2 for name in crop_names(source, ".jpg"))


def test_every_image_needs_landmarks_unless_told_otherwise(photographs: Path, tmp_path: Path) -> None:
    source = ImageFolder(photographs)
    lines = (photographs / "points.csv").read_text().splitlines()
    points = tmp_path / "points.csv"
    points.write_text("\n".join([lines[0], lines[4], lines[6].replace("p1/2", "p9/2")]))
    with pytest.raises(InputError, match="5 of 6 images have no landmarks: 'p0/0.png', 'p0/1.png', 'p0/2.png' and 2"):
        listed_landmarks(points, source, complete=True)
    finder, warnings = listed_landmarks(points, source, complete=False)
    assert warnings == [f"{points}: 1 lines are of no image here and not used"]
    done = align_photographs(tmp_path / "out", source, finder)
    assert (done.aligned, done.failed) == (1, 5)
    assert rows_of(tmp_path / "out" / "failed.csv")[0]["reason"] == f"no landmarks in {points}"
    points.write_text("\n".join([lines[0], lines[6].replace("p1/2", "p9/2")]))
    with pytest.raises(InputError, match="6 of 6 images have no landmarks"):
        listed_landmarks(points, source, complete=False)


def test_a_point_outside_its_image_is_refused_by_line(photographs: Path, tmp_path: Path) -> None:
    lines = (photographs / "points.csv").read_text().splitlines()
    fields = lines[3].split(",")
    fields[2] = "5000"
    points = tmp_path / "points.csv"
    points.write_text("\n".join([*lines[:3], ",".join(fields), *lines[4:]]))
    source = ImageFolder(photographs)
    finder, _ = listed_landmarks(points, source, complete=True)
    with pytest.raises(InputError, match=r"points.csv:4: 'p0/2.png': point 1, \(5000.0, .*\), is far outside"):
        align_photographs(tmp_path / "out", source, finder)
    assert not (tmp_path / "out").exists()
