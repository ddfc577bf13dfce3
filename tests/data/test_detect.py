"""Detector files: told apart by what they put out, decoded as their definition says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from facekd.data.align import TEMPLATE
from facekd.data.detect import load_detector
from facekd.data.faces import Face, largest, most_central
from facekd.data.images import decode, read_bytes, resize
from facekd.data.scrfd import STRIDES, decode_scrfd, letterbox, suppressed
from facekd.errors import InputError

SIDE = 640
WIDTHS = (1, 4, 10)


def raw_outputs(side: int, seed: int = 0, batched: bool = False) -> list[np.ndarray]:
    """Random outputs in the order of the published files: scores, boxes, points, each for every stride."""
    generator = np.random.default_rng(seed)
    outputs = []
    for width in WIDTHS:
        for stride in STRIDES:
            values = generator.random((2 * (side // stride) ** 2, width), np.float32)
            values = values if width == 1 else 4 * values
            outputs.append(values[None] if batched else values)
    return outputs


def slow_decode(outputs: list[np.ndarray], side: int, least: float) -> list[tuple[float, ...]]:
    found = []
    for level, stride in enumerate(STRIDES):
        row = 0
        for y in range(0, side, stride):
            for x in range(0, side, stride):
                for _ in range(2):
                    score = float(outputs[level][row, 0])
                    left, up, right, down = (float(value) * stride for value in outputs[3 + level][row])
                    points = [float(value) * stride for value in outputs[6 + level][row]]
                    if score >= least:
                        box = (x - left, y - up, left + right, up + down)
                        places = [(x, y)[k % 2] + points[k] for k in range(10)]
                        found.append((score, *box, *places))
                    row += 1
    return sorted(found)


def flat(faces: list[Face]) -> list[tuple[float, ...]]:
    return sorted((face.score, *face.box.tolist(), *face.landmarks.ravel().tolist()) for face in faces)


@pytest.mark.parametrize("least", [0.0, 0.5, 0.97])
def test_decoding_is_that_of_plain_loops(least: float) -> None:
    outputs = raw_outputs(96)
    found, expected = flat(decode_scrfd(outputs, 96, least)), slow_decode(outputs, 96, least)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_decoding_does_not_depend_on_the_order_or_the_batch_axis() -> None:
    outputs = raw_outputs(64)
    expected = flat(decode_scrfd(outputs, 64))
    assert flat(decode_scrfd(outputs[::-1], 64)) == expected
    assert flat(decode_scrfd(raw_outputs(64, batched=True), 64)) == expected


def test_rows_that_are_not_finite_are_no_faces() -> None:
    outputs = raw_outputs(64)
    for output, value in zip(outputs[0::3], (np.nan, np.inf, np.nan), strict=True):
        output[:2] = value
    found = decode_scrfd(outputs, 64, 0.0)
    assert len(found) == sum(len(output) for output in outputs[:3]) - 2
    assert all(np.isfinite([*face.box, face.score, *face.landmarks.ravel()]).all() for face in found)


def overlap(one: Face, other: Face) -> float:
    (x, y, w, h), (u, v, k, m) = one.box.tolist(), other.box.tolist()
    across, down = min(x + w, u + k) - max(x, u), min(y + h, v + m) - max(y, v)
    shared = max(0.0, across) * max(0.0, down)
    return shared / (w * h + k * m - shared)


def test_suppression_is_that_of_plain_loops() -> None:
    generator = np.random.default_rng(4)
    corners, sizes = generator.uniform(0, 60, (40, 2)), generator.uniform(10, 40, (40, 2))
    scores = generator.permutation(40) / 50 + 0.1
    faces = [Face(np.r_[corners[k], sizes[k]], float(scores[k]), TEMPLATE) for k in range(40)]
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score):
        if all(overlap(face, surer) <= 0.4 for surer in kept):
            kept.append(face)
    assert [face.score for face in suppressed(faces)] == [face.score for face in kept]
    assert 1 < len(kept) < 40
    assert suppressed([]) == []


def test_the_letterbox_keeps_the_aspect_and_the_colours() -> None:
    image = np.zeros((50, 100, 3), np.uint8)
    image[..., 0] = 200
    blob, scale = letterbox(image)
    assert (blob.shape, blob.dtype, scale) == ((1, 3, SIDE, SIDE), np.float32, 6.4)
    assert np.unique(blob[0, 0, :320]).tolist() == [(200 - 127.5) / 128]
    assert np.unique(blob[0, 1, :320]).tolist() == np.unique(blob[0, :, 320:]).tolist() == [-127.5 / 128]


def scrfd_file(path: Path, outputs: list[np.ndarray], batched: bool = False, dynamic: bool = False) -> Path:
    """A network built like SCRFD's heads that puts out ``outputs`` whatever it sees."""
    constants, nodes, results = [], [], []
    for index, output in enumerate(outputs):
        rows, width = output.shape
        cells = int((rows // 2) ** 0.5)
        stride = SIDE // cells
        maps = output.reshape(cells, cells, 2 * width).transpose(2, 0, 1)[None]
        constants += [
            numpy_helper.from_array(np.zeros((2 * width, 3, stride, stride), np.float32), f"w{index}"),
            numpy_helper.from_array(np.ascontiguousarray(maps), f"m{index}"),
            numpy_helper.from_array(np.array([1, -1, width] if batched else [-1, width]), f"s{index}"),
        ]
        order = [0, 2, 3, 1] if batched else [2, 3, 0, 1]
        nodes += [
            helper.make_node("Conv", ["input.1", f"w{index}"], [f"c{index}"], strides=[stride, stride]),
            helper.make_node("Add", [f"c{index}", f"m{index}"], [f"a{index}"]),
            helper.make_node("Transpose", [f"a{index}"], [f"t{index}"], perm=order),
            helper.make_node("Reshape", [f"t{index}", f"s{index}"], [str(448 + index)]),
        ]
        shape = [*([1] if batched else []), f"n{index}" if dynamic else rows, width]
        results.append(helper.make_tensor_value_info(str(448 + index), TensorProto.FLOAT, shape))
    size = ["height", "width"] if dynamic else [SIDE, SIDE]
    field = helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, *size])
    graph = helper.make_graph(nodes, "g", [field], results, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), path)
    return path


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_an_scrfd_file_runs_under_any_name(tmp_path: Path, batched: bool, dynamic: bool) -> None:
    outputs = [np.zeros_like(output) for output in raw_outputs(SIDE)]
    row = 2 * (10 * 40 + 20)  # stride 16, line 10, column 20: anchor (320, 160)
    outputs[1][row] = 0.9
    outputs[4][row] = (4, 5, 6, 7)
    outputs[7][row] = ((TEMPLATE - 56) / 16).ravel()
    outputs[1][row + 1] = 0.8
    outputs[4][row + 1] = (4, 5, 6, 6)
    detector = load_detector(scrfd_file(tmp_path / "yunet 顔.onnx", outputs, batched, dynamic))
    assert detector.kind == "scrfd"
    (face,) = detector.detect(np.zeros((240, 320, 3), np.uint8))  # the field is twice as large
    np.testing.assert_allclose(face.box, [128, 40, 80, 96])
    np.testing.assert_allclose(face.landmarks, (TEMPLATE - 56 + (320, 160)) / 2, atol=1e-4)
    assert face.score == pytest.approx(0.9)
    assert detector.refined(np.zeros((240, 320, 3), np.uint8), face) is face


def without_points() -> list[np.ndarray]:
    return raw_outputs(SIDE)[:6]


def logits() -> list[np.ndarray]:
    return [output - 2 for output in raw_outputs(SIDE)]


def doubled() -> list[np.ndarray]:
    outputs = raw_outputs(SIDE)
    return [*outputs[:6], *outputs[:3]]


def one_output() -> list[np.ndarray]:
    return raw_outputs(SIDE)[:1]


def odd_width() -> list[np.ndarray]:
    outputs = raw_outputs(SIDE)
    return [*outputs[:8], outputs[8][:, :8]]


@pytest.mark.parametrize(
    ("outputs", "told"),
    [
        (without_points, "an SCRFD without key points: it finds boxes only"),
        (logits, "its scores of stride 8 are no probabilities: the sigmoid is missing"),
        (doubled, "its outputs are not those of SCRFD"),
        (one_output, "a network with 1 output is no face detector known here"),
        (odd_width, r"an output of shape \(800, 8\) is not one of SCRFD"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, outputs: Callable[[], list[np.ndarray]], told: str) -> None:
    path = scrfd_file(tmp_path / "det_10g.onnx", outputs())
    with pytest.raises(InputError, match=rf"det_10g.onnx: {told}.* \(give a YuNet or an SCRFD"):
        load_detector(path)


@pytest.mark.parametrize(
    ("data", "told"),
    [(None, "no such file"), (b"", "the file is empty"), (b"no network" * 9, "OpenCV cannot run it")],
)
def test_what_is_no_network_is_refused(
    tmp_path: Path, data: bytes | None, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.onnx"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(InputError, match=f"a.onnx: {told}") as refused:
        load_detector(path)
    assert len(refused.value.lines) == 1
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        load_detector(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_one_of_several_faces_is_chosen() -> None:
    boxes = [(0, 0, 50, 50), (60, 40, 20, 20), (90, 90, 10, 10)]
    faces = [Face(np.array(box, float), 0.9, TEMPLATE) for box in boxes]
    assert largest(faces) is faces[0]
    assert most_central(faces, 120, 140) is faces[1]
    assert most_central(faces, 190, 190) is faces[2]


def test_yunet_finds_faces_small_and_large_and_none_where_there_is_none(
    shared_data: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    renamed = tmp_path / "det_10g.onnx"
    renamed.write_bytes((shared_data / "models" / "yunet.onnx").read_bytes())
    detector = load_detector(renamed)
    assert detector.kind == "yunet"
    path = shared_data / "lfw112" / "George_W_Bush" / "George_W_Bush_0001.jpg"
    crop = decode(read_bytes(path), "crop")
    for scale in (0.5, 1, 3, 8):
        side = round(112 * scale)
        photograph = np.full((2 * side, 3 * side, 3), 110, np.uint8)
        photograph[side // 2 : side // 2 + side, side : 2 * side] = resize(crop, (side, side))
        (face,) = detector.detect(photograph)
        error = (face.landmarks - (side, side // 2)) / scale - TEMPLATE
        assert np.linalg.norm(error, axis=1).mean() < 7, scale
        closer = detector.refined(photograph, face)
        assert (closer.score, closer.box.tolist()) == (face.score, face.box.tolist())
        error = (closer.landmarks - (side, side // 2)) / scale - TEMPLATE
        assert np.linalg.norm(error, axis=1).mean() < 5, scale
    empty = np.zeros((200, 200, 3), np.uint8)
    assert detector.refined(empty, face) is face
    assert detector.detect(np.full((300, 200, 3), 90, np.uint8)) == []
    noise = np.random.default_rng(0).integers(0, 256, (200, 2000, 3), np.uint8)
    assert detector.detect(noise) == []
    assert capfd.readouterr() == ("", "")
