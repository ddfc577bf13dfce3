"""What each form of an exported file costs in accuracy and saves in size, measured from the file itself.

Every model is exported in every form by the engine of ``facekd export``; int8 takes its ranges from the training
split. Each file is then opened again and measured on pairs, without mirrored images; the fp32 file, which parity holds
within 1e-4 of its model, is what the others are compared with. Rows already written are not measured again, and further
models and pairs can be added at any time.

    python -m benchmarks.exports FACES FOLDER MODEL...

``FACES`` holds ``lfw112/``, ``lfw_train.csv`` and the pairs; files go to ``FOLDER``; each MODEL is
``NAME=PATH[,COLOR,SCALING]``. The record names models within ``FACES`` so, and others by the end of their path.
Nobody of the training split is in ``lfw_pairs_test.txt``, nor in ``lfw_test.csv``, of which all pairs are measured, so
that a fall of TPR is not chance. ``lfw_pairs.txt`` holds its people too: there the ranges are of some faces of the
test, and a student trained on the split knows them, so that only its forms can be compared.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
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
from facekd.files import write_json
from facekd.models.embedder import Embedder, load_embedder

FORMS = {
    "fp32": Form(),
    "fp16": Form(precision="fp16"),
    "baked": Form("baked"),
    "uint8": Form("uint8"),
    "int8": Form(precision="int8"),
}
SETTINGS = EvalSettings(fprs=(1e-2,), flip=False, bootstrap=0)
FACES = RANGED + held_out(Form())
"""As many as `facekd export` draws: those int8 takes its ranges from, and those the checks take."""
OUT = Path(__file__).with_name("results") / "exports.json"


@dataclass(frozen=True)
class Model:
    """A model to export.

    Attributes:
        path: Its file or run folder.
        color: Channel order, where it does not say itself.
        normalize: Scaling, likewise.
    """

    path: Path
    color: str | None = None
    normalize: str | None = None

    def told(self, faces: Path) -> str:
        """The model as a record names it, without the place of anybody's folders."""
        path, root = self.path.absolute(), faces.absolute()
        inside = path.is_relative_to(root)
        place = Path("FACES", path.relative_to(root)) if inside else Path(*self.path.parts[-2:])
        return ",".join([place.as_posix(), *(text for text in (self.color, self.normalize) if text)])


def model_of(text: str) -> Model:
    """A model as the command line names it; names of runs may hold commas.

    Example:
        >>> model_of("a.onnx,rgb,none")
        Model(path=PosixPath('a.onnx'), color='rgb', normalize='none')
        >>> model_of("runs/ekd,_light-0").color
    """
    parts = text.rsplit(",", 2)
    told = len(parts) == 3 and parts[1] in ("rgb", "bgr")
    return Model(Path(parts[0]), *parts[1:]) if told else Model(Path(text))


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


def study(faces: Path, folder: Path, models: Mapping[str, Model], pairs: str, out: Path) -> None:
    """Every model in every form on one set of pairs; ``out`` is written after each row."""
    record = json.loads(out.read_text(encoding="utf-8")) if out.exists() else head()
    if "models" not in record:
        raise SystemExit(f"{out}: recorded by an older form of this program (move it away, and record anew)")
    done = {(entry["set"], entry["model"], entry["form"]) for entry in record["rows"]}
    opened = open_set(faces / pairs, images=faces / "lfw112")
    for name, model in models.items():
        record["models"].setdefault(pairs, {})[name] = model.told(faces)
        record["command"] = "; ".join(command(told, on) for on, told in record["models"].items())
        left = [form for form in FORMS if (pairs, name, form) not in done]
        if not left:
            continue
        embedder = load_embedder(model.path, color=model.color, normalize=model.normalize)
        people = open_identities(faces / "lfw_train.csv", faces / "lfw112")
        shown = some_faces(people, embedder.preprocessing.size, FACES, "lfw_train.csv")
        for form in left:
            record["rows"].append(exported_row(name, form, embedder, opened, shown, folder))
            write_json(out, record)


def command(models: Mapping[str, str], pairs: str) -> str:
    """The command that records models, as `Model.told` names them.

    Example:
        >>> command({"ours": "runs/ours"}, "pairs.txt")
        'python -m benchmarks.exports FACES FOLDER ours=runs/ours --pairs pairs.txt'
    """
    given = " ".join(f"{name}={told}" for name, told in models.items())
    return f"python -m benchmarks.exports FACES FOLDER {given} --pairs {pairs}"


def head() -> dict[str, Any]:
    """What a record says beside its rows."""
    return {
        "benchmark": "exports",
        "command": "",
        "seeds": [0],
        "faces": FACES,
        **surroundings("torch", "onnxruntime", "opencv-python"),
        "models": {},
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
    models = {name: model_of(rest) for name, rest in (text.split("=", 1) for text in given.models)}
    study(given.faces, given.folder, models, given.pairs, given.out)


if __name__ == "__main__":
    main()
