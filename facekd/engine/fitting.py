"""Images that a model can take: of its cut of the face, at whatever size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from facekd.data.align import fits
from facekd.data.verification import ImageSource
from facekd.errors import DataError

RESIZE_FIX = "facekd data align lays faces onto the template; --allow-resize takes images as they are"


def fitting(source: ImageSource, size: tuple[int, int], where: str = "") -> Callable[[int], np.ndarray]:
    """``source.read`` that takes no image which must be squeezed or shows another cut of the face.

    Args:
        source: The images.
        size: (height, width) the model takes.
        where: What to call the set they belong to; names may do without.

    Returns:
        A function that raises `DataError` for such an image; it names the image and both sizes.
    """

    def read(index: int) -> np.ndarray:
        image = source.read(index)
        height, width = image.shape[:2]
        if not fits(height, width, size):
            name = f"{where}: {source.sample_name(index)}" if where else source.sample_name(index)
            raise DataError(name, f"{width}x{height} pixels, and the model takes {size[1]}x{size[0]}", RESIZE_FIX)
        return image

    return read
