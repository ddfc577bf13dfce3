"""Pixels: the one place that reads, decodes, resizes and encodes images.

Rules, the same in training and evaluation:

- JPEG, PNG, BMP and still WebP only, told by their first bytes and never by the file name;
- the size is read from the header, before a decoder sees the file: 8x8 at least, 64 megapixels at most;
- EXIF orientation is ignored: the stored pixels are the image;
- gray is repeated to three channels, alpha is dropped, 16 bits become 8, palettes and CMYK become RGB;
- a file that ends too early is refused, not filled with gray.

Images are uint8 arrays (height, width, 3) in RGB order.
"""

from __future__ import annotations

import stat
from pathlib import Path

import cv2
import numpy as np

from facekd.data.image_headers import chunks_fit, header_size, is_animated, sniff
from facekd.errors import DataError

MAX_PIXELS = 64_000_000
MIN_SIDE = 8
MAX_BYTES = 256 * 2**20
ACCEPTED = "JPEG, PNG, BMP or WebP"

_DECODE_FLAGS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_FOREIGN = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"SIMPLE  =": "FITS",
    b"%PDF": "PDF",
}
cv2.setNumThreads(1)  # loaders run one image per worker; OpenCV's own threads would only fight with them
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # refusals are worded here, with the name of the file


def read_bytes(path: Path) -> bytes:
    """The content of an image file.

    Args:
        path: A regular file of at most 256 MiB.

    Raises:
        DataError: Missing, unreadable, not a regular file, or too large; names the file.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise DataError(shown(path), "not a regular file")
        if status.st_size > MAX_BYTES:
            raise DataError(shown(path), f"{status.st_size} bytes is too large for an image", f"at most {MAX_BYTES}")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(shown(path), "no such file", "check the path, or restore the file") from None
    except OSError as error:
        raise DataError(shown(path), f"cannot be read: {error.strerror}") from None


def check_header(data: bytes, where: str) -> tuple[int, int]:
    """Height and width of an encoded image that may be handed to a decoder.

    Args:
        data: The whole file.
        where: Name of the file or record, for messages.

    Raises:
        DataError: Empty, not an accepted image, animated, too small or too large.

    Example:
        >>> check_header(b"<html>", "face.jpg")
        Traceback (most recent call last):
        facekd.errors.DataError: face.jpg: not an image (starts with '<html>')
    """
    if not data:
        raise DataError(where, "zero bytes")
    if is_animated(data):
        raise DataError(where, "animated WebP is not accepted", f"convert it to {ACCEPTED}")
    size = header_size(data)
    if size is None:
        raise _no_size(data, where)
    height, width = size
    if height < MIN_SIDE or width < MIN_SIDE:
        raise DataError(where, f"{width}x{height} pixels is too small", f"at least {MIN_SIDE}x{MIN_SIDE}")
    if height * width > MAX_PIXELS:
        raise DataError(where, f"{width}x{height} pixels: {height * width / 1e6:.0f} MP > {MAX_PIXELS // 10**6} MP")
    return size


def decode(data: bytes, where: str) -> np.ndarray:
    """Decode an image file held in memory.

    Args:
        data: The whole file.
        where: Name of the file or record, for messages.

    Returns:
        uint8 array (height, width, 3), RGB.

    Raises:
        DataError: Not an accepted image, outside the size limits, cut short or damaged.

    Example:
        >>> image = np.full((8, 9, 3), (250, 10, 0), np.uint8)
        >>> decode(encode_png(image), "red.png")[0, 0].tolist()
        [250, 10, 0]
    """
    size = check_header(data, where)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _DECODE_FLAGS) if chunks_fit(data) else None
    except cv2.error:
        image = None
    if image is None or image.shape[:2] != size:
        raise DataError(where, f"cut short or damaged: the {sniff(data)} does not decode", "restore the file")
    return image


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize to (height, width): pixel areas are averaged when shrinking, interpolated linearly when growing.

    Example:
        >>> resize(np.full((16, 16, 3), 7, np.uint8), (8, 8)).shape
        (8, 8, 3)
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    shrinks = height <= image.shape[0] and width <= image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def encode_png(image: np.ndarray) -> bytes:
    """An RGB image (height, width, 3) as PNG, without loss."""
    return _encode(image, ".png", [])


def encode_jpeg(image: np.ndarray, quality: int = 92) -> bytes:
    """An RGB image (height, width, 3) as JPEG of ``quality`` 1..100."""
    return _encode(image, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality])


def to_chw(image: np.ndarray) -> np.ndarray:
    """The image with channels first, contiguous: (3, height, width).

    Example:
        >>> to_chw(np.zeros((8, 9, 3), np.uint8)).shape
        (3, 8, 9)
    """
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def shown(text: object, most: int = 200) -> str:
    """Text of a file, made safe for one line of a terminal: control characters escaped, long text shortened.

    Example:
        >>> print(shown("a\\tb\\n"))
        a\\tb\\n
    """
    whole = str(text)
    short = whole if len(whole) <= most else whole[: most - 3] + "..."
    if short.isprintable():
        return short
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in short)


def shown_start(data: bytes) -> str:
    """The first bytes of a file, as text where they are text.

    Example:
        >>> shown_start(b"<html><body>"), shown_start(b"\\x89PNG")
        ("'<html>'", "'\\\\x89PNG'")
    """
    return repr(data[:16])[1:] if not data[:6].isascii() else repr(data[:6].decode())


def _no_size(data: bytes, where: str) -> DataError:
    kind = sniff(data)
    if kind is not None:
        return DataError(where, f"the {kind} header is cut short or damaged")
    foreign = next((name for magic, name in _FOREIGN.items() if data.startswith(magic)), None)
    if foreign is not None:
        return DataError(where, f"{foreign} is not accepted", f"convert it to {ACCEPTED}")
    return DataError(where, "not an image", f"starts with {shown_start(data)}")


def _encode(image: np.ndarray, suffix: str, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise DataError(f"image {image.shape}", f"cannot be encoded as {suffix}")
    return data.tobytes()
