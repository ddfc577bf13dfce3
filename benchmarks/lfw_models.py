"""Pretrained models on Labeled Faces in the Wild: figures of facekd beside scikit-learn's on the same embeddings.

``FOLDER`` holds the aligned images ``lfw112``, the lists ``lfw_pairs.txt``, ``lfw_pairs_test.txt``, ``lfw_test.csv``
and models. Each model sees each set once (image and mirror added). The independent side has nothing of facekd but the
embeddings: cosines by NumPy in float64, ``roc_curve`` and ``roc_auc_score`` of scikit-learn, and ten folds with
InsightFace's rule in plain loops. ``stated`` are figures computed elsewhere, with other code, for the same models and
lists, with as many digits as are known; a figure that differs from them by more than half of the last digit is told.

    python -m benchmarks.lfw_models FOLDER --out benchmarks/results/lfw_models.json
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

from benchmarks.record import hand_over, surroundings
from facekd.data.verification import VerificationSet
from facekd.engine.evaluation.evaluation_sets import OpenedSet, open_set
from facekd.engine.evaluation.figures import EvalSettings, figures, measure_all_pairs, measure_pairs
from facekd.engine.evaluation.seeing import see_set
from facekd.models.embedder import Embedder, load_embedder

FPRS = (1e-2, 1e-3, 1e-4, 1e-5)
IMAGENET = {"color": "rgb", "normalize": "imagenet"}
MODELS: dict[str, tuple[str, dict[str, str]]] = {
    "EdgeFace-XS, ONNX": ("edgeface_xs_raw_rgb.onnx", {"color": "rgb", "normalize": "none"}),
    "MobileFaceNet (foamliu), PyTorch": ("foamliu/mobilefacenet.pt", IMAGENET),
    "MobileFaceNet (foamliu), ONNX": ("foamliu/MobileFaceNet.onnx", IMAGENET),
}
"""Name -> its file and how it sees its images."""
SETS = ("lfw_pairs.txt", "lfw_pairs_test.txt", "lfw_test.csv")
STATED: dict[tuple[str, str], dict[str, str]] = {
    ("EdgeFace-XS, ONNX", "lfw_pairs.txt"): {
        "accuracy": "0.9943",
        "accuracy_std": "0.0037",
        "auc": "0.99880",
        "eer": "0.0057",
        "tpr@0.01": "0.9957",
        "tpr@0.001": "0.9907",
    },
    ("EdgeFace-XS, ONNX", "lfw_pairs_test.txt"): {"tpr@0.01": "1.0"},
    ("EdgeFace-XS, ONNX", "lfw_test.csv"): {"tpr@0.001": "0.99922", "tpr@0.0001": "0.99436", "tpr@1e-05": "0.97957"},
}
"""(Model, set) -> figures as they are stated."""


def opened_model(folder: Path, name: str, scratch: Path) -> Embedder:
    """A model; a graph whose tensors lie in a file beside it is joined into one file first."""
    import onnx

    file, seen = MODELS[name]
    path = folder / file
    if path.with_name(f"{path.name}.data").exists():
        onnx.save(onnx.load(path), scratch / path.name, save_as_external_data=False)
        path = scratch / path.name
    return load_embedder(path, **seen)


def ours(embeddings: np.ndarray, opened: OpenedSet, settings: EvalSettings) -> dict[str, float]:
    """Figures of facekd."""
    data = opened.data
    if isinstance(data, VerificationSet):
        found = figures(measure_pairs(embeddings, embeddings, data, settings))
    else:
        found = figures(measure_all_pairs(embeddings, embeddings, data.labels, settings))
    told = {f"tpr@{point['fpr']:g}": point["tpr"] for point in found["tpr_at_fpr"]}
    if found["accuracy"]:
        told |= {"accuracy": found["accuracy"]["mean"], "accuracy_std": found["accuracy"]["std"]}
    return told | {"auc": found["auc"], "eer": found["eer"]["value"]}


def theirs(embeddings: np.ndarray, opened: OpenedSet, asked: Mapping[str, float]) -> dict[str, float]:
    """The same figures without facekd."""
    rows = embeddings.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    data = opened.data
    if isinstance(data, VerificationSet):
        first, second = data.pairs.T
        same = np.asarray(data.genuine, bool)
    else:
        first, second = np.triu_indices(len(rows), 1)
        same = data.labels[first] == data.labels[second]
    scores = np.concatenate(
        [(rows[first[at]] * rows[second[at]]).sum(axis=1) for at in np.array_split(np.arange(len(first)), 100)]
    )
    fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
    told = {name: float(tpr[fpr <= float(name[4:])].max()) for name in asked if name.startswith("tpr@")}
    told |= {"auc": float(roc_auc_score(same, scores))}
    crossing = int(np.argmax(fpr >= 1 - tpr))
    told |= {"eer": float((fpr[crossing] + 1 - tpr[crossing]) / 2)}
    if isinstance(data, VerificationSet):
        accuracy = folded(2 - 2 * scores, same, data.folds)
        told |= {"accuracy": float(accuracy.mean()), "accuracy_std": float(accuracy.std())}
    return told


def folded(distances: np.ndarray, same: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Accuracy of each fold at the threshold that is best on the others, the first of several."""
    found = []
    for fold in np.unique(folds):
        rest = folds != fold
        best = max(np.arange(0, 4, 0.01), key=lambda at: float(((distances < at) == same)[rest].mean()))
        found.append(((distances < best) == same)[~rest].mean())
    return np.array(found)


def off(found: Mapping[str, float], stated: Mapping[str, str]) -> dict[str, float]:
    """By how much figures differ from stated ones where it is more than half of the last digit.

    Example:
        >>> off({"auc": 0.99884, "eer": 0.006}, {"auc": "0.9988", "eer": "0.0057"})
        {'eer': 0.0003}
    """
    digits = {name: len(text.split(".")[1]) for name, text in stated.items()}
    apart = {name: round(found[name] - float(text), 6) for name, text in stated.items()}
    return {name: value for name, value in apart.items() if abs(value) > 0.5 * 10 ** -digits[name] + 1e-9}


def measure(folder: Path, cache: Path | None) -> list[dict[str, Any]]:
    """Every model on every set."""
    rows = []
    settings = EvalSettings(fprs=FPRS, bootstrap=0, cache=cache)
    with tempfile.TemporaryDirectory() as scratch:
        for name in MODELS:
            embedder = opened_model(folder / "models", name, Path(scratch))
            for listed in SETS:
                opened = open_set(folder / listed, images=folder / "lfw112")
                embeddings = see_set(embedder, opened, settings).embeddings
                own = ours(embeddings, opened, settings)
                other, stated = theirs(embeddings, opened, own), STATED.get((name, listed), {})
                rows.append(
                    {
                        "model": name,
                        "set": listed,
                        "figures": own,
                        "differs_from_scikit_learn": {key: abs(own[key] - other[key]) for key in own},
                        "stated": stated,
                        "differs_from_stated": off(own, stated),
                    }
                )
                print(f"{name} on {listed}: {rows[-1]}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, help="folder in which embeddings are kept")
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    record = {
        "benchmark": "lfw_models",
        "command": "python -m benchmarks.lfw_models FOLDER",
        "seeds": [],
        "rows": measure(given.folder, given.cache),
        **surroundings("torch", "onnxruntime", "numpy", "scikit-learn"),
    }
    hand_over(record, given.out)


if __name__ == "__main__":
    main()
