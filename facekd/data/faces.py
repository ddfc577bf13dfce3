"""What a detector says of an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Face:
    """One face found in an image, in its pixels.

    Attributes:
        box: float64 (4,): x and y of the upper left corner, width, height.
        score: The detector's confidence, 0 to 1.
        landmarks: float64 (5, 2): eyes, nose, mouth corners, image left first.
    """

    box: np.ndarray
    score: float
    landmarks: np.ndarray


class Detector(Protocol):
    """Finds faces.

    Attributes:
        kind: ``yunet`` or ``scrfd``.
        digest: SHA-256 of the file.
    """

    @property
    def kind(self) -> str: ...

    @property
    def digest(self) -> str: ...

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces of a uint8 RGB image (height, width, 3), the surest first."""

    def refined(self, image: np.ndarray, face: Face) -> Face:
        """A face found in this image, its landmarks looked at more closely where that makes them better."""


def largest(faces: Sequence[Face]) -> Face:
    """The face with the largest box."""
    return max(faces, key=lambda face: float(face.box[2] * face.box[3]))


def most_central(faces: Sequence[Face], height: int, width: int) -> Face:
    """The face whose box has its middle nearest to the middle of the image."""
    middle = np.array([width, height]) / 2
    return min(faces, key=lambda face: float(np.linalg.norm(face.box[:2] + face.box[2:] / 2 - middle)))
