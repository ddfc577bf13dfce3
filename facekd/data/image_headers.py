"""What the first bytes of an encoded image tell: format, size, transparency. Nothing is decoded here."""

from __future__ import annotations

import struct

_PART = struct.Struct(">BBH")  # of a JPEG: a mark, what it is, and the bytes from here on
_FRAME_SIZE = struct.Struct(">HH")
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD9)})


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
        >>> header_size(b"BM" + bytes(12) + (40).to_bytes(4, "little") + bytes([9, 0, 0, 0, 12, 0, 0, 0]))
        (12, 9)
    """
    kind = sniff(data)
    return _SIZE_OF[kind](data) if kind else None


def is_animated(data: bytes) -> bool:
    """Whether the image is a WebP of several frames.

    Example:
        >>> is_animated(b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(4) + bytes([2]))
        True
    """
    return data[:4] == b"RIFF" and data[12:16] == b"VP8X" and bool(data[20:21] and data[20] & 0x02)


def chunks_fit(data: bytes) -> bool:
    """Whether each chunk of a PNG ends within it: decoders set aside what a chunk announces. True of other formats.

    Example:
        >>> chunks_fit(b"\\x89PNG\\r\\n\\x1a\\n" + bytes([255, 255, 255, 255]) + b"IDAT")
        False
    """
    at = 8
    while sniff(data) == "png" and data[at + 4 : at + 8] != b"IEND" and at < len(data):
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return at <= len(data)


def has_alpha(data: bytes) -> bool:
    """Whether an encoded image holds transparency.

    Example:
        >>> has_alpha(b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(4) + bytes([16])), has_alpha(b"BM")
        (True, False)
    """
    kind = sniff(data)
    return kind in _ALPHA_OF and _ALPHA_OF[kind](data)


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
        mark, kind, length = _PART.unpack_from(data, at)
        if mark != 0xFF:
            return None
        if kind in _START_OF_FRAME:
            height, width = _FRAME_SIZE.unpack_from(data, at + 5)
            return height, width
        if kind == 0xFF:
            at += 1
        else:
            at += 2 if kind in _BARE_MARKERS else 2 + length
    return None


def _png_alpha(data: bytes) -> bool:
    if data[25:26] in (b"\4", b"\6"):
        return True
    at = 8
    while at + 8 <= len(data) and data[at + 4 : at + 8] != b"IDAT":
        if data[at + 4 : at + 8] == b"tRNS":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False


def _bmp_alpha(data: bytes) -> bool:
    holds_mask = int.from_bytes(data[14:18], "little") >= 56 and data[28:30] == b"\x20\0"
    return holds_mask and any(data[66:70])


def _webp_alpha(data: bytes) -> bool:
    if data[12:16] == b"VP8L":
        return bool(data[24:25] and data[24] & 0x10)
    return data[12:16] == b"VP8X" and bool(data[20:21] and data[20] & 0x10)


_ALPHA_OF = {"png": _png_alpha, "bmp": _bmp_alpha, "webp": _webp_alpha}
_SIZE_OF = {"jpeg": _jpeg_size, "png": _png_size, "bmp": _bmp_size, "webp": _webp_size}
