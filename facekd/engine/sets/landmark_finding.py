"""Where the landmarks of an image come from: a file that lists them, or a detector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from facekd.data.align import landmark_problem
from facekd.data.detect import load_detector
from facekd.data.faces import Detector, largest, most_central
from facekd.data.identities import IdentitySource, first_few
from facekd.data.images import shown
from facekd.data.landmark_files import LandmarkFile, read_landmarks
from facekd.errors import DataError, InputError

CHOICES = ("largest", "center")
_DECIMALS = 3


@dataclass(frozen=True)
class Found:
    """The landmarks of one image.

    Attributes:
        landmarks: float64 (5, 2), pixels, image left first.
        score: The detector's confidence; None from a file.
        faces: How many faces the detector saw; 1 from a file.
    """

    landmarks: np.ndarray
    score: float | None
    faces: int


class Finder(Protocol):
    """Finds the landmarks of images."""

    @property
    def record(self) -> dict[str, object]:
        """What `alignment.json` says of it; equal records find equal landmarks."""

    def find(self, name: str, image: np.ndarray) -> Found:
        """Landmarks of the uint8 RGB image called ``name``; raises `DataError` where it has none."""


@dataclass(frozen=True)
class ListedLandmarks:
    """Landmarks out of a file."""

    file: LandmarkFile

    @property
    def record(self) -> dict[str, object]:
        """What `alignment.json` says of it."""
        return {"landmarks": "file", "landmarks_digest": self.file.digest, "layout": self.file.layout}

    def find(self, name: str, image: np.ndarray) -> Found:
        """Landmarks of the image called ``name``.

        Raises:
            DataError: The file does not list it.
            InputError: What it lists cannot lie in this image; names the line.
        """
        if name not in self.file.rows:
            raise DataError(name, f"no landmarks in {shown(self.file.path)}")
        landmarks = self.file.points[self.file.rows[name]]
        problem = landmark_problem(landmarks, *image.shape[:2])
        if problem:
            raise InputError(self.file.where(name), f"'{shown(name)}': {problem}", "correct the line or leave it out")
        return Found(landmarks, None, 1)


@dataclass(frozen=True)
class DetectedLandmarks:
    """Landmarks of the face a detector finds; of several, the largest or the most central one.

    Landmarks are rounded to thousandths of a pixel, so that a list of them gives the same crop again.
    """

    detector: Detector
    choice: str = "largest"

    @property
    def record(self) -> dict[str, object]:
        """What `alignment.json` says of it."""
        detector = {"detector": self.detector.kind, "detector_digest": self.detector.digest}
        return {"landmarks": "detector", **detector, "choice": self.choice}

    def find(self, name: str, image: np.ndarray) -> Found:
        """Landmarks of a face in the image; raises `DataError` where there is none to align."""
        faces = self.detector.detect(image)
        if not faces:
            raise DataError(name, "no face found")
        face = largest(faces) if self.choice == "largest" else most_central(faces, *image.shape[:2])
        landmarks = np.round(self.detector.refined(image, face).landmarks, _DECIMALS)
        problem = landmark_problem(landmarks, *image.shape[:2])
        if problem:
            raise DataError(name, f"a face was found, but {problem}")
        return Found(landmarks, round(face.score, 4), len(faces))


def listed_landmarks(path: Path, source: IdentitySource, *, complete: bool) -> tuple[ListedLandmarks, list[str]]:
    """Open a landmark file for the images of a source.

    Args:
        path: See `read_landmarks`.
        source: The images to be aligned.
        complete: Refuse images that the file does not list.

    Returns:
        The finder, and warnings.

    Raises:
        InputError: The file is malformed, lists none of the images, or, where ``complete``, not all of them.
    """
    file = read_landmarks(path)
    names = {source.sample_name(index) for index in range(len(source))}
    missing = sorted(names - file.rows.keys())
    if missing and (complete or len(missing) == len(names)):
        count = f"{len(missing)} of {len(names)} images have no landmarks: {first_few(missing)}"
        raise InputError(shown(path), count, "list every image, by its path below the image root")
    warnings = list(file.warnings)
    if unused := len(file.rows.keys() - names):
        warnings.append(f"{shown(path)}: {unused} lines are of no image here and not used")
    return ListedLandmarks(file), warnings


def detected_landmarks(path: Path, choice: str) -> DetectedLandmarks:
    """Open a detector; ``choice`` is one of `CHOICES`.

    Raises:
        InputError: See `load_detector`.
    """
    return DetectedLandmarks(load_detector(path), choice)
