"""Does a learned uncertainty tell how much of a face was lost? Rank correlation with the true blur and resolution.

A finished student stays as it is; each method trains the same head beside it, on the same faces, for the same steps.
Then faces of people nobody trained on are made worse step by step: as a perfect camera takes them, so that the true
strength is known, and as the drawn cameras do, which blur and lose pixels themselves. Uncertainty is correlated with
it over all people at once, which is what a user with one threshold gets, and within the series of each image, which is
easier: what is particular to a person drops out.
Every run is one ``facekd train`` command; finished runs are left alone and a broken one goes on.

    python -m benchmarks.uncertainty
    python -m benchmarks.uncertainty --student RUN
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.degraded_faces import BLURS, CAMERAS, FIRST_UNSEEN, SIDES, correlations, draw_series
from benchmarks.methods import Method, place_of
from benchmarks.real_faces import RESULTS, conditions, facekd, run_size, train_to_end
from facekd.engine.embed import StoredEmbeddings, load_embeddings
from facekd.files import write_json
from facekd.metrics.uncertainty import harmonic_mean_variance, uncertainty_spread
from facekd.recipe import load_recipe
from facekd.recipe.schema import Recipe

RECIPE = "pad/resnet_tiny_uncertainty"
EQUAL = ("train.epochs=8",)
"""What all methods change alike in the recipe."""
OWN = "{{name: pad, head: mlp, variance: {}, floor: 1.0e-3, warmup_epochs: 0.2}}"
METHODS = {
    "PAD": Method((OWN.format("scalar"),)),
    "PAD per dimension": Method((OWN.format("per_dimension"),)),
    "DUL regression": Method(
        ("{name: dul_regression, class_weights: teacher, head: mlp, variance: scalar, floor: 1.0e-3}",)
    ),
    "PFE": Method(
        ("{name: pfe, head: mlp, variance: scalar, floor: 1.0e-3}",), ("teacher=null", "train.images_per_identity=4")
    ),
    "DUL": Method(
        (
            "{name: dul, class_weights: teacher, head: mlp, variance: scalar, kind: cosface, margin: 0.2, scale: 32,"
            " kl_weight: 0.01}",
        )
    ),
}
LENGTH = "minus the embedding's length"
"""The comparator that trains nothing."""

SAMPLES = 10
"""Images of each of the student's people to train heads on."""


def head_settings(student: Path, data: Sequence[str], method: Method, seed: int) -> list[str]:
    """What a head's run changes in the recipe: the student it reads, the faces, and the method's own.

    Args:
        student: The finished run.
        data: Settings that say where the faces are.
        method: What is compared.
        seed: Of the run.
    """
    made = load_recipe(student / "recipe.yaml").student
    same = (
        f"student.weights={student / 'student.safetensors'}",
        f"student.backbone={made.backbone}",
        f"student.embedding_size={made.embedding_size}",
        f"student.input_size={made.input_size}",
        f"student.options={json.dumps(made.options)}",
    )
    teacher = [] if "teacher=null" in method.changes else [f"teacher.weights={student}"]
    return [*same, *teacher, *data, *EQUAL, f"train.seed={seed}", *method.settings()]


def embedded(run: Path, options: Sequence[str], out: Path) -> StoredEmbeddings:
    """Embeddings and log variances of faces by a head's run; kept in ``out`` and not made twice."""
    if not out.exists():
        facekd("embed", str(run), *options, "-o", str(out), "--uncertainty")
    return load_embeddings(out)


def log_variance_of(stored: StoredEmbeddings) -> np.ndarray:
    """The log variances of embeddings that have them.

    Raises:
        SystemExit: They have none.
    """
    if stored.log_variance is None:
        raise SystemExit(f"{stored.model}: stored without log_variance; delete the file and run again")
    return stored.log_variance


def of_head(stored: StoredEmbeddings) -> dict[str, Any]:
    """How a head's uncertainty ranks the faces of a camera."""
    log_variance = log_variance_of(stored)
    found = correlations(stored.names, harmonic_mean_variance(log_variance).numpy())
    return {"spread": uncertainty_spread(log_variance), **found}


def of_length(stored: StoredEmbeddings) -> dict[str, Any]:
    """How the embedding's length ranks the faces of a camera: the shorter, the less sure."""
    return {"spread": None, **correlations(stored.names, -np.linalg.norm(stored.embeddings, axis=1))}


def people_of(recipe: Recipe, out: Path) -> list[str]:
    """The command that draws the people a student was trained on, whose classifier and space the heads may use."""
    people = recipe.data.synthetic
    counts = ("--identities", str(people.identities), "--samples", str(SAMPLES))
    return [
        "data",
        "synth",
        str(out),
        *counts,
        "--seed",
        str(people.seed),
        "--first-identity",
        str(people.first_identity),
    ]


def about_student(student: Path) -> dict[str, Any]:
    """What the frozen student is, as its run recorded it."""
    recipe = load_recipe(student / "recipe.yaml")
    people = recipe.data.synthetic
    faces = {"identities": people.identities, "samples": people.samples} if recipe.data.source == "synthetic" else {}
    return {"name": recipe.name, "losses": [loss.name for loss in recipe.losses], **run_size(student), **faces}


def study(runs: Path, student: Path | None, seeds: Sequence[int], unseen: tuple[int, int]) -> dict[str, Any]:
    """Train and measure everything that is missing; returns the whole table.

    Args:
        runs: Where runs are kept.
        student: A finished run on drawn faces; one of the quickstart is trained where there is none.
        seeds: Of the heads.
        unseen: People to measure on, and images of each.

    Raises:
        SystemExit: The student was trained on people of the unseen range, or on no drawn faces.
    """
    runs.mkdir(parents=True, exist_ok=True)
    given = " --student RUN" if student else ""
    if student is None:
        student = runs / "student"
        train_to_end("quickstart/teacher", (), student)
    recipe = load_recipe(student / "recipe.yaml")
    people = recipe.data.synthetic
    if recipe.data.source != "synthetic" or people.first_identity + people.identities > FIRST_UNSEEN:
        raise SystemExit(f"the student must be trained on drawn faces of identities below {FIRST_UNSEEN:,}")
    if not (runs / "people").exists():
        facekd(*people_of(recipe, runs / "people"))
    for camera in CAMERAS:
        draw_series(runs / f"series-{camera}", camera, *unseen)
    rows: list[dict[str, Any]] = []
    run, stored = student, {}
    for seed in seeds:
        for name, method in METHODS.items():
            run = place_of(name, seed, runs)
            train_to_end(RECIPE, head_settings(student, (f"data.path={runs / 'people'}",), method, seed), run)
            for camera in CAMERAS:
                out = runs / f"{run.name}-{camera}.npz"
                stored[camera] = embedded(run, (str(runs / f"series-{camera}"),), out)
            cameras = {camera: of_head(faces) for camera, faces in stored.items()}
            rows.append({"method": name, "seed": seed, **run_size(run), "cameras": cameras})
    lengths = {camera: of_length(faces) for camera, faces in stored.items()}
    rows.append({"method": LENGTH, "seed": None, "cameras": lengths})
    return {
        "benchmark": "uncertainty",
        "command": f"python -m benchmarks.uncertainty{given} --seeds {' '.join(map(str, seeds))}",
        **conditions(run),
        "seeds": list(seeds),
        "recipe": " --set ".join((RECIPE, *EQUAL)),
        "recipes": {name: " --set ".join(method.settings()) for name, method in METHODS.items()},
        "student": about_student(student),
        "trained_on": {"identities": people.identities, "samples": SAMPLES},
        "measured_on": {"people": unseen[0], "samples": unseen[1], "blurs": BLURS, "sides": SIDES},
        "target": {"pooled": 0.7},
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--student", type=Path, help="a finished run on drawn faces; trained here if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs/uncertainty"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    write_json(RESULTS / "uncertainty.json", study(given.runs, given.student, given.seeds, (60, 4)))


if __name__ == "__main__":
    main()
