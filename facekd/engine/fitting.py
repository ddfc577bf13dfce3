"""Images that a model can take: of its cut of the face, at whatever size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from facekd.data.align import fits
from facekd.data.verification import ImageSource
from facekd.errors import DataError
from facekd.recipe import Recipe

RESIZE_FIX = "facekd data align lays faces onto the template; --allow-resize takes images as they are"

TRAINING_FIX = "facekd data align lays faces onto the template; data.allow_resize: true takes images as they are"


def training_reader(recipe: Recipe, source: ImageSource) -> Callable[[int], np.ndarray]:
    """How the training images of a recipe are read: only those that fit, unless it says otherwise."""
    side = recipe.student.input_size
    return source.read if recipe.data.allow_resize else fitting(source, (side, side), fix=TRAINING_FIX)


def fitting(
    source: ImageSource, size: tuple[int, int], where: str = "", fix: str = RESIZE_FIX
) -> Callable[[int], np.ndarray]:
    """``source.read`` that takes no image which must be squeezed or shows another cut of the face.

    Args:
        source: The images.
        size: (height, width) the model takes.
        where: What to call the set they belong to; names may do without.
        fix: What to do about such an image.

    Returns:
        A function that raises `DataError` for such an image; it names the image and both sizes.
    """
    return partial(_read, source, size, where, fix)


def _read(source: ImageSource, size: tuple[int, int], where: str, fix: str, index: int) -> np.ndarray:
    image = source.read(index)
    height, width = image.shape[:2]
    if not fits(height, width, size):
        name = f"{where}: {source.sample_name(index)}" if where else source.sample_name(index)
        raise DataError(name, f"{width}x{height} pixels, and the model takes {size[1]}x{size[0]}", fix)
    return image
