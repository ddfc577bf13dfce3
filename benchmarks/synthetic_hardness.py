"""Are the drawn faces hard enough to learn from, and to tell a good network from a poor one?

Three figures on people nobody trained on: cosines of raw pixels must hardly tell them apart, a teacher must be far
better than the small student trained alone, and that student must be neither lost nor done. Teacher and student are
the quickstart's, trained longer, the teacher on more people: its distance to the student is that of size, people and
steps together, not of size alone. One seed of the teacher, several of the student. Every run is one ``facekd train``
command; finished runs are left alone and a broken one goes on.

    python -m benchmarks.synthetic_hardness
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo import steps
from benchmarks.real_faces import RESULTS, conditions, facekd, row, run_size, train_to_end
from benchmarks.tables import ALONE
from facekd.data.open_source import open_identities
from facekd.engine.embed import StoredEmbeddings, save_embeddings
from facekd.files import write_json
from facekd.recipe import load_recipe

TEACHER = "teacher"
RECIPES = {
    TEACHER: (
        "quickstart/teacher",
        "data.synthetic.identities=2000",
        "train.epochs=16",
        "train.freeze_norm_epochs=4",
    ),
    ALONE: ("quickstart/student", "train.epochs=13", "train.freeze_norm_epochs=3"),
}
"""Method -> its recipe, and what is changed in it."""
PIXELS = {"raw pixels": False, "raw pixels, less the mean of each image": True}
"""Method without a network -> whether the mean of each image is taken from its values."""
FPRS = ("1e-2", "1e-3", "1e-4")


def train(method: str, seed: int, runs: Path) -> Path:
    """The run folder of a method and seed, trained to its end."""
    recipe, *changes = RECIPES[method]
    run = runs / f"{recipe.split('/')[1]}-{seed}"
    train_to_end(recipe, [*changes, f"train.seed={seed}"], run)
    return run


def measure(model: Path, unseen: Path | None, out: Path) -> dict[str, Any]:
    """Figures of a model on a folder, or of stored embeddings; kept in ``out`` and not measured twice."""
    if not out.exists():
        on = ["--on", str(unseen)] if unseen else []
        fprs = [word for fpr in FPRS for word in ("--fpr", fpr)]
        facekd("eval", str(model), *on, *fprs, "--json", str(out))
    (result,) = json.loads(out.read_text())["results"]
    return result


def store_pixels(unseen: Path, centred: bool, out: Path) -> None:
    """Write the pixels of every image of a folder as if they were its embedding."""
    if out.exists():
        return
    faces = open_identities(unseen)
    rows = np.stack([faces.read(index).ravel() for index in range(len(faces))]).astype(np.float32)
    if centred:
        rows -= rows.mean(axis=1, keepdims=True)
    names = [faces.sample_name(index) for index in range(len(faces))]
    save_embeddings(out, StoredEmbeddings(rows, faces.labels, names, faces.names, out.stem, "", False))


def tprs(rows: list[dict[str, Any]], methods: tuple[str, ...], fpr: float) -> list[float]:
    """The TPR at an FPR of every row of some methods."""
    points = [point for row in rows if row["method"] in methods for point in row["tpr_at_fpr"]]
    return [point["tpr"] for point in points if point["fpr"] == fpr]


def bounds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the drawn faces must show, each figure with the open interval all its values must lie in.

    Args:
        rows: Figures of every method and seed; the teacher's distance is taken to each seed of the student.
    """
    alone, (teacher,) = tprs(rows, (ALONE,), 1e-3), tprs(rows, (TEACHER,), 1e-3)
    return [
        {"figure": "raw pixels: TPR @ 1e-2", "low": None, "high": 0.15, "values": tprs(rows, tuple(PIXELS), 1e-2)},
        {
            "figure": "teacher less student alone: TPR @ 1e-3",
            "low": 0.2,
            "high": None,
            "values": [teacher - tpr for tpr in alone],
        },
        {"figure": "student alone: TPR @ 1e-3", "low": 0.3, "high": 0.9, "values": alone},
    ]


def study(runs: Path, seeds: list[int]) -> dict[str, Any]:
    """Train and measure everything that is missing; returns the whole table."""
    runs.mkdir(parents=True, exist_ok=True)
    unseen, rows = runs / "unseen", []
    if not unseen.exists():
        facekd(*steps(runs)["draw unseen identities"])
    for method, centred in PIXELS.items():
        stored = runs / f"pixels-{'centred' if centred else 'raw'}.npz"
        store_pixels(unseen, centred, stored)
        rows.append(row(measure(stored, None, stored.with_suffix(".json")), method, None, {"parameters": None}))
    for method, seed in [*((ALONE, seed) for seed in seeds), (TEACHER, seeds[0])]:
        run = train(method, seed, runs)
        faces = load_recipe(run / "recipe.yaml").data.synthetic
        size = {**run_size(run), "identities": faces.identities, "samples": faces.samples}
        rows.append(row(measure(run, unseen, runs / f"{run.name}.json"), method, seed, size))
    return {
        "benchmark": "synthetic_hardness",
        "command": f"python -m benchmarks.synthetic_hardness --seeds {' '.join(map(str, seeds))}",
        **conditions(run),
        "seeds": seeds,
        "recipes": {method: " --set ".join(words) for method, words in RECIPES.items()},
        "bounds": bounds(rows),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/synthetic_hardness"), help="where runs are kept")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the student; the teacher: the first"
    )
    given = parser.parse_args()
    write_json(RESULTS / "synthetic_hardness.json", study(given.runs, given.seeds))


if __name__ == "__main__":
    main()
