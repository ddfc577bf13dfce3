"""Every reader of files that come from strangers, with valid files to damage."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from facekd_cli.shipped import find_recipe

from benchmarks.fuzzing import Parser
from facekd.data.checksums import checksum, read_checksums, write_checksums
from facekd.data.embedding_cache import open_cache
from facekd.data.ijb_lists import read_faces, read_points, read_subjects
from facekd.data.image_headers import header_size
from facekd.data.images import decode, encode_jpeg, encode_png
from facekd.data.labelled_lines import read_text_pairs
from facekd.data.landmark_files import read_landmarks
from facekd.data.lists import read_rows
from facekd.data.number_rows import number_rows
from facekd.data.pair_lists import read_lfw_pairs, read_table_pairs
from facekd.data.pickle_walk import walk
from facekd.data.record_heads import pack_image
from facekd.data.record_source import RecordSource
from facekd.data.recordio import encode_record, read_index
from facekd.data.tar_source import TarSource
from facekd.engine.embed import load_embeddings
from facekd.engine.evaluation.request import Request
from facekd.engine.evaluation.verifying import read_report
from facekd.engine.resumable import Partial
from facekd.engine.training.checkpoint import load_checkpoint
from facekd.engine.training.snapshots import read_manifest
from facekd.files import file_digest
from facekd.models import safetensors_file, torch_file
from facekd.recipe import load_recipe


def _image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)


def _in_memory(write: Callable[[io.BytesIO], object]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def _records() -> bytes:
    labels = (0.0, 0.0, 1.0, (1.0, 0.0))
    return b"".join(encode_record(pack_image(label, key, encode_png(_image(key)))) for key, label in enumerate(labels))


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as target:
        for key in range(3):
            for suffix, data in (("png", encode_png(_image(key))), ("cls", str(key % 2).encode())):
                entry = tarfile.TarInfo(f"{key}.{suffix}")
                entry.size = len(data)
                target.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def _npz() -> bytes:
    arrays = {
        "embeddings": np.eye(4, dtype=np.float32),
        "labels": np.arange(4) // 2,
        "names": np.array(["a", "b", "c", "d"]),
        "identities": np.array(["x", "y"]),
        "flip": np.array(True),
    }
    return _in_memory(lambda stream: np.savez(stream, **arrays))


def _checksums() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "c")
        write_checksums(path, [checksum(name, name.encode()) for name in ("a.png", "b/c.png")])
        return path.read_bytes()


def _all_records(path: Path) -> None:
    source = RecordSource(path)
    for index in range(len(source)):
        source.encoded(index)


def _all_members(path: Path) -> None:
    source = TarSource(path)
    for index in range(len(source)):
        source.encoded(index)


def _decode(path: Path) -> None:
    data = path.read_bytes()
    header_size(data)
    decode(data, path.name)


def _recipe(path: Path) -> None:
    load_recipe(path, allow_required=True)


def _walked(path: Path) -> None:
    walk(path.read_bytes(), path.name)


def _index(path: Path) -> None:
    read_index(path, 4000)


def _safetensors(path: Path) -> None:
    safetensors_file.decode(path.read_bytes(), path.name)


def _torch(path: Path) -> None:
    torch_file.decode(path.read_bytes(), path.name)


def _lines_of_checksums(path: Path) -> None:
    list(read_checksums(path))


def _checkpoint(path: Path) -> None:
    """A checkpoint alone in its folder, whose digest is the recorded one whatever is in it."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        Path(folder, "step-000000001.safetensors").write_bytes(path.read_bytes())
        line = {"file": "step-000000001.safetensors", "sha256": file_digest(path)}
        Path(folder, "checkpoints.jsonl").write_text(json.dumps(line))
        load_checkpoint(Path(folder))


def _cache_record(path: Path) -> None:
    """The record of a teacher cache of four images, of which none is computed yet."""
    with tempfile.TemporaryDirectory(dir=path.parent) as root:
        Path(root, "k").mkdir()
        Path(root, "k", "cache.json").write_bytes(path.read_bytes())
        open_cache(
            Path(root), "k", shape=(4, 1, 2), embed=lambda start, stop: np.zeros((stop - start, 1, 2), np.float32)
        )


def _work_state(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        Path(folder, "state.json").write_bytes(path.read_bytes())
        Partial(Path(folder))


def _numbers(path: Path) -> None:
    list(number_rows(path, ("template id", "template id", "label")))


def _points(path: Path) -> None:
    faces = path.with_name("faces.txt")
    faces.write_text("1.png 1 1\n2.png 1 2\n")
    read_points(path, read_faces(faces))


PAIRS = b"1\t2\nAnn\t1\t2\nBob\t1\t2\nAnn\t1\tBob\t1\nBob\t2\tCy_d\t1\n"
TABLE = b"path1,path2,label,fold\na/1.png,a/2.png,1,0\na/1.png,b/1.png,0,1\n"
POINTS = "".join(f"{n}.png 30 40 70 40 50 60 35 80 65 80 0.9\n" for n in (1, 2)).encode()
LANDMARKS = b"path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5\na/1.png,30,40,70,40,50,60,35,80,65,80\n"
ENTRY = {"epoch": 1, "step": 4, "file": "epoch-001.safetensors", "sha256": "0" * 64, "embedding_size": 8}
MANIFEST = json.dumps({"format": "facekd-snapshots-1", "facekd": "0.1", "epochs": 2, "snapshots": [ENTRY]}).encode()
TENSORS = {"student.weight": torch.ones(2, 3), "student.bias": torch.zeros(2)}
OPCODES = [bytes([code]) for code in range(256)]
TEXT = (b"\t", b",", b" ", b"\n", b"\r\n", b'"', b"\xef\xbb\xbf", b"\0", b"\\", b"a/b", b"..", b"C:\\x")
YAML = (
    b"&a ",
    b"*a",
    b"!!x ",
    b"- ",
    b": ",
    b"[",
    b"{",
    b"\t",
    b"'",
    b'"',
    b"1e999",
    b".nan",
    b"010",
    b"#",
    b"|",
    b"? ",
)

JSON = (b"null", b"[", b"{", b"-1", b"1e9", b"true", b"NaN")

ASKED = Request(("a",), ("b",), None, "auto", (1e-3,), True, (28,), "full", None, None, False, False, 0, 8, "cpu")
RESULT = dict.fromkeys(("model", "model_digest", "set", "set_digest"), "a")
REPORT = json.dumps({"results": [RESULT], "arguments": asdict(ASKED)}).encode()
CHECKPOINT = safetensors_file.encode(TENSORS, {"facts": '{"format": "facekd-checkpoint-1", "step": 1}'})
MODEL = safetensors_file.encode(TENSORS, {"facts": '{"step": 1}'})
PICKLE = pickle.dumps(([encode_png(_image(0))[:30], np.arange(8, dtype=np.uint8)] * 2, [True, np.bool_(False)]), 4)
OLD_PICKLE = pickle.dumps(([b"ab", b"cd"], [True]), 2)

READERS: tuple[tuple[str, Callable[[Path], object], bytes, str, Sequence[bytes], int], ...] = (
    ("recipe", _recipe, find_recipe("quickstart/l2").read_bytes(), ".yaml", YAML, 1),
    ("lfw_pairs", read_lfw_pairs, PAIRS, ".txt", TEXT, 50),
    ("table_pairs", read_table_pairs, TABLE, ".csv", TEXT, 40),
    ("text_pairs", read_text_pairs, b"a/1.png 1\na/2.png 1\na/1.png 0\nb/1.png 0\n", ".txt", TEXT, 20),
    ("list", read_rows, b"path,identity\na/1.png,a\n'b c',d\n", ".csv", TEXT, 180),
    ("bin", _walked, PICKLE, ".bin", OPCODES, 90),
    ("bin_of_python_2", _walked, OLD_PICKLE, ".bin", OPCODES, 80),
    ("records", _all_records, _records(), ".rec", (b"\x0a\x23\xd7\xce", b"\0\0\0\x20"), 10),
    ("index", _index, b"1\t0\n2\t400\n3\t800\n", ".idx", TEXT, 15),
    ("tar", _all_members, _tar(), ".tar", (b"ustar", b"\0" * 512), 4),
    ("ijb_faces", read_faces, b"1.png 1 2\n2.png 1 3\n3.png 7 4\n", ".txt", TEXT, 60),
    ("ijb_points", _points, POINTS, ".txt", TEXT, 5),
    ("ijb_subjects", read_subjects, b"TEMPLATE_ID,SUBJECT_ID,FILENAME\n1,2,a\n3,4,b\n", ".csv", TEXT, 90),
    ("landmarks", read_landmarks, LANDMARKS, ".csv", TEXT, 10),
    ("embeddings", load_embeddings, _npz(), ".npz", (b"PK\x03\x04", b"\x93NUMPY", b"{'descr': '|O'"), 5),
    ("safetensors", _safetensors, MODEL, "", (b'"F32"', b"[0,0]"), 40),
    ("torch", _torch, _in_memory(lambda stream: torch.save(TENSORS, stream)), "", OPCODES, 5),
    ("manifest", read_manifest, MANIFEST, ".json", JSON, 90),
    ("report", read_report, REPORT, ".json", JSON, 20),
    ("checkpoint", _checkpoint, CHECKPOINT, "", (b'"F32"', b"[0,0]", b"step", b"{"), 4),
    ("cache_record", _cache_record, b'{"shape": [4, 1, 2], "done": 0}', "", JSON, 4),
    ("work_state", _work_state, b'{"done": 2, "sizes": {"images.rec": 40}}', "", JSON, 6),
    ("ijb_pairs", _numbers, b"1 2 1\n1 3 0\n22 3 0\n", ".txt", TEXT, 15),
    ("checksums", _lines_of_checksums, _checksums(), "", TEXT, 116),
)
"""Name, reader, a valid file, its suffix, words of the format, share of a thousand executions."""

PARSERS = (
    *(Parser(name, read, [sample], suffix, words, share) for name, read, sample, suffix, words, share in READERS),
    Parser("png", _decode, [encode_png(_image(1))], "", (b"IHDR", b"IDAT"), 20, 256, 10.0),
    Parser("jpeg", _decode, [encode_jpeg(_image(2))], "", (b"\xff\xd8", b"\xff\xc0", b"\xff\xd9"), 20, 256, 10.0),
)
"""Images may take as much as 64 megapixels do."""
