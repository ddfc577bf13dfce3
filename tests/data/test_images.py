"""Images: accepted formats round-trip, everything else is refused by name before a decoder runs."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib

import cv2
import numpy as np
import pytest

from facekd.data import images
from facekd.data.image_headers import has_alpha, header_size
from facekd.errors import DataError


def smooth_image(height: int = 40, width: int = 30) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=2).astype(np.uint8)


def encoded(suffix: str, array: np.ndarray) -> bytes:
    return cv2.imencode(suffix, array)[1].tobytes()


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def refusal(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        images.decode(data, "face.jpg")
    return str(caught.value)


def test_lossless_formats_return_the_pixels_in_rgb_order():
    image = smooth_image()
    for suffix in (".png", ".bmp"):
        assert np.array_equal(images.decode(encoded(suffix, image[..., ::-1]), "x"), image)
    assert np.array_equal(images.decode(images.encode_png(image), "x"), image)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_formats_return_nearly_the_pixels(suffix):
    image = smooth_image()
    decoded = images.decode(encoded(suffix, image[..., ::-1]), "x")
    assert np.abs(decoded.astype(int) - image).mean() < 6


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
@pytest.mark.parametrize("size", [(8, 8), (9, 200), (113, 57)])
def test_the_header_states_the_size_that_decodes(suffix, size):
    data = encoded(suffix, smooth_image(*size))
    assert header_size(data) == size == images.decode(data, "x").shape[:2]


def test_progressive_jpeg_and_lossless_webp_headers_are_read():
    image = smooth_image()
    progressive = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    lossless = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    assert header_size(progressive) == header_size(lossless) == (40, 30)
    assert np.array_equal(images.decode(lossless, "x"), image[..., ::-1])


def test_gray_is_repeated_alpha_dropped_and_sixteen_bits_scaled():
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (12, 10), dtype=np.uint8)
    assert np.array_equal(images.decode(encoded(".png", gray), "x"), np.repeat(gray[..., None], 3, axis=2))
    rgba = rng.integers(0, 256, (12, 10, 4), dtype=np.uint8)
    assert np.array_equal(images.decode(encoded(".png", rgba), "x"), rgba[..., 2::-1])
    deep = rng.integers(0, 65536, (12, 10, 3), dtype=np.uint16)
    assert np.abs(images.decode(encoded(".png", deep), "x").astype(int) - (deep[..., ::-1] / 257)).max() < 1.01


@pytest.mark.parametrize(("suffix", "options"), [(".png", ()), (".bmp", ()), (".webp", (101,)), (".webp", (80,))])
def test_item_045_transparency_is_told_from_the_header(suffix, options):
    rgba = np.random.default_rng(0).integers(0, 256, (12, 10, 4), dtype=np.uint8)
    quality = [cv2.IMWRITE_WEBP_QUALITY, *options] if options else []
    assert has_alpha(cv2.imencode(suffix, rgba, quality)[1].tobytes())
    assert not has_alpha(cv2.imencode(suffix, rgba[..., :3], quality)[1].tobytes())
    assert not has_alpha(images.encode_jpeg(rgba[..., :3].copy()))


def test_item_045_a_palette_with_transparent_colours_counts():
    plain = images.encode_png(smooth_image())
    end = 8 + 25
    body = b"tRNS" + bytes(6)
    chunk = struct.pack(">I", 6) + body + struct.pack(">I", zlib.crc32(body))
    assert has_alpha(plain[:end] + chunk + plain[end:]) and not has_alpha(plain)
    assert not has_alpha(plain[:30]) and not has_alpha(b"")


def test_exif_orientation_is_ignored():
    jpeg = images.encode_jpeg(smooth_image(40, 30))
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + jpeg[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (30, 40, 3)
    assert np.array_equal(images.decode(turned, "x"), images.decode(jpeg, "x"))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_every_truncation_is_refused_with_the_name(suffix):
    data = encoded(suffix, smooth_image())
    for length in range(len(data) - (0 if suffix == ".jpg" else 1), 0, -max(1, len(data) // 60)):
        if length == len(data):
            continue
        assert refusal(data[:length]).startswith("face.jpg: ")


def test_messages_say_what_the_file_is():
    assert refusal(b"") == "face.jpg: zero bytes"
    assert refusal(b"<html><body>") == "face.jpg: not an image (starts with '<html>')"
    assert refusal(b"\x80\x02]q\0" + bytes(40)).startswith("face.jpg: not an image (starts with '\\x80\\x02]q")
    assert refusal(b"GIF89a" + bytes(30)) == "face.jpg: GIF is not accepted (convert it to JPEG, PNG, BMP or WebP)"
    assert "TIFF is not accepted" in refusal(b"II*\0" + bytes(30))
    assert "JPEG 2000 is not accepted" in refusal(b"\0\0\0\x0cjP  \r\n\x87\n")
    animated = b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\x02" + bytes(20)
    assert "animated WebP" in refusal(animated)


def test_small_and_huge_images_are_refused_from_the_header_alone():
    assert refusal(encoded(".png", np.zeros((1, 1, 3), np.uint8))) == "face.jpg: 1x1 pixels is too small (at least 8x8)"
    assert "200x3 pixels is too small" in refusal(encoded(".png", np.zeros((3, 200, 3), np.uint8)))
    tracemalloc.start()
    assert refusal(png_of_size(9000, 9000)) == "face.jpg: 9000x9000 pixels: 81 MP > 64 MP"
    assert "1600 MP > 64 MP" in refusal(png_of_size(40000, 40000))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_random_bytes_behind_a_signature_never_escape_as_another_error():
    rng = np.random.default_rng(1)
    starts = [encoded(s, smooth_image())[:n] for s in (".jpg", ".png", ".bmp", ".webp") for n in (4, 12, 40)]
    for start in starts:
        for _ in range(20):
            assert refusal(start + rng.bytes(60)).startswith("face.jpg: ")


def test_reading_names_what_is_not_there_or_not_a_file(tmp_path):
    with pytest.raises(DataError, match="gone.jpg: no such file"):
        images.read_bytes(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="not a regular file"):
        images.read_bytes(tmp_path)
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(DataError, match="not a regular file"):
        images.read_bytes(tmp_path / "pipe.jpg")
    (tmp_path / "a b\n.jpg").write_bytes(b"x")
    assert images.read_bytes(tmp_path / "a b\n.jpg") == b"x"


def test_resize_averages_when_shrinking_and_keeps_constants():
    checker = (np.indices((16, 16)).sum(0) % 2 * 200).astype(np.uint8)[..., None].repeat(3, 2)
    assert (images.resize(checker, (8, 8)) == 100).all()
    assert (images.resize(np.full((9, 8, 3), 77, np.uint8), (30, 40)) == 77).all()
    assert images.resize(checker, (16, 16)) is checker
    assert images.to_chw(checker).flags["C_CONTIGUOUS"]


def test_a_real_photograph_decodes(shared_data):
    path = shared_data / "lfw112" / "Zico" / "Zico_0001.jpg"
    assert images.decode(images.read_bytes(path), "Zico").shape == (112, 112, 3)


@pytest.mark.parametrize("announced", [2**31 - 1, 2**32 - 1, 2**29, 400])
def test_a_png_whose_chunk_announces_more_than_there_is_reaches_no_decoder(announced, monkeypatch):
    """OpenCV sets 2 GB aside for 97 bytes of this kind."""
    data = images.encode_png(smooth_image(16, 16))
    at = data.index(b"IDAT") - 4
    bad = data[:at] + struct.pack(">I", len(data) - at - 11 if announced == 400 else announced) + data[at + 4 :]
    monkeypatch.setattr(images.cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(DataError, match="a.png: cut short or damaged: the png does not decode"):
        images.decode(bad, "a.png")
