"""Pictures to aligned faces: as they are, or found and laid onto the template by a detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from facekd.data.align import fits, warp
from facekd.data.detect import load_detector
from facekd.data.faces import largest
from facekd.data.images import decode, read_bytes, resize, shown
from facekd.errors import DataError
from facekd.runtime.model import FaceModel

FaceFinder = Callable[[np.ndarray, str], np.ndarray]
"""Gives the aligned face of a uint8 RGB picture; the second argument names it in messages."""


def face_finder(detector: Path, model: FaceModel) -> FaceFinder:
    """What finds the largest face of a picture and lays it onto the template the model was trained on.

    Args:
        detector: A YuNet or SCRFD file.
        model: Its size is that of the aligned faces.

    Raises:
        InputError: No detector file.
    """
    found = load_detector(detector)
    height, width = model.preprocessing.size

    def find(image: np.ndarray, where: str) -> np.ndarray:
        if height != width:
            raise DataError(where, f"there is no template of {width}x{height} pixels", "give aligned faces")
        faces = found.detect(image)
        if not faces:
            raise DataError(where, "no face found", "give a sharper or larger picture")
        face = found.refined(image, largest(faces))
        return warp(image, face.landmarks, height)

    return find


def read_face(path: Path | str, model: FaceModel, find: FaceFinder | None = None) -> np.ndarray:
    """The aligned face in an image file.

    Args:
        path: JPEG, PNG, BMP or WebP.
        model: The model it is for.
        find: From `face_finder`; without it the image must be an aligned face already.

    Returns:
        uint8 RGB (height, width, 3) at the model's size.

    Raises:
        DataError: Not an image, no face in it, or one that shows another cut of the face than the model takes.
    """
    where = shown(path)
    return aligned(decode(read_bytes(Path(path)), where), where, model, find)


def aligned(image: np.ndarray, where: str, model: FaceModel, find: FaceFinder | None = None) -> np.ndarray:
    """The aligned face in a uint8 RGB picture; as `read_face`."""
    if find is not None:
        return find(image, where)
    height, width = image.shape[:2]
    if not fits(height, width, model.preprocessing.size):
        size = model.preprocessing.size
        what = f"{width}x{height} pixels, and the model takes aligned faces of {size[1]}x{size[0]}"
        raise DataError(where, what, "--detector FILE finds and aligns faces")
    return resize(image, model.preprocessing.size)
