"""Finding faces and their five landmarks with a detector file, run by OpenCV.

Two families are known, told by what the network puts out and never by the file's name: YuNet (twelve outputs, OpenCV
decodes it) and SCRFD with key points (nine outputs, decoded here).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from facekd.data.images import resize, shown
from facekd.errors import InputError

STRIDES = (8, 16, 32)
ANCHORS = 2
SCRFD_SIDE = 640
SCRFD_SCORE, SCRFD_OVERLAP = 0.5, 0.4
YUNET_SIDES = (640, 1600)
"""YuNet sees faces up to about 300 pixels, so a large photograph is shrunk first, and less when that shows no face."""
YUNET_SCORE, YUNET_OVERLAP, YUNET_MOST = 0.6, 0.3, 500

_YUNET_OUTPUTS = frozenset(f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in STRIDES)
_NEEDED = "give a YuNet or an SCRFD (det_*.onnx with key points) file"
_WIDTHS = (1, 4, 10)


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


@dataclass(frozen=True)
class YuNet:
    """YuNet as OpenCV runs it; made by `load_detector`."""

    network: cv2.FaceDetectorYN
    digest: str
    kind: str = "yunet"

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces of a uint8 RGB image (height, width, 3), the surest first."""
        longest = max(image.shape[:2])
        for side in YUNET_SIDES:
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


@dataclass(frozen=True)
class Scrfd:
    """SCRFD with key points on a 640x640 field; made by `load_detector`."""

    network: cv2.dnn.Net
    outputs: tuple[str, ...]
    digest: str
    kind: str = "scrfd"

    def detect(self, image: np.ndarray) -> list[Face]:
        """The faces of a uint8 RGB image (height, width, 3), the surest first."""
        blob, scale = letterbox(image)
        found = decode_scrfd(run_network(self.network, self.outputs, blob))
        return [Face(face.box / scale, face.score, face.landmarks / scale) for face in suppressed(found)]


def letterbox(image: np.ndarray, side: int = SCRFD_SIDE) -> tuple[np.ndarray, float]:
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


def decode_scrfd(outputs: Sequence[np.ndarray], side: int = SCRFD_SIDE, least: float = SCRFD_SCORE) -> list[Face]:
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
        for row in np.flatnonzero(scores[:, 0] >= least):
            line, column = divmod(int(row) // ANCHORS, side // stride)
            anchor = np.array([column, line], np.float64) * stride
            upper, lower = anchor - boxes[row, :2] * stride, anchor + boxes[row, 2:] * stride
            landmarks = anchor + points[row].reshape(5, 2) * stride
            faces.append(Face(np.concatenate([upper, lower - upper]), float(scores[row, 0]), landmarks))
    return faces


def suppressed(faces: Sequence[Face], overlap: float = SCRFD_OVERLAP) -> list[Face]:
    """Faces, the surest first, without those that overlap a surer one by more than ``overlap`` (IoU)."""
    scores = [face.score for face in faces]
    kept = cv2.dnn.NMSBoxes([face.box.tolist() for face in faces], scores, 0.0, overlap)
    return [faces[int(index)] for index in np.asarray(kept, int).ravel()]


def largest(faces: Sequence[Face]) -> Face:
    """The face with the largest box."""
    return max(faces, key=lambda face: float(face.box[2] * face.box[3]))


def most_central(faces: Sequence[Face], height: int, width: int) -> Face:
    """The face whose box has its middle nearest to the middle of the image."""
    middle = np.array([width, height]) / 2
    return min(faces, key=lambda face: float(np.linalg.norm(face.box[:2] + face.box[2:] / 2 - middle)))


def run_network(network: cv2.dnn.Net, outputs: Sequence[str], blob: np.ndarray) -> list[np.ndarray]:
    """One pass through ``cv2.dnn``; the named outputs in their order."""
    network.setInput(blob)
    return [np.asarray(output) for output in network.forward(list(outputs))]


def load_detector(path: Path) -> Detector:
    """Open a detector file.

    Args:
        path: An ONNX file; its name does not matter.

    Raises:
        InputError: Missing, not readable by OpenCV, or neither YuNet nor SCRFD with key points.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as empty:
        ...     load_detector(Path(empty.name))  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        facekd.errors.InputError: ...: the file is empty (give a YuNet or an SCRFD (det_*.onnx with key points) file)
    """
    where = shown(path)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise InputError(where, "no such file", "check the path") from None
    except OSError as error:
        raise InputError(where, f"cannot be read: {error.strerror}") from None
    if not data:
        raise InputError(where, "the file is empty", _NEEDED)
    digest = hashlib.sha256(data).hexdigest()
    buffer = np.frombuffer(data, np.uint8)
    try:
        network = cv2.dnn.readNetFromONNX(buffer)
        names = tuple(network.getUnconnectedOutLayersNames())
        if set(names) == _YUNET_OUTPUTS:
            return YuNet(_yunet(buffer), digest)
        return Scrfd(network, _scrfd_outputs(network, names), digest)
    except cv2.error as error:
        reason = " ".join((error.err or str(error)).split())
        raise InputError(where, f"OpenCV cannot run it: {shown(reason)}", _NEEDED) from None
    except ValueError as error:
        raise InputError(where, str(error), _NEEDED) from None


def _yunet(buffer: np.ndarray) -> cv2.FaceDetectorYN:
    none, size = np.zeros(0, np.uint8), (320, 320)
    detector = cv2.FaceDetectorYN.create("onnx", buffer, none, size, YUNET_SCORE, YUNET_OVERLAP, YUNET_MOST)
    detector.detect(np.zeros((320, 320, 3), np.uint8))
    return detector


def _scrfd_outputs(network: cv2.dnn.Net, names: tuple[str, ...]) -> tuple[str, ...]:
    """The names again, once a pass over a gray field has shown what SCRFD puts out."""
    if len(names) not in (6, 9):
        raise ValueError(f"a network with {len(names)} output{'s' * (len(names) != 1)} is no face detector known here")
    outputs = run_network(network, names, np.zeros((1, 3, SCRFD_SIDE, SCRFD_SIDE), np.float32))
    levels = _levels(outputs, SCRFD_SIDE)
    for stride in STRIDES:
        scores = levels[stride, 1]
        if not (np.isfinite(scores).all() and scores.min() >= 0 and scores.max() <= 1):
            raise ValueError(f"its scores of stride {stride} are no probabilities: the sigmoid is missing")
    return names


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
