"""How fast the students of the shipped recipes run once exported, in every form.

Weights are drawn, and BatchNorm takes its statistics from drawn faces, without which a deep network leaves the range of
16 bits; a forward pass takes as long with any. Each student is measured in torch, and as a file in onnxruntime: float32
with PReLU as it is (plain) and in other words, 16 bits, and 8-bit integers; OpenCV runs the two float32 files as well.
One face and a batch, all forms in turns within one process, on two threads. A backbone that offers several activations
is measured with each.

What a file of 16 or 8 bits costs in accuracy says nothing where weights are drawn, so these are made without the gates
of `facekd export`: in integers every operation runs, with ranges of drawn faces. A real one leaves some in float
(`benchmarks/exports.py` tells how many), and is that much slower.

    python -m benchmarks.latency

Students already measured are left alone, so that a machine can be kept calm for a few at a time (`--most`).
"""

from __future__ import annotations

import argparse
import inspect
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from facekd_cli.shipped import find_recipe, shipped_recipes
from onnx import ModelProto
from torch import Tensor, nn

from benchmarks.record import surroundings
from facekd.engine.export.checks import drawn_faces
from facekd.engine.export.exporter import export_onnx
from facekd.engine.export.form import Form
from facekd.engine.export.half import to_half
from facekd.engine.export.prelu import rewrite_prelu
from facekd.engine.export.qdq import operations, quantise, quantised_tensors
from facekd.engine.export.ranges import activation_ranges
from facekd.engine.export.source import float_graph
from facekd.engine.latency import Timing, bench
from facekd.files import write_json
from facekd.models.backbone import BACKBONES, build_backbone
from facekd.models.embedder import Embedder, TorchEmbedder
from facekd.models.macs import count_macs
from facekd.models.mobilefacenet import ACTIVATIONS
from facekd.models.onnx_model import load_onnx
from facekd.models.preprocessing import Preprocessing
from facekd.recipe import load_recipe

OUT = Path(__file__).with_name("results") / "latency.json"
THREADS = 2
TEACHERS = "iresnet"
"""Backbones of recipes that train a teacher."""
FORMS = {"plain": Form(keep_prelu=True), "rewritten": Form()}
FP16, INT8 = "fp16", "int8"
IN_OPENCV = ("plain", "rewritten")
RANGED = 16
"""Drawn faces that integers take their ranges from."""
COUNTS = {"batch": 32, "repeats": 12, "turns": 3}
"""Faces in the larger batch; passes of one turn, of the larger batch a third; turns."""
Student = tuple[str, int, int, dict[str, Any]]


def students() -> dict[str, Student]:
    """Every student of a shipped recipe once, with each activation it offers.

    Returns:
        By title, its backbone, embedding size, input size and options.
    """
    found: dict[str, Student] = {}
    for name in shipped_recipes():
        student = load_recipe(find_recipe(name), allow_required=True).student
        if student.backbone.startswith(TEACHERS):
            continue
        size = (student.embedding_size, student.input_size)
        for options in with_each_activation(student.backbone, student.options):
            title = f"{student.backbone} {size[0]}-d at {size[1]}"
            title += "".join(f", {key} {value}" for key, value in sorted(options.items()))
            found[title] = (student.backbone, *size, options)
    return found


def with_each_activation(backbone: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of a backbone with each activation it offers, or as they are where it offers none.

    Example:
        >>> with_each_activation("resnet_tiny", {})
        [{'activation': 'prelu'}, {'activation': 'relu'}]
        >>> with_each_activation("pocketnet_s", {})
        [{}]
    """
    if "activation" not in inspect.signature(BACKBONES[backbone]).parameters:
        return [dict(options)]
    return [{**options, "activation": activation} for activation in ACTIVATIONS]


def drawn(title: str, backbone: str, embedding_size: int, size: int, options: dict[str, Any]) -> TorchEmbedder:
    """A student with random weights that stands as a trained one does: BatchNorm gives values of about 1."""
    torch.manual_seed(0)
    module = build_backbone(backbone, embedding_size=embedding_size, input_size=size, options=options)
    expects = Preprocessing.named("half", size=(size, size))
    settle_norms(module, expects.apply(torch.from_numpy(drawn_faces(RANGED, expects.size))))
    module = module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TorchEmbedder(title, "0", embedding_size, expects, {}, module, torch.device("cpu"))


@torch.no_grad()
def settle_norms(module: nn.Module, pixels: Tensor) -> None:
    """Running statistics become those of one batch, without which a deep network of drawn weights overflows."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = None
            layer.reset_running_stats()
    module.train()(pixels)


def written(student: TorchEmbedder, folder: Path) -> dict[str, Path]:
    """A student as a file of every form; there is none of PReLU in other words where it holds no PReLU."""
    found = {}
    for name, form in FORMS.items():
        path = folder / f"{name}.onnx"
        report = export_onnx(student, path, form, opencv=False)
        if name != "rewritten" or report.prelu_rewritten:
            found[name] = path
    model = float_graph(student, "dynamic")
    rewrite_prelu(model)
    for name, made in {FP16: to_half(model, FP16), INT8: in_integers(model, student)}.items():
        found[name] = folder / f"{name}.onnx"
        found[name].write_bytes(made.SerializeToString())
    return found


def in_integers(model: ModelProto, student: TorchEmbedder) -> ModelProto:
    """A student's graph that computes in integers wherever it can, whatever that costs."""
    everything = {operation.name for operation in operations(model)}
    faces = torch.from_numpy(drawn_faces(RANGED, student.preprocessing.size))
    pixels = student.preprocessing.apply(faces).numpy()
    ranges = activation_ranges(model, quantised_tensors(model, everything), pixels)
    return quantise(model, ranges, everything)


def measured(student: TorchEmbedder, batch: int, repeats: int, turns: int) -> dict[str, Any]:
    """Sizes of the files, and times of every form, several turns of each: a row per form, runtime and batch."""
    times: dict[tuple[str, str, int], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        files = written(student, Path(folder))
        opened: dict[str, tuple[Embedder, Path]] = {"torch": (student, Path(folder))}
        for name, path in files.items():
            opened[name] = (load_onnx(path, name, color="rgb", normalize="half"), path)
        for _ in range(turns):
            for name, (embedder, path) in opened.items():
                timing = Timing(batch, repeats, THREADS, opencv=name in IN_OPENCV, export=False)
                for entry in bench(embedder, path, timing)["latency"]:
                    times.setdefault((name, entry["runtime"], entry["batch"]), []).append(entry["median"])
        sizes = {name: path.stat().st_size for name, path in files.items()}
    rows = [
        {"form": form, "runtime": runtime, "batch": size, "seconds": sorted(values)}
        for (form, runtime, size), values in times.items()
    ]
    return {"bytes": sizes, "rows": rows}


def study(out: Path, counts: Mapping[str, int], most: int | None = None) -> None:
    """Measure the students that ``out`` does not hold yet, all or so many; it is written after each.

    Raises:
        SystemExit: ``out`` was measured with other counts.
    """
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else head(counts)
    if any(record[name] != count for name, count in counts.items()):
        raise SystemExit(f"{out} was measured otherwise: name another file, or delete it")
    done = {entry["student"] for entry in record["students"]}
    for title, what in [entry for entry in students().items() if entry[0] not in done][:most]:
        student = drawn(title, *what)
        size = {"parameters": student.parameters, "macs": count_macs(student.module, what[2])}
        record["students"].append({"student": title, **size, **measured(student, **counts)})
        write_json(out, record)


def head(counts: Mapping[str, int]) -> dict[str, Any]:
    """What a record says beside its figures."""
    changed = "".join(f" --{name} {count}" for name, count in counts.items() if count != COUNTS[name])
    return {
        "benchmark": "latency",
        "command": f"python -m benchmarks.latency{changed}",
        "seeds": [0],
        "threads": THREADS,
        **counts,
        **surroundings("torch", "onnxruntime", "opencv-python"),
        "students": [],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=COUNTS["batch"], help="faces in the larger batch")
    parser.add_argument("--repeats", type=int, default=COUNTS["repeats"], help="passes of one turn, of one face")
    parser.add_argument("--turns", type=int, default=COUNTS["turns"])
    parser.add_argument("--most", type=int, help="students to measure now; all if not given")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    study(given.out, {name: getattr(given, name) for name in COUNTS}, given.most)


if __name__ == "__main__":
    main()
