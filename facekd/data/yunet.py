"""YuNet (Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research, 2023), which
OpenCV runs and decodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from facekd.data.align import warp_affine
from facekd.data.faces import Face, most_central
from facekd.data.images import resize

OUTPUTS = frozenset(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in (8, 16, 32))
SIDES = (640, 1600)
"""YuNet sees faces up to about 300 pixels, so a large photograph is shrunk first, and less when that shows no face."""
LEAST_SCORE, MOST_OVERLAP, MOST_FACES = 0.6, 0.3, 500
CLOSE_FACE, CLOSE_SIDE = 256, 384
"""Pixels of a face, and of the region around it, when it is looked at more closely."""

_MIRRORED = [1, 0, 2, 4, 3]


@dataclass(frozen=True)
class YuNet:
    """YuNet as OpenCV runs it; made by `open_yunet`."""

    network: cv2.FaceDetectorYN
    digest: str
    kind: str = "yunet"

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces of a uint8 RGB image (height, width, 3), the surest first."""
        longest = max(image.shape[:2])
        for side in SIDES:
            faces = self._detect_at(image, min(1.0, side / longest))
            if faces or longest <= side:
                return faces
        return []

    def _detect_at(self, image: np.ndarray, scale: float) -> list[Face]:
        height, width = (max(1, round(length * scale)) for length in image.shape[:2])
        shrunk = cv2.cvtColor(resize(image, (height, width)), cv2.COLOR_RGB2BGR)
        self.network.setInputSize((width, height))
        _, rows = self.network.detect(shrunk)
        if rows is None:
            return []
        back = np.array([image.shape[1] / width, image.shape[0] / height])
        found = [
            Face(row[:4] * np.tile(back, 2), float(row[14]), row[4:14].reshape(5, 2) * back)
            for row in rows.astype(np.float64)
            if np.isfinite(row).all()
        ]
        return sorted(found, key=lambda face: -face.score)

    def refined(self, image: np.ndarray, face: Face) -> Face:
        """The face with landmarks found again in an upright close-up and in its mirror image, and averaged.

        In whole photographs YuNet's landmarks miss by some hundredths of the face; large and upright they are better.
        The face stays as it is where the close-up shows none.
        """
        matrix = _close_up(face)
        region = warp_affine(image, matrix, CLOSE_SIDE, cv2.BORDER_REPLICATE)
        straight = self._central(region)
        if straight is None:
            return face
        mirrored = self._central(np.ascontiguousarray(region[:, ::-1]))
        if mirrored is not None:
            there = mirrored[_MIRRORED] * (-1, 1) + (CLOSE_SIDE - 1, 0)
            straight = (straight + there) / 2
        back = np.linalg.inv(matrix[:, :2])
        return Face(face.box, face.score, (straight - matrix[:, 2]) @ back.T)

    def _central(self, region: np.ndarray) -> np.ndarray | None:
        faces = self._detect_at(region, 1.0)
        return most_central(faces, *region.shape[:2]).landmarks if faces else None


def open_yunet(data: np.ndarray, digest: str) -> YuNet:
    """YuNet from the bytes of its file, tried once; raises `cv2.error` where OpenCV cannot run it."""
    none, size = np.zeros(0, np.uint8), (320, 320)
    network = cv2.FaceDetectorYN.create("onnx", data, none, size, LEAST_SCORE, MOST_OVERLAP, MOST_FACES)
    network.detect(np.zeros((320, 320, 3), np.uint8))
    return YuNet(network, digest)


def _close_up(face: Face) -> np.ndarray:
    """The similarity (2, 3) that brings the face to the middle of the close-up, its eyes level."""
    across, down = face.landmarks[1] - face.landmarks[0]
    length = math.hypot(across, down) or 1.0
    cosine, sine = across / length, down / length
    scale = CLOSE_FACE / max(1.0, float(face.box[2:].max()))
    turn = scale * np.array([[cosine, sine], [-sine, cosine]])
    return np.column_stack([turn, CLOSE_SIDE / 2 - turn @ (face.box[:2] + face.box[2:] / 2)])
