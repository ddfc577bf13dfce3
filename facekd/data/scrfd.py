"""SCRFD with key points (Guo et al., "Sample and Computation Redistribution for Efficient Face Detection", ICLR 2022,
arXiv 2105.04714), run by OpenCV and decoded here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from facekd.data.faces import Face
from facekd.data.images import resize

STRIDES = (8, 16, 32)
ANCHORS = 2
SIDE = 640
LEAST_SCORE, MOST_OVERLAP = 0.5, 0.4

_WIDTHS = (1, 4, 10)


@dataclass(frozen=True)
class Scrfd:
    """SCRFD with key points on a 640x640 field; made by `open_scrfd`."""

    network: cv2.dnn.Net
    outputs: tuple[str, ...]
    digest: str
    kind: str = "scrfd"

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces of a uint8 RGB image (height, width, 3), the surest first."""
        blob, scale = letterbox(image)
        found = decode_scrfd(run_network(self.network, self.outputs, blob))
        return [Face(face.box / scale, face.score, face.landmarks / scale) for face in suppressed(found)]

    def refined(self, image: np.ndarray, face: Face) -> Face:
        """The face as it is."""
        return face


def letterbox(image: np.ndarray, side: int = SIDE) -> tuple[np.ndarray, float]:
    """The network's field: the image shrunk or grown into the upper left corner, black elsewhere.

    Returns:
        float32 (1, 3, side, side), RGB as (x - 127.5) / 128, and field pixels per image pixel.

    Example:
        >>> blob, scale = letterbox(np.full((20, 40, 3), 255, np.uint8), 80)
        >>> blob.shape, scale, float(blob[0, 0, 39, 79]), float(blob[0, 0, 40, 0])
        ((1, 3, 80, 80), 2.0, 0.99609375, -0.99609375)
    """
    scale = side / max(image.shape[:2])
    height, width = (max(1, round(length * scale)) for length in image.shape[:2])
    field = np.zeros((side, side, 3), np.uint8)
    field[:height, :width] = resize(image, (height, width))
    blob = (field.astype(np.float32) - 127.5) / 128.0
    return np.ascontiguousarray(blob.transpose(2, 0, 1)[None]), scale


def decode_scrfd(outputs: Sequence[np.ndarray], side: int = SIDE, least: float = LEAST_SCORE) -> list[Face]:
    """Faces from the raw outputs of SCRFD, overlapping ones included.

    Each level has two anchors in every cell, at the cell's upper left corner; a box is given by its distances to the
    left, upper, right and lower edge, a landmark by its offset, all in strides.

    Args:
        outputs: Nine arrays (rows, 1), (rows, 4), (rows, 10), or with a leading 1, in any order, with
            2 * (side / stride)**2 rows for the strides 8, 16, 32.
        side: Of the field, in pixels.
        least: Lower scores are left out.

    Raises:
        ValueError: The arrays are not those of SCRFD with key points.

    Example:
        >>> rows = {stride: 2 * (32 // stride) ** 2 for stride in STRIDES}
        >>> raw = [np.zeros((rows[stride], width)) for width in (1, 4, 10) for stride in STRIDES]
        >>> raw[0][11], raw[3][11] = 0.9, 1.0
        >>> (face,) = decode_scrfd(raw, side=32)
        >>> face.box.tolist(), face.landmarks[0].tolist()
        ([0.0, 0.0, 16.0, 16.0], [8.0, 8.0])
    """
    levels = _levels(outputs, side)
    faces = []
    for stride in STRIDES:
        scores, boxes, points = (levels[stride, width] for width in _WIDTHS)
        finite = np.isfinite(boxes).all(axis=1) & np.isfinite(points).all(axis=1)
        for row in np.flatnonzero((scores[:, 0] >= least) & finite):
            line, column = divmod(int(row) // ANCHORS, side // stride)
            anchor = np.array([column, line], np.float64) * stride
            upper, lower = anchor - boxes[row, :2] * stride, anchor + boxes[row, 2:] * stride
            landmarks = anchor + points[row].reshape(5, 2) * stride
            faces.append(Face(np.concatenate([upper, lower - upper]), float(scores[row, 0]), landmarks))
    return faces


def suppressed(faces: Sequence[Face], overlap: float = MOST_OVERLAP) -> list[Face]:
    """Faces, the surest first, without those that overlap a surer one by more than ``overlap`` (IoU)."""
    scores = [face.score for face in faces]
    kept = cv2.dnn.NMSBoxes([face.box.tolist() for face in faces], scores, 0.0, overlap)
    return [faces[int(index)] for index in np.asarray(kept, int).ravel()]


def run_network(network: cv2.dnn.Net, outputs: Sequence[str], blob: np.ndarray) -> list[np.ndarray]:
    """One pass through ``cv2.dnn``; the named outputs in their order."""
    network.setInput(blob)
    return [np.asarray(output) for output in network.forward(list(outputs))]


def open_scrfd(network: cv2.dnn.Net, names: tuple[str, ...], digest: str) -> Scrfd:
    """SCRFD, once a pass over a gray field has shown that the network puts out what SCRFD does.

    Args:
        network: As OpenCV read it.
        names: Of its outputs.
        digest: Of its file.

    Raises:
        ValueError: It is no SCRFD with key points; says what it is instead.
    """
    if len(names) not in (6, 9):
        raise ValueError(f"a network with {len(names)} output{'s' * (len(names) != 1)} is no face detector known here")
    outputs = run_network(network, names, np.zeros((1, 3, SIDE, SIDE), np.float32))
    levels = _levels(outputs, SIDE)
    for stride in STRIDES:
        scores = levels[stride, 1]
        if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
            raise ValueError(f"its scores of stride {stride} are no probabilities: the sigmoid is missing")
    return Scrfd(network, names, digest)


def _levels(outputs: Sequence[np.ndarray], side: int) -> dict[tuple[int, int], np.ndarray]:
    """Outputs by stride and width (1 score, 4 distances, 10 landmark offsets), each (rows, width)."""
    rows = {ANCHORS * (side // stride) ** 2: stride for stride in STRIDES}
    levels = {}
    for output in outputs:
        shape = output.shape[1:] if output.ndim == 3 and output.shape[0] == 1 else output.shape
        if len(shape) != 2 or shape[0] not in rows or shape[1] not in _WIDTHS:
            raise ValueError(f"an output of shape {output.shape} is not one of SCRFD")
        levels[rows[shape[0]], shape[1]] = output.reshape(shape)
    wanted = {(stride, width) for stride in STRIDES for width in _WIDTHS}
    if len(outputs) == 6 and set(levels) == {level for level in wanted if level[1] != 10}:
        raise ValueError("an SCRFD without key points: it finds boxes only, and faces are aligned by five points")
    if set(levels) != wanted or len(outputs) != len(wanted):
        raise ValueError("its outputs are not those of SCRFD with two anchors a cell")
    return levels
