"""Writes drawn faces to disk as an identity folder, whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

from facekd.data.images import encode_png
from facekd.data.synthetic import QUALITY_FACTORS, FaceSample, SyntheticFaces, contact_sheet
from facekd.engine.progress import Progress
from facekd.errors import DeviceError, UsageError
from facekd.files import new_folder, write_atomic

LIST_NAME = "faces.csv"
POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


def csv_header() -> list[str]:
    """Columns of ``faces.csv``: path, identity, two per landmark, one per quality factor.

    Example:
        >>> csv_header()[:4], csv_header()[-2:]
        (['path', 'identity', 'left_eye_x', 'left_eye_y'], ['pitch', 'roll'])
    """
    return ["path", "identity", *(f"{point}_{axis}" for point in POINTS for axis in "xy"), *QUALITY_FACTORS]


def check_folder(out: Path) -> None:
    """Refuse a folder that cannot become an identity folder.

    Raises:
        UsageError: It exists and is a file or holds something, or its parent does not exist.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(str(out), "is a file", "name a folder that does not exist yet")
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(str(out), "is not empty", "name another folder, or remove it first")
    if not out.absolute().parent.is_dir():
        raise UsageError(str(out.absolute().parent), "is not a folder", "create it first")


def write_faces(
    out: Path, faces: SyntheticFaces, *, progress: Progress | None = None, poll: Callable[[], None] | None = None
) -> None:
    """Write every face as ``OUT/IDENTITY/SAMPLE.png``, and ``OUT/faces.csv`` beside them.

    All is written to ``OUT.partial`` first, which is renamed once complete; a partial folder left by a killed run is
    made anew. The list can be read as an identity list.

    Args:
        out: A folder that does not exist or is empty.
        faces: What to draw.
        progress: Told about each image.
        poll: Called before each image; may raise to stop, which removes the partial folder.

    Raises:
        UsageError: `out` is a file, is not empty, or its parent is missing.
        DeviceError: The disk refuses; nothing is left behind.
    """
    check_folder(out)
    try:
        with new_folder(out) as partial:
            _fill(partial, faces, progress, poll)
    except DeviceError as error:
        raise DeviceError(error.where, error.what, "free some space or choose another folder") from error.__cause__


def _fill(folder: Path, faces: SyntheticFaces, progress: Progress | None, poll: Callable[[], None] | None) -> None:
    for name in faces.names:
        (folder / name).mkdir()
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(csv_header())
    for index in range(len(faces)):
        if poll is not None:
            poll()
        face, path = faces.face(index), f"{faces.sample_name(index)}.png"
        (folder / path).write_bytes(encode_png(face.image))
        rows.writerow(_row(path, faces.names[int(faces.labels[index])], face))
        if progress is not None:
            progress("draw", index + 1, len(faces))
    (folder / LIST_NAME).write_text(text.getvalue(), encoding="utf-8", newline="\n")


def _row(path: str, identity: str, face: FaceSample) -> list[str]:
    numbers = [*face.landmarks.ravel().tolist(), *(face.quality[name] for name in QUALITY_FACTORS)]
    return [path, identity, *(f"{number:.3f}" for number in numbers)]


def write_sheet(path: Path, identities: range, samples: int, seed: int) -> None:
    """Write a contact sheet, a row per identity and a column per sample, as one PNG.

    Raises:
        UsageError: The sheet would have no faces or more than 10,000.
        DeviceError: The disk refuses.
    """
    if not 1 <= len(identities) * samples <= 10_000:
        what = f"{len(identities)} identities of {samples} samples do not fit on a sheet"
        raise UsageError(str(path), what, "take 1 to 10000 faces, or write a folder")
    data = encode_png(contact_sheet(identities, samples, seed))
    write_atomic(path, lambda temporary: temporary.write_bytes(data))
