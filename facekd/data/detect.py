"""Opening the file of a face detector: YuNet or SCRFD, told by what the network puts out, never by the file's name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from facekd.data.faces import Detector
from facekd.data.images import shown
from facekd.data.scrfd import open_scrfd
from facekd.data.yunet import OUTPUTS, open_yunet
from facekd.errors import InputError

_NEEDED = "give a YuNet or an SCRFD (det_*.onnx with key points) file"


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
        if set(names) == OUTPUTS:
            return open_yunet(buffer, digest)
        return open_scrfd(network, names, digest)
    except cv2.error as error:
        reason = " ".join((error.err or str(error)).split())
        raise InputError(where, f"OpenCV cannot run it: {shown(reason)}", _NEEDED) from None
    except ValueError as error:
        raise InputError(where, str(error), _NEEDED) from None
