"""Makes an identity folder of aligned crops from photographs, whole or to be gone on with."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from facekd import __version__
from facekd.data.align import ALIGNER_VERSION, OPENCV_VERSION, POINTS, template, warp
from facekd.data.file_names import Unused, safe_name, safe_names
from facekd.data.identities import IdentitySource
from facekd.data.image_folder import IMAGE_SUFFIXES
from facekd.data.images import encode_jpeg, encode_png, shown
from facekd.engine.progress import Progress
from facekd.engine.sets.landmark_finding import Finder
from facekd.engine.sets.synthesis import check_folder
from facekd.engine.signals import Poll
from facekd.errors import DataError, DeviceError, UsageError
from facekd.files import disk_errors, locked, sync_folder, write_json

JPEG_QUALITY = 95
LIST_NAME, FAILED_NAME, RECORD_NAME = "landmarks.csv", "failed.csv", "alignment.json"
_JOURNAL, _PLAN = ".journal.jsonl", ".plan.json"


@dataclass
class Alignment:
    """What became of the images.

    Attributes:
        aligned: How many have a crop.
        several: How many of those showed more than one face.
        failed: How many have none.
        reasons: The first few of those, as ``path: reason``.
        emptied: Identities none of whose images could be aligned.
    """

    aligned: int = 0
    several: int = 0
    failed: int = 0
    reasons: list[str] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Job:
    source: IdentitySource
    finder: Finder
    names: list[str]
    size: int
    png: bool


def alignment_record(source: IdentitySource, finder: Finder, size: int, png: bool) -> dict[str, object]:
    """Everything the crops depend on; what `alignment.json` begins with.

    Raises:
        UsageError: There is no template of this size.
    """
    return {
        "aligner": ALIGNER_VERSION,
        "template": template(size).round(4).tolist(),
        "size": size,
        "transform": "least-squares similarity, bilinear, border 0",
        "encoding": "png" if png else f"jpeg {JPEG_QUALITY}",
        **finder.record,
        "source_digest": source.digest,
        "images": len(source),
        "opencv": OPENCV_VERSION,
        "facekd": __version__,
    }


def align_photographs(
    out: Path,
    source: IdentitySource,
    finder: Finder,
    *,
    size: int = 112,
    png: bool = False,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Alignment:
    """Write an aligned crop of every image as ``OUT/IDENTITY/NAME.jpg``.

    Beside them: ``landmarks.csv`` (landmarks in the source image, which `read_landmarks` reads again), ``failed.csv``
    (images without a crop and why; only where there are any) and ``alignment.json`` (see `alignment_record`). All is
    written to ``OUT.partial`` first, which is renamed once complete. The same call goes on from a partial folder.

    Args:
        out: A folder that does not exist or is empty.
        source: The photographs.
        finder: Where their landmarks come from.
        size: Side of the crops.
        png: Write PNG instead of JPEG.
        progress: Told about each image.
        poll: Called before each image; may raise to stop, which keeps the partial folder.

    Raises:
        UsageError: `out` or the size cannot be used, or the partial folder was begun otherwise.
        InputError: A landmark that cannot lie in its image.
        DataError: No image at all could be aligned; nothing is left behind.
        DeviceError: The disk refuses.
    """
    check_folder(out)
    record = alignment_record(source, finder, size, png)
    job = _Job(source, finder, crop_names(source, ".png" if png else ".jpg"), size, png)
    partial = out.with_name(f"{out.name}.partial")
    try:
        with disk_errors(out):
            _begin(partial, record)
            with locked(partial, "aligning"):
                _work_off(partial, job, progress, poll)
                done = _finish(partial, source, record)
            if out.is_dir():
                out.rmdir()
            os.replace(partial, out)
            sync_folder(out.absolute().parent)
            for name in (_JOURNAL, _PLAN):
                (out / name).unlink()
    except DeviceError as error:
        raise DeviceError(
            error.where, error.what, "free some space or mend the folder; the same command goes on"
        ) from error.__cause__
    return done


def crop_names(source: IdentitySource, suffix: str) -> list[str]:
    """Where the crop of each image goes, relative to the output folder; no two the same, even where case is ignored.

    Folders are named after identities and sort as these are ordered, so labels stay what they are. Names that some
    disk would not take are made harmless.
    """
    unnamed = source.names == [""]
    folders = [""] if unnamed else safe_names(source.names, taken=(LIST_NAME, FAILED_NAME, RECORD_NAME))
    unused, names = Unused(), []
    for index, label in enumerate(source.labels.tolist()):
        stem = safe_name(_stem(source.sample_name(index), source.names[label]))
        names.append(unused(str(PurePosixPath(folders[label], f"{stem}{suffix}"))))
    return names


def _stem(name: str, identity: str) -> str:
    """The name without its folder, where that is the identity, and without the suffix of an image."""
    parts = name.split("/")
    text = "_".join(parts[1:] if len(parts) > 1 and parts[0] == identity else parts)
    base, suffix = os.path.splitext(text)
    return base if suffix.lower() in IMAGE_SUFFIXES else text


def _begin(partial: Path, record: dict[str, object]) -> None:
    """Make the partial folder, or make sure that it was begun for the same crops."""
    if not partial.exists():
        partial.mkdir()
        write_json(partial / _PLAN, record)
        return
    try:
        begun = json.loads((partial / _PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UsageError(shown(partial), "is in the way and no alignment goes on from it", "remove it") from None
    if begun != record:
        differs = sorted(key for key in {*begun, *record} if begun.get(key) != record.get(key))
        what = f"was begun with other options or images: {', '.join(differs)}"
        raise UsageError(shown(partial), what, "repeat that command to go on, or remove the folder to start over")


def _work_off(partial: Path, job: _Job, progress: Progress | None, poll: Poll | None) -> None:
    done, total = _recover(partial), len(job.names)
    with open(partial / _JOURNAL, "a", encoding="ascii") as journal:
        for index in range(done, total):
            if poll is not None:
                poll()
            journal.write(json.dumps(_align_one(partial, job, index)) + "\n")
            journal.flush()
            if progress is not None:
                progress("align", index + 1, total)


def _align_one(partial: Path, job: _Job, index: int) -> dict[str, object]:
    """Write one crop; what the journal says of it."""
    name = job.names[index]
    try:
        image = job.source.read(index)
        found = job.finder.find(job.source.sample_name(index), image)
        crop = warp(image, found.landmarks, job.size)
    except DataError as error:
        return {"failed": error.what}
    data = encode_png(crop) if job.png else encode_jpeg(crop, JPEG_QUALITY)
    path = partial / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    points = found.landmarks.ravel().tolist()
    return {"file": name, "bytes": len(data), "score": found.score, "faces": found.faces, "points": points}


def _recover(partial: Path) -> int:
    """How many images are done, after cutting the journal behind the last of them that is whole."""
    path = partial / _JOURNAL
    if not path.exists():
        return 0
    done = whole = 0
    with open(path, "rb") as journal:
        for line in journal:
            if not _is_whole(partial, line):
                break
            done, whole = done + 1, whole + len(line)
    os.truncate(path, whole)
    return done


def _is_whole(partial: Path, line: bytes) -> bool:
    if not line.endswith(b"\n"):
        return False
    try:
        entry = json.loads(line)
        return "failed" in entry or (partial / entry["file"]).stat().st_size == entry["bytes"]
    except (ValueError, OSError):
        return False


def _finish(partial: Path, source: IdentitySource, record: dict[str, object]) -> Alignment:
    """Turn the journal into the tables and the record that lie beside the crops."""
    done = Alignment()
    kept: set[int] = set()
    with _table(partial / LIST_NAME) as aligned, _table(partial / FAILED_NAME) as failed:
        points = [f"{point}_{axis}" for point in POINTS for axis in "xy"]
        aligned.writerow(["path", "aligned", "identity", "score", "faces", *points])
        failed.writerow(["path", "identity", "reason"])
        for index, entry in enumerate(_entries(partial)):
            path, label = source.sample_name(index), int(source.labels[index])
            if "failed" in entry:
                done.failed += 1
                done.reasons += [f"{shown(path)}: {entry['failed']}"] if done.failed <= 3 else []
                failed.writerow([path, source.names[label], entry["failed"]])
                continue
            done.aligned += 1
            done.several += entry["faces"] > 1
            kept.add(label)
            score = "" if entry["score"] is None else entry["score"]
            aligned.writerow([path, entry["file"], source.names[label], score, entry["faces"], *entry["points"]])
    if not done.aligned:
        shutil.rmtree(partial)
        raise DataError("facekd data align", f"none of {done.failed} images could be aligned: {done.reasons[0]}")
    if not done.failed:
        (partial / FAILED_NAME).unlink()
    done.emptied = [name for label, name in enumerate(source.names) if label not in kept]
    write_json(partial / RECORD_NAME, {**record, "aligned": done.aligned, "failed": done.failed})
    return done


def _entries(partial: Path) -> Iterator[dict[str, Any]]:
    with open(partial / _JOURNAL, encoding="ascii") as journal:
        for line in journal:
            yield json.loads(line)


@contextmanager
def _table(path: Path) -> Iterator[Any]:
    with open(path, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        yield csv.writer(stream, lineterminator="\n")
