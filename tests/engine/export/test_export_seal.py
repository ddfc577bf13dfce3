"""An exported file that is not as it was written is refused, whichever bit of it changed and wherever it was cut."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from bad_inputs import write_faces
from click.testing import CliRunner
from facekd_cli.main import cli
from random_model import tiny_model_bytes
from unsealed import save_unsealed

from facekd.engine.export.card import manifest
from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.errors import InputError
from facekd.files import file_digest
from facekd.models.embedder import load_embedder
from facekd.models.onnx_file import parse
from facekd.models.onnx_seal import BLANK, SEAL, sealed
from facekd.runtime import load_model

REFUSED = "a.onnx: (is not as it was exported|the seal it was exported with is gone|truncated, damaged|holds no graph)"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "student.safetensors").write_bytes(tiny_model_bytes())
    export_onnx(load_embedder(folder / "student.safetensors"), folder / "a.onnx", opencv=False)
    return folder / "a.onnx"


def seal_of(path: Path) -> str:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}[SEAL]


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("load", [load_embedder, load_model])
def test_500_flipped_bits_and_100_cuts_are_all_refused(load: Callable, exported: Path, tmp_path: Path) -> None:
    whole, draw, path = exported.read_bytes(), random.Random(0), tmp_path / "a.onnx"
    damaged = [flipped(whole, draw.randrange(8 * len(whole))) for _ in range(500)]
    damaged += [whole[: draw.randrange(len(whole))] for _ in range(100)]
    for data in damaged:
        path.write_bytes(data)
        with pytest.raises(InputError, match=REFUSED):
            load(path)


def test_every_bit_of_the_seal_itself_and_of_the_name_that_asks_for_one_counts(exported: Path) -> None:
    whole = exported.read_bytes()
    seal, producer = whole.index(SEAL.encode()), whole.index(b"facekd")
    assert producer < 32 and whole.count(SEAL.encode()) == 1
    places = [*range(seal - 2, seal + len(SEAL) + 2 + 64), *range(producer - 2, producer + 6)]
    for bit in (8 * place + number for place in places for number in range(8)):
        with pytest.raises(InputError, match=REFUSED):
            parse(flipped(whole, bit), "a.onnx")


def test_a_cut_at_every_byte_of_what_follows_the_graph_is_refused(exported: Path) -> None:
    whole = exported.read_bytes()
    model = onnx.load_model_from_string(whole)
    model.ClearField("metadata_props")
    for length in range(model.ByteSize() - 64, len(whole)):
        with pytest.raises(InputError, match=REFUSED):
            parse(whole[:length], "a.onnx")


@pytest.mark.parametrize("form", [Form("baked"), Form("uint8", batch=2), Form(precision="fp16", unit=True)])
def test_every_form_is_sealed_and_an_export_of_an_export_anew(form: Form, exported: Path, tmp_path: Path) -> None:
    report = export_onnx(load_embedder(exported), tmp_path / "b.onnx", form, opencv=False)
    assert len({seal_of(tmp_path / "b.onnx"), seal_of(exported), BLANK}) == 3
    load_model(tmp_path / "b.onnx")
    assert (
        report.digest == manifest(report)["digest"] == file_digest(tmp_path / "b.onnx") != seal_of(tmp_path / "b.onnx")
    )
    assert SEAL not in report.metadata and seal_of(tmp_path / "b.onnx") not in json.dumps(manifest(report))


def test_a_file_of_another_tool_carries_no_seal_and_is_taken(exported: Path, tmp_path: Path) -> None:
    save_unsealed(onnx.load(exported), tmp_path / "b.onnx")
    face = np.full((1, 32, 32, 3), 99, np.uint8)
    np.testing.assert_array_equal(load_model(tmp_path / "b.onnx").embed(face), load_model(exported).embed(face))


@pytest.mark.parametrize(
    "words",
    [
        ["bench", "a.onnx"],
        ["eval", "a.onnx", "--on", "faces"],
        ["export", "a.onnx", "-o", "b.onnx"],
        ["embed", "a.onnx", "faces", "-o", "e.npz"],
        ["match", "faces/p0/0.png", "faces/p0/1.png", "--model", "a.onnx"],
    ],
    ids=lambda words: words[0],
)
def test_commands_name_the_file_in_one_line(
    words: list[str], exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = exported.read_bytes()
    write_faces(tmp_path / "faces")
    (tmp_path / "a.onnx").write_bytes(flipped(whole, 4 * len(whole)))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("facekd: error: ")]
    assert "a.onnx: is not as it was exported: its SHA-256 differs" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "faces"]


def test_what_has_no_place_for_a_seal_is_not_sealed() -> None:
    with pytest.raises(ValueError, match="holds facekd.seal once"):
        sealed(b"weights")
