"""The benchmarks of exported files measure every form, keep what they measured, and tell it as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from facekd_cli.shipped import find_recipe, shipped_recipes

from benchmarks import exported_latency, exports, latency
from benchmarks.export_tables import exported_latency as exported_latency_table
from benchmarks.export_tables import exports as exports_table
from benchmarks.export_tables import latency as latency_table
from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.models.onnx_model import load_onnx
from facekd.recipe import load_recipe

TINY: latency.Student = ("resnet_tiny", 8, 32, {"channels": "4,8", "blocks": "1,1", "activation": "prelu"})


def test_latency__students_are_those_of_the_recipes_with_each_activation() -> None:
    found = list(latency.students().values())
    known = [load_recipe(find_recipe(name), allow_required=True).student for name in shipped_recipes()]
    assert {what[0] for what in found} == {s.backbone for s in known if not s.backbone.startswith("iresnet")}
    for backbone in ("mobilefacenet", "resnet_tiny"):
        told = [what[3]["activation"] for what in found if what[0] == backbone]
        assert told.count("prelu") == told.count("relu") == len(told) / 2 > 0


@pytest.mark.slow
def test_latency__every_form_of_a_student_is_written_and_timed_in_turns() -> None:
    student = latency.drawn("tiny", *TINY)
    found = latency.measured(student, batch=2, repeats=3, turns=2)
    assert found["bytes"].keys() == {"plain", "rewritten", "fp16", "int8"}
    ran = {(row["form"], row["runtime"]) for row in found["rows"]}
    assert ran == set(latency_columns()) and {row["batch"] for row in found["rows"]} == {1, 2}
    assert all(len(row["seconds"]) == 2 and min(row["seconds"]) > 0 for row in found["rows"])


def latency_columns() -> list[tuple[str, str]]:
    files = [(form, "onnxruntime") for form in ("plain", "rewritten", "fp16", "int8")]
    return [("torch", "torch"), *files, ("plain", "opencv"), ("rewritten", "opencv")]


def test_latency__the_file_of_integers_leaves_nothing_in_float(tmp_path: Path) -> None:
    student = latency.drawn("tiny", *TINY)
    path = latency.written(student, tmp_path)["int8"]
    graph = onnx.load(path).graph
    made = {name: node.op_type for node in graph.node for name in node.output}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert len(layers) >= 7
    assert all({made.get(name) for name in node.input[:2]} == {"DequantizeLinear"} for node in layers)
    images = torch.zeros(3, 3, 32, 32, dtype=torch.uint8)
    assert load_onnx(path, "a", color="rgb", normalize="half").embed(images).shape == (3, 8)


def test_latency__a_student_without_prelu_has_no_other_words(tmp_path: Path) -> None:
    student = latency.drawn("tiny", *TINY[:3], {**TINY[3], "activation": "relu"})
    assert latency.written(student, tmp_path).keys() == {"plain", "fp16", "int8"}


def test_latency__goes_on_where_it_stopped_and_mixes_no_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "students", lambda: {"a": TINY, "b": TINY, "c": TINY})
    calls: list[tuple[int, int, int]] = []

    def measured(student: object, batch: int, repeats: int, turns: int) -> dict[str, Any]:
        calls.append((batch, repeats, turns))
        return {"bytes": {}, "rows": []}

    monkeypatch.setattr(latency, "measured", measured)
    out, counts = tmp_path / "a.json", {"batch": 4, "repeats": 12, "turns": 1}
    latency.study(out, counts, most=2)
    assert len(calls) == 2
    latency.study(out, counts)
    assert calls == [(4, 12, 1)] * 3
    record = json.loads(out.read_text())
    assert [entry["student"] for entry in record["students"]] == ["a", "b", "c"]
    assert record["command"] == "python -m benchmarks.latency --batch 4 --turns 1"
    with pytest.raises(SystemExit, match="was measured otherwise"):
        latency.study(out, counts | {"turns": 2})


def test_latency__the_table_shows_ratios_whatever_they_are() -> None:
    seconds = {"torch": 8.0, "plain": 4.0, "rewritten": 5.0, "fp16": 4.0, "int8": 10.0}
    rows = [
        {"form": form, "runtime": runtime, "batch": batch, "seconds": [seconds[form] * batch / 1e3]}
        for form, runtime in latency_columns()
        for batch in (1, 32)
    ]
    size = {"parameters": 10, "macs": 2_000_000, "bytes": {"plain": 4_000_000, "fp16": 2_000_000, "int8": 1_000_000}}
    relu = [row for row in rows if row["form"] != "rewritten"]
    students = [{"student": "slow", **size, "rows": rows}, {"student": "relu", **size, "rows": relu}]
    text = latency_table({"students": students, "batch": 32, "repeats": 12, "turns": 3, "threads": 2})
    assert "| slow | 10 | 2.0 M | 4.00 | 0.500 | 0.250 |" in text
    assert "| slow | 1 | 8.0 | 4.0 | 5.0 | 4.0 | 10.0 | 4.0 | 5.0 | 1.25 | 2.00 |" in text
    assert "| slow | 32 | 256.0 |" in text
    assert "| relu | 1 | 8.0 | 4.0 | - | 4.0 | 10.0 | 4.0 | - | - | 2.50 |" in text
    assert "medians of 3 turns of 12 passes (the larger batch: 4), 2 threads" in text


def test_exports__the_record_names_models_without_anybody_s_folders(tmp_path: Path) -> None:
    inside = exports.model_of(f"{tmp_path}/models/a.onnx,rgb,none")
    assert inside.told(tmp_path) == "FACES/models/a.onnx,rgb,none"
    outside = exports.model_of("somewhere/runs/ekd,_light_softmax-0")
    assert (outside.path.name, outside.told(tmp_path)) == ("ekd,_light_softmax-0", "runs/ekd,_light_softmax-0")


def test_exports__goes_on_where_it_stopped_and_tells_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, str]] = []

    class Opened:
        preprocessing = type("P", (), {"size": (112, 112)})

    def row(model: str, form: str, embedder: object, opened: str, *rest: object) -> dict[str, Any]:
        calls.append((model, form))
        return {"model": model, "form": form, "set": opened}

    for name, value in {
        "open_set": lambda path, images: path.name,
        "open_identities": lambda *a: None,
        "some_faces": lambda *a: None,
        "load_embedder": lambda *a, **k: Opened(),
        "exported_row": row,
    }.items():
        monkeypatch.setattr(exports, name, value)
    out, given = tmp_path / "a.json", {"a": exports.model_of("x/a.onnx"), "b": exports.model_of("x/b.onnx,rgb,half")}
    exports.study(tmp_path, tmp_path, {"a": given["a"]}, "one.txt", out)
    exports.study(tmp_path, tmp_path, given, "one.txt", out)
    assert calls == [(model, form) for model in given for form in ("fp32", "fp16", "baked", "uint8", "int8")]
    exports.study(tmp_path, tmp_path, {"a": given["a"]}, "two.txt", out)
    assert len(calls) == 15
    first = "python -m benchmarks.exports FACES FOLDER a=x/a.onnx b=x/b.onnx,rgb,half --pairs one.txt"
    last = "python -m benchmarks.exports FACES FOLDER a=x/a.onnx --pairs two.txt"
    assert json.loads(out.read_text())["command"] == f"{first}; {last}"


def test_exports__each_form_stands_beside_the_fp32_file_of_its_model_and_set() -> None:
    def measured(name: str, form: str, accuracy: float, size: int) -> dict[str, Any]:
        point = {"fpr": 1e-2, "tpr": accuracy - 0.1, "false_accepts": 6}
        told = {"set": name, "model": "m", "form": form, "pairs": 1200, "bytes": size, "min_cosine": 0.995}
        return {**told, "accuracy": {"mean": accuracy}, "tpr_at_fpr": [point], "runtimes": ["onnxruntime"]}

    rows = [measured("a.txt", "fp32", 0.99, 4_000_000), {**measured("a.txt", "int8", 0.98, 10**6), "integer": 5}]
    rows[1]["left"] = 2
    rows += [measured("b.txt", "fp32", 0.9, 4_000_000), measured("b.txt", "uint8", 0.9, 4_000_000)]
    text = exports_table({"rows": rows, "faces": 264})
    assert text.index("On `a.txt`, 1,200 pairs") < text.index("On `b.txt`")
    assert "| m | int8 | 1.00 | 0.250 | 0.99500 | 0.9800 (-0.0100) | 0.8800 (-0.0100) | 5 of 7 | onnxruntime |" in text
    assert "| m | uint8 | 4.00 | 1.000 | 0.99500 | 0.9000 (+0.0000) | 0.8000 (+0.0000) | - | onnxruntime |" in text


def test_exported_latency__every_form_of_a_model_beside_its_float_file(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="holds no model in every form"):
        exported_latency.report(tmp_path, repeats=3, turns=2)
    student = latency.drawn("tiny", *TINY)
    export_onnx(student, tmp_path / "tiny-fp32.onnx", opencv=False)
    for form in ("fp16", "int8"):  # what fewer bits do to the values is not what is timed here
        export_onnx(student, tmp_path / f"tiny-{form}.onnx", Form(precision="fp16"), opencv=False)
    found = exported_latency.report(tmp_path, repeats=3, turns=2)
    assert [(row["form"], row["batch"]) for row in found["rows"]] == [
        (form, batch) for form in ("fp32", "fp16", "int8") for batch in (1, 32)
    ]
    assert all(len(row["seconds"]) == 2 for row in found["rows"])
    assert all(row["ratio"] == {"median": 1.0, "iqr": [1.0, 1.0]} for row in found["rows"][:2])
    for row, ratio in zip(found["rows"], (1, 1, 2, 2, 3, 3), strict=True):
        row |= {"seconds": [0.001 * ratio] * 2, "ratio": {"median": ratio, "iqr": [ratio, ratio + 1]}}
    assert "| tiny | 32 | 1.0 | 2.0 (2.00, 2.00 to 3.00) | 3.0 (3.00, 3.00 to 4.00) |" in exported_latency_table(found)
