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
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})

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


def sniff(data: bytes) -> str | None:
    """The accepted format whose signature ``data`` starts with: ``jpeg``, ``png``, ``bmp``, ``webp`` or None.

    Example:
        >>> sniff(b"BM" + bytes(30)), sniff(b"<html>")
        ('bmp', None)
    """
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "bmp" if data[:2] == b"BM" else None


def header_size(data: bytes) -> tuple[int, int] | None:
    """Height and width as the header states them, without decoding; None when the header holds none.

    Example:
        >>> header_size(encode_png(np.zeros((9, 12, 3), np.uint8)))
        (9, 12)
    """
    kind = sniff(data)
    return _SIZE_OF[kind](data) if kind else None


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
    kind = sniff(data)
    if kind is None:
        foreign = next((name for magic, name in _FOREIGN.items() if data.startswith(magic)), None)
        if foreign:
            raise DataError(where, f"{foreign} is not accepted", f"convert it to {ACCEPTED}")
        raise DataError(where, "not an image", f"starts with {shown_start(data)}")
    if data[:4] == b"RIFF" and data[12:16] == b"VP8X" and len(data) > 20 and data[20] & 0x02:
        raise DataError(where, "animated WebP is not accepted", f"convert it to {ACCEPTED}")
    size = _SIZE_OF[kind](data)
    if size is None:
        raise DataError(where, f"the {kind} header is cut short or damaged")
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
        image = cv2.imdecode(np.frombuffer(data, np.uint8), _DECODE_FLAGS)
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
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in short)


def shown_start(data: bytes) -> str:
    """The first bytes of a file, as text where they are text.

    Example:
        >>> shown_start(b"<html><body>"), shown_start(b"\\x89PNG")
        ("'<html>'", "'\\\\x89PNG'")
    """
    return repr(data[:16])[1:] if not data[:6].isascii() else repr(data[:6].decode())


def _encode(image: np.ndarray, suffix: str, options: list[int]) -> bytes:
    done, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise DataError(f"image {image.shape}", f"cannot be encoded as {suffix}")
    return data.tobytes()


def _png_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 24 or data[12:16] != b"IHDR":
        return None
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def _bmp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 26:
        return None
    if int.from_bytes(data[14:18], "little") == 12:
        return int.from_bytes(data[20:22], "little"), int.from_bytes(data[18:20], "little")
    height = abs(int.from_bytes(data[22:26], "little", signed=True))
    return height, abs(int.from_bytes(data[18:22], "little", signed=True))


def _webp_size(data: bytes) -> tuple[int, int] | None:
    if len(data) < 30:
        return None
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[27:30], "little") + 1, int.from_bytes(data[24:27], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    if data[12:16] == b"VP8 ":
        return int.from_bytes(data[28:30], "little") & 0x3FFF, int.from_bytes(data[26:28], "little") & 0x3FFF
    return None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            return None
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in _BARE_MARKERS:
            at += 2
        elif marker in _START_OF_FRAME:
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


_SIZE_OF = {"jpeg": _jpeg_size, "png": _png_size, "bmp": _bmp_size, "webp": _webp_size}
