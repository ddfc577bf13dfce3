"""How fast the students of the shipped recipes run once exported, and what rewriting PReLU is worth.

Weights are drawn; a forward pass takes as long with any. Each student is measured in torch, and as a file in
onnxruntime and OpenCV, with PReLU as it is and rewritten, all forms in turns within one process, on two threads.

    python -m benchmarks.latency

Students already measured are left alone, so that a machine can be kept calm for one at a time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from facekd_cli.shipped import find_recipe, shipped_recipes

from benchmarks.record import surroundings
from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.engine.latency import bench
from facekd.models.backbone import build_backbone
from facekd.models.embedder import Embedder, TorchEmbedder, load_embedder
from facekd.models.macs import count_macs
from facekd.models.preprocessing import Preprocessing
from facekd.recipe import load_recipe

OUT = Path(__file__).with_name("results") / "latency.json"
THREADS = 2
TEACHERS = "iresnet"
"""Backbones of recipes that train a teacher."""


def students() -> dict[str, tuple[str, int, int, dict[str, Any]]]:
    """Every student of a shipped recipe once: its title, and backbone, embedding size, input size and options."""
    found: dict[str, tuple[str, int, int, dict[str, Any]]] = {}
    for name in shipped_recipes():
        student = load_recipe(find_recipe(name), allow_required=True).student
        if student.backbone.startswith(TEACHERS):
            continue
        options = dict(student.options)
        title = f"{student.backbone} {student.embedding_size}-d at {student.input_size}"
        title += "".join(f", {key} {value}" for key, value in sorted(options.items()))
        found[title] = (student.backbone, student.embedding_size, student.input_size, options)
    return found


def drawn(title: str, backbone: str, embedding_size: int, size: int, options: dict[str, Any]) -> TorchEmbedder:
    """A student with random weights."""
    torch.manual_seed(0)
    module = build_backbone(backbone, embedding_size=embedding_size, input_size=size, options=options).eval()
    expects = Preprocessing.named("half", size=(size, size))
    module = module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchEmbedder(title, "0", embedding_size, expects, {}, module, torch.device("cpu"))


def measured(student: TorchEmbedder, batch: int, repeats: int, turns: int) -> list[dict[str, Any]]:
    """Times of every form, several turns of each: one row per form, runtime and batch."""
    rows: dict[tuple[str, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        forms: dict[str, tuple[Embedder, Path | None]] = {"pytorch": (student, None)}
        for name, form in {"PReLU kept": Form(keep_prelu=True), "rewritten": Form()}.items():
            path = Path(folder, f"{name}.onnx")
            report = export_onnx(student, path, form, opencv=False)
            if name == "PReLU kept" or report.prelu_rewritten:
                forms[name] = load_embedder(path), path
        for _ in range(turns):
            for name, (embedder, path) in forms.items():
                for entry in bench(embedder, path, batch=batch, repeats=repeats, threads=THREADS)["latency"]:
                    rows.setdefault((name, entry["runtime"], entry["batch"]), []).append(entry["median"])
    return [
        {"form": form, "runtime": runtime, "batch": size, "seconds": sorted(values)}
        for (form, runtime, size), values in rows.items()
    ]


def study(out: Path, batch: int, repeats: int, turns: int) -> None:
    """Measure every student that ``out`` does not hold yet; it is written after each."""
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else head(batch, repeats, turns)
    done = {entry["student"] for entry in record["students"]}
    for title, what in students().items():
        if title in done:
            continue
        student = drawn(title, *what)
        size = {"parameters": student.parameters, "macs": count_macs(student.module, what[2])}
        rows = measured(student, record["batch"], record["repeats"], record["turns"])
        record["students"].append({"student": title, **size, "rows": rows})
        out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def head(batch: int, repeats: int, turns: int) -> dict[str, Any]:
    """What a record says beside its figures."""
    return {
        "benchmark": "latency",
        "command": "python -m benchmarks.latency",
        "seeds": [0],
        "threads": THREADS,
        "batch": batch,
        "repeats": repeats,
        "turns": turns,
        **surroundings("torch", "onnxruntime", "opencv-python"),
        "students": [],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=8, help="faces in the larger batch")
    parser.add_argument("--repeats", type=int, default=9, help="passes of one turn; of the larger batch a third")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    study(given.out, given.batch, given.repeats, given.turns)


if __name__ == "__main__":
    main()
