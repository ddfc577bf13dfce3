"""InsightFace .bin files: real pickles of every protocol are read, hostile ones are refused and run nothing."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from facekd.data.bin_format import read_bin, write_bin
from facekd.data.images import decode, encode_jpeg, encode_png
from facekd.data.pickle_walk import walk
from facekd.errors import DeviceError, InputError

GENUINE = [True, False, True]


def jpegs(count: int = 6) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [encode_jpeg(np.full((12, 10, 3), rng.integers(0, 256, 3), np.uint8)) for _ in range(count)]


def stored(tmp_path: Path, content: object, protocol: int = 4) -> Path:
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol)
    path = tmp_path / "set.bin"
    path.write_bytes(data)
    return path


def refusal(tmp_path: Path, content: object, protocol: int = 4) -> str:
    with pytest.raises(InputError) as caught:
        read_bin(stored(tmp_path, content, protocol))
    assert str(caught.value).startswith(f"{tmp_path}/set.bin: ")
    return str(caught.value).removeprefix(f"{tmp_path}/set.bin: ")


ENCODINGS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "flat array": lambda data: np.frombuffer(data, np.uint8),
    "owned array": lambda data: np.frombuffer(data, np.uint8).copy(),
    "column array": lambda data: np.frombuffer(data, np.uint8).reshape(-1, 1).copy(),
}
LABELS = {
    "list": list,
    "numpy scalars": lambda labels: [np.bool_(label) for label in labels],
    "array": lambda labels: np.array(labels),
}


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("labels", LABELS)
def test_pickles_of_python_and_numpy_are_read(tmp_path, protocol, encoding, labels):
    images = jpegs()
    content = ([ENCODINGS[encoding](data) for data in images], LABELS[labels](GENUINE))
    assert read_bin(stored(tmp_path, content, protocol)) == (images, GENUINE)


def test_numpy_1_module_names_are_read(tmp_path):
    images = jpegs()
    content = pickle.dumps(([np.frombuffer(data, np.uint8) for data in images], GENUINE), protocol=3)
    assert b"numpy._core" in content
    assert read_bin(stored(tmp_path, content.replace(b"numpy._core", b"numpy.core"))) == (images, GENUINE)


def test_python_2_strings_are_read(tmp_path):
    images = jpegs()
    short = b"".join(b"T" + struct.pack("<I", len(data)) + data for data in images)
    content = b"\x80\x02]q\x00(" + short + b"e]q\x01(\x88\x89\x88e\x86q\x02."
    assert pickle.loads(content, encoding="bytes") == (images, GENUINE)
    assert read_bin(stored(tmp_path, content)) == (images, GENUINE)


def test_long_lists_in_many_batches_with_repeated_images_are_read(tmp_path):
    images = jpegs(4) * 1500
    assert read_bin(stored(tmp_path, (images, [True] * 3000), 2)) == (images, [True] * 3000)


@pytest.mark.parametrize("fortran", [False, True])
def test_array_memory_order_does_not_matter_for_columns(tmp_path, fortran):
    data = jpegs(2)
    arrays = [np.array(np.frombuffer(d, np.uint8)[:, None], order="F" if fortran else "C") for d in data]
    assert read_bin(stored(tmp_path, (arrays, [True]))) == (data, [True])


def test_written_files_read_back_here_and_in_python(tmp_path):
    images = [*jpegs(5), encode_png(np.zeros((9, 9, 3), np.uint8))]
    write_bin(tmp_path / "set.bin", images, np.array(GENUINE))
    assert read_bin(tmp_path / "set.bin") == (images, GENUINE)
    assert pickle.loads((tmp_path / "set.bin").read_bytes()) == (images, GENUINE)
    assert os.listdir(tmp_path) == ["set.bin"]


def test_writing_refuses_what_reading_would(tmp_path):
    with pytest.raises(InputError, match="5 images for 3 labels"):
        write_bin(tmp_path / "set.bin", jpegs(5), GENUINE)
    with pytest.raises(InputError, match="image 1: not an image"):
        write_bin(tmp_path / "set.bin", [jpegs(1)[0], b"<html>"], [True])
    with pytest.raises(DeviceError, match="cannot be written"):
        write_bin(tmp_path / "none" / "set.bin", jpegs(2), [True])
    assert os.listdir(tmp_path) == []


def test_counts_and_records_are_named(tmp_path):
    images = jpegs()
    assert refusal(tmp_path, (images[:5], GENUINE)).startswith("5 images for 3 labels")
    assert refusal(tmp_path, ([*images[:4], b"<html>", images[5]], GENUINE)) == (
        "image 4: not an image (starts with '<html>')"
    )
    assert refusal(tmp_path, ([*images[:5], b""], GENUINE)) == "image 5: zero bytes"
    assert refusal(tmp_path, ([*images[:5], 7], GENUINE)).startswith("image 5: is the number 7, not an encoded image")
    pixels = np.zeros((112, 112, 3), np.uint8)
    assert "image 0: is an array of uint8 of shape (112, 112, 3)" in refusal(tmp_path, ([pixels, pixels], [True]))
    assert refusal(tmp_path, (images, [True, 1, False])) == "label 1: is the number 1, not True or False"
    assert refusal(tmp_path, (images, "yes")) == "the labels are a str, not a list"
    assert refusal(tmp_path, ([], [])) == "holds no pairs"
    assert refusal(tmp_path, images) == "does not hold two lists, the images and the labels"


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    marker = tmp_path / "ran"
    attack = Runs(os.system, f"touch {marker}")
    for content in (attack, ([attack], [True]), (jpegs(2), [attack]), Runs(eval, f"open({str(marker)!r}, 'w')")):
        message = refusal(tmp_path, content, protocol)
        assert "byte " in message and "is refused" in message
        assert not marker.exists()
    pickle.loads(pickle.dumps(attack))
    assert marker.exists()


def test_the_name_and_place_of_a_refused_global_are_told(tmp_path):
    attack = b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00ls\x85R."
    assert refusal(tmp_path, attack).startswith("byte 2: GLOBAL 'posix system' is refused")
    assert refusal(tmp_path, pickle.dumps(Runs(eval, "1"))).startswith("byte 29: STACK_GLOBAL 'builtins eval'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "byte 0: the file ends without STOP"),
        (b"<html>", "byte 0: opcode 0x3c is refused"),
        (b"(i__main__\nX\n.", "byte 1: opcode INST is refused"),
        (b"\x80\x02}.", "byte 2: opcode EMPTY_DICT is refused"),
        (b"\x80\x02c_codecs\nencode\nK\x01\x85R.", "encode with arguments"),
        (b"\x80\x02cnumpy\ndtype\nX\x01\x00\x00\x00OK\x00K\x01\x87R.", "dtype with arguments"),
        (b"\x80\x02cnumpy\nload\n.", "GLOBAL 'numpy load' is refused"),
        (b"\x80\x02cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.", "bytes with arguments"),
        (b"\x80\x02X\xff\xff\xff\xff.", "bytes announced, 1 left"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "bytes announced, 1 left"),
        (b"\x80\x02\x8a\xff" + bytes(255) + b".", "an integer of 255 bytes"),
        (b"\x80\x02" + b"(" * 100, "byte 66: groups nested deeper than 64"),
        (b"\x80\x02K\x01\x86.", "takes a value where there is none"),
        (b"\x80\x02t.", "closes a group that was not opened"),
        (b"\x80\x02h\x07.", "recalls value 7"),
        (b"\x80\x02N.rest", "4 bytes follow the end"),
        (b"\x80\x02NN.", "values left over"),
        (b"\x80\x09N.", "protocol above 5"),
        (b"\x80\x02Nb.", "takes a value where there is none"),
        (b"\x80\x02NNb.", "BUILD of something that is no numpy array"),
        (b"\x80\x02NNa.", "appends to something that is no list"),
    ],
)
def test_malformed_pickles_are_refused_at_their_byte(tmp_path, content, message):
    assert message in refusal(tmp_path, content)


@pytest.mark.slow
def test_memory_bombs_are_refused_small(tmp_path):
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000
    bombs = [
        b"\x80\x02Nr\xff\xff\xff\x1f.",
        b"\x80\x04Nr\xff\xff\xff\x7fr\xff\xff\xff\x7e.",
        b"\x80\x02" + b"]" * 700_000,
        b"\x80\x02c_codecs\nencode\nq\x00" + text + b"q\x01X\x06\x00\x00\x00latin1q\x02"
        b"(" + b"h\x00h\x01h\x02\x86R" * 10_000 + b"t.",
    ]
    for bomb in bombs:
        path = stored(tmp_path, bomb)
        tracemalloc.start()
        with pytest.raises(InputError):
            read_bin(path)
        assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
        tracemalloc.stop()


def test_the_eight_byte_memo_bomb_costs_nothing(tmp_path):
    path = stored(tmp_path, b"Nr\xff\xff\xff\x1f0.")
    tracemalloc.start()
    with pytest.raises(InputError):
        read_bin(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_deeply_nested_tuples_are_dropped_without_recursion(tmp_path):
    assert "does not hold two lists" in refusal(tmp_path, b"\x80\x02N" + b"\x85" * 200_000 + b".")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_mutated_files_are_read_or_refused_and_nothing_else(protocol):
    content = ([jpegs(1)[0][:40], np.arange(20, dtype=np.uint8).reshape(-1, 1)] * 2, [True, np.bool_(False)])
    original = pickle.dumps(content, protocol=protocol)
    rng = np.random.default_rng(protocol)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(1500):
        data = bytearray(original)
        for _ in range(rng.integers(1, 5)):
            at = int(rng.integers(len(data)))
            action = rng.integers(4)
            if action == 0:
                data[at] = rng.integers(256)
            elif action == 1:
                del data[at : at + int(rng.integers(1, 9))]
            elif action == 2:
                data[at:at] = original[at : at + int(rng.integers(1, 20))]
            else:
                data[at] ^= 1 << int(rng.integers(8))
        try:
            walk(bytes(data), "fuzz")
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 500 and outcomes["read"] > 10


def test_every_truncation_is_refused(tmp_path):
    data = pickle.dumps((jpegs(2), [True]), protocol=4)
    assert read_bin(stored(tmp_path, data))[1] == [True]
    for length in range(0, len(data), 7):
        told = refusal(tmp_path, data[:length])
        assert "cut short" in told and int(told.removeprefix("byte ").split(":")[0]) <= length


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(InputError, match="gone.bin: no such file"):
        read_bin(tmp_path / "gone.bin")
    with pytest.raises(InputError, match="not a regular file"):
        read_bin(tmp_path)


def test_the_third_party_file_is_read(shared_data):
    images, genuine = read_bin(shared_data / "formats" / "small_lfw.bin")
    assert len(images) == 20 and genuine == [True] * 10
    assert {decode(data, "small_lfw").shape for data in images} == {(112, 112, 3)}
    trusted = pickle.loads((shared_data / "formats" / "small_lfw.bin").read_bytes())
    assert [np.asarray(array).tobytes() for array in trusted[0]] == images
