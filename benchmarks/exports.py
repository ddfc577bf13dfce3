"""What each form of an exported file costs in accuracy and saves in size, measured from the file itself.

Every model is exported in every form by the engine of ``facekd export``; int8 takes its ranges from the training
split, of people who are not in the test. Each file is then opened again and measured on pairs, without mirrored images;
the fp32 file, which parity holds within 1e-4 of its model, is what the others are compared with. Rows already written
are not measured again.

    python -m benchmarks.exports FACES FOLDER [MODEL...]

``FACES`` holds ``lfw112/``, ``lfw_train.csv`` and the pairs; each MODEL is ``NAME=PATH[,COLOR,SCALING]``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import surroundings
from facekd.data.open_source import open_identities
from facekd.engine.evaluation.evaluation_sets import OpenedSet, open_set
from facekd.engine.evaluation.evaluator import evaluate_set
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.export.checks import held_out
from facekd.engine.export.exporter import Evidence, export_onnx
from facekd.engine.export.form import Form
from facekd.engine.export.judge import RANGED, some_faces
from facekd.models.embedder import Embedder, load_embedder

FORMS = {
    "fp32": Form(),
    "fp16": Form(precision="fp16"),
    "int8": Form(precision="int8"),
}
SETTINGS = EvalSettings(fprs=(1e-2,), flip=False, bootstrap=0)
FACES = RANGED + held_out(Form())
"""As many as `facekd export` draws: those int8 takes its ranges from, and those the checks take."""
OUT = Path(__file__).with_name("results") / "exports.json"


def exported_row(
    model: str, form: str, embedder: Embedder, opened: OpenedSet, faces: np.ndarray, folder: Path
) -> dict[str, Any]:
    """What a file made now is measured to be, with its size, its parity and what became of its operations."""
    path = folder / f"{model}-{form}.onnx"
    report = export_onnx(embedder, path, FORMS[form], evidence=Evidence(faces), force=True)
    told = report.quantised
    result = evaluate_set(load_embedder(path), opened, SETTINGS).result
    kept = ("set", "protocol", "pairs", "accuracy", "auc", "tpr_at_fpr")
    return {
        "model": model,
        "form": form,
        **{key: result[key] for key in kept},
        "bytes": report.bytes,
        "float_bytes": report.float_bytes,
        "prelu_rewritten": report.prelu_rewritten,
        "min_cosine": min(check.min_cosine for check in report.parity if check.runtime == "onnxruntime"),
        "runtimes": sorted({check.runtime for check in report.parity}),
        "notes": report.notes,
        **({"integer": told.integer, "left": len(told.left), "weights": told.weights} if told else {}),
    }


def study(faces: Path, folder: Path, models: dict[str, list[str]], pairs: str, out: Path) -> dict[str, Any]:
    """Every model in every form; ``out`` is written after each row."""
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else head()
    done = {(entry["model"], entry["form"]) for entry in record["rows"]}
    opened = open_set(faces / pairs, images=faces / "lfw112")
    for name, (path, *expects) in models.items():
        color, normalize = expects or (None, None)
        embedder = load_embedder(Path(path), color=color, normalize=normalize)
        shown = some_faces(
            open_identities(faces / "lfw_train.csv", faces / "lfw112"),
            embedder.preprocessing.size,
            FACES,
            "lfw_train.csv",
        )
        for form in FORMS:
            if (name, form) in done:
                continue
            found = exported_row(name, form, embedder, opened, shown, folder)
            record["rows"].append(found)
            out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def head() -> dict[str, Any]:
    """What a record says beside its rows."""
    return {
        "benchmark": "exports",
        "command": "python -m benchmarks.exports FACES FOLDER MODEL... --pairs lfw_pairs_test.txt",
        "seeds": [0],
        "faces": FACES,
        **surroundings("torch", "onnxruntime", "opencv-python"),
        "rows": [],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("folder", type=Path, help="where the files go; it exists")
    parser.add_argument("models", nargs="+", metavar="NAME=PATH[,COLOR,SCALING]")
    parser.add_argument("--pairs", default="lfw_pairs.txt", help="in FACES")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    models = {name: rest.split(",") for name, rest in (text.split("=", 1) for text in given.models)}
    study(given.faces, given.folder, models, given.pairs, given.out)


if __name__ == "__main__":
    main()
