"""Which method closes how much of the way from the student alone to its teacher? Same data, student and steps for all.

On real faces FOLDER holds the teacher ``models/edgeface_xs_raw_rgb.onnx``, the images ``lfw112/``, the training list
``lfw_train.csv`` and the list ``lfw_test.csv`` of identities never trained on. On drawn faces the teacher is trained
first. All pairs of the unseen identities are scored. Every run is one ``facekd train`` command; finished runs are left
alone and a broken one goes on, so the study can be stopped at will, and what is finished written down at any time.

    python -m benchmarks.methods --faces FOLDER
    python -m benchmarks.methods --faces FOLDER --seeds 0 --methods l2 PAD
    python -m benchmarks.methods --faces FOLDER --only-report
    python -m benchmarks.methods
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.demo import steps
from benchmarks.real_faces import CONDITIONS, RESULTS, TEACHER, conditions, facekd, row, run_size, train_to_end
from benchmarks.tables import ALONE
from facekd.files import write_json
from facekd.models.embedder import load_embedder

SOFTMAX = "{name: margin_softmax, margin: 0.2, scale: 32}"
LIGHT_SOFTMAX = "{name: margin_softmax, margin: 0.2, scale: 32, weight: 0.02}"
INHERITED = "{name: margin_softmax, class_weights: teacher, margin: 0.2, scale: 32}"
LIGHT_INHERITED = "{name: margin_softmax, class_weights: teacher, margin: 0.2, scale: 32, weight: 0.02}"
PAD = "{name: pad, variance: scalar, floor: 0.25, warmup_epochs: 3}"
LIGHT_CENTRES = "{name: adadistill, margin: 0.2, scale: 32, weight: 0.02}"
BALANCED = ("train.images_per_identity=4",)


@dataclass(frozen=True)
class Method:
    """A method of the study.

    Attributes:
        losses: Its losses, each as a recipe writes it.
        changes: What else it changes in the recipe.
    """

    losses: tuple[str, ...]
    changes: tuple[str, ...] = ()

    def settings(self) -> list[str]:
        """Its ``--set`` values."""
        return [f"losses=[{', '.join(self.losses)}]", *self.changes]


METHODS = {
    ALONE: Method((SOFTMAX,), ("teacher=null",)),
    "l2": Method(("{name: l2}",)),
    "ProxylessKD": Method((INHERITED,)),
    "PAD": Method((PAD,)),
    "ProxylessKD + PAD": Method((LIGHT_INHERITED, PAD)),
    "logit KD": Method((SOFTMAX, "{name: logit_kd, scale: 64, temperature: 4}")),
    "DUL": Method(("{name: dul, class_weights: teacher, margin: 0.2, scale: 32, kl_weight: 0.01}",)),
    "DUL regression": Method(("{name: dul_regression, class_weights: teacher, variance: scalar, floor: 0.25}",)),
    "EKD": Method((SOFTMAX, "{name: ekd}")),
    "CCKD": Method((SOFTMAX, "{name: cckd, weight: 100}")),
    "RKD": Method((SOFTMAX, "{name: rkd, weight: 10}")),
    "AdaDistill": Method(("{name: adadistill, margin: 0.2, scale: 32}",)),
    "STKD": Method((SOFTMAX, "{name: stkd, scale: 32, temperature: 4, label_weight: 0.5}")),
    "multi-step": Method((LIGHT_SOFTMAX, "{name: l2}"), ("teacher.snapshots=stretched", "teacher.view=same")),
    "l2 + softmax": Method((LIGHT_SOFTMAX, "{name: l2}")),
    "cosine": Method(("{name: cosine}",)),
    "TH-KD": Method(
        (
            SOFTMAX,
            "{name: logit_kd, weight: 1.5, temperature: 4}",
            "{name: shared_head_kd, weight: 0.02, temperature: 4}",
        )
    ),
    "MarginDistillation": Method(("{name: margin_distillation, least_margin: 0.1, most_margin: 0.3, scale: 32}",)),
    "EKD, class-uniform batches": Method((SOFTMAX, "{name: ekd}"), BALANCED),
    "CCKD, class-uniform batches": Method((SOFTMAX, "{name: cckd, weight: 100}"), BALANCED),
    "SP": Method((SOFTMAX, "{name: sp, weight: 3000}")),
    "PKT": Method((SOFTMAX, "{name: pkt, weight: 100}")),
    "l2 + ProxylessKD": Method((LIGHT_INHERITED, "{name: l2}")),
    "AdaDistill + l2": Method((LIGHT_CENTRES, "{name: l2}")),
    "AdaDistill + PAD": Method((LIGHT_CENTRES, PAD)),
    "logit KD, light softmax": Method((LIGHT_SOFTMAX, "{name: logit_kd, scale: 64, temperature: 4}")),
    "EKD, light softmax": Method((LIGHT_SOFTMAX, "{name: ekd}")),
    "CCKD, light softmax": Method((LIGHT_SOFTMAX, "{name: cckd, weight: 100}")),
    "RKD, light softmax": Method((LIGHT_SOFTMAX, "{name: rkd, weight: 10}")),
    "PAD, floor 1": Method((PAD.replace("0.25", "1.0"),)),
    "ProxylessKD, 100 candidates": Method((INHERITED.replace("}", ", candidates: 100}"),)),
    "ProxylessKD, 10 candidates": Method((INHERITED.replace("}", ", candidates: 10}"),)),
}


@dataclass(frozen=True)
class Arena:
    """Faces to compare methods on.

    Attributes:
        benchmark: What the table is called.
        recipe: The recipe all methods change.
        equal: What all of them change alike: lengths, and where the faces are.
        teacher: The teacher's file or run folder.
        color: How to open it, as options of ``facekd eval``.
        unseen: The identities to measure on, as options of ``facekd eval``.
        preparations: Commands that make the teacher and the unseen faces, by the folder each makes.
        left_out: Methods that cannot be had there.
    """

    benchmark: str
    recipe: str
    equal: tuple[str, ...]
    teacher: Path
    color: tuple[str, ...]
    unseen: tuple[str, ...]
    preparations: dict[Path, tuple[str, ...]]
    left_out: tuple[str, ...] = ()

    @property
    def methods(self) -> list[str]:
        """The methods it compares."""
        return [method for method in METHODS if method not in self.left_out]


def real_faces(folder: Path) -> Arena:
    """A teacher somebody else made, and 7,007 photographs of 1,324 people."""
    teacher = folder / "models" / "edgeface_xs_raw_rgb.onnx"
    data = (f"data.path={folder / 'lfw_train.csv'}", f"data.images={folder / 'lfw112'}", "data.augment.mix=0")
    length = ("train.epochs=20", "train.freeze_norm_epochs=5", "train.checkpoint_every=5")
    unseen = ("--on", str(folder / "lfw_test.csv"), "--images", str(folder / "lfw112"))
    return Arena(
        "methods_real",
        "l2/edgeface_xs_resnet_tiny",
        (*data, *length),
        teacher,
        TEACHER,
        unseen,
        preparations={},
        left_out=("multi-step",),  # nobody kept the teacher's way
    )


def drawn_faces(runs: Path) -> Arena:
    """A teacher of our own, and 8,000 drawn images of 1,000 people, whom the teacher knows by 14 images each."""
    teacher, faces, unseen = runs / "teacher", runs / "faces", runs / "unseen"
    longer = ("data.synthetic={identities: 1000, samples: 14}", "train.epochs=20", "train.freeze_norm_epochs=5")
    taught = ("train", "quickstart/teacher", "--out", str(teacher), "--set", "train.snapshot_every=1")
    data = ("data.source=folder", f"data.path={faces}", "data.synthetic={}")
    return Arena(
        "methods_drawn",
        "quickstart/proxylesskd_pad",
        (*data, "train.freeze_norm_epochs=2", "train.checkpoint_every=5"),
        teacher,
        (),
        ("--on", str(unseen)),
        {
            teacher: (*taught, *(word for change in longer for word in ("--set", change))),
            faces: ("data", "synth", str(faces), "--identities", "1000", "--samples", "8"),
            unseen: tuple(steps(runs)["draw unseen identities"]),
        },
    )


def prepare(arena: Arena) -> None:
    """Make what the runs of an arena rest on, where it is not there yet."""
    for place, command in arena.preparations.items():
        done = place / "student.safetensors" if command[0] == "train" else place
        if not done.exists():
            facekd(*command, *(["--resume"] if place.exists() else []))


def place_of(method: str, seed: int, runs: Path) -> Path:
    """The run folder of a method and seed.

    Example:
        >>> place_of("l2 + softmax", 1, Path("runs")).name
        'l2_+_softmax-1'
    """
    return runs / f"{method.lower().replace(' ', '_')}-{seed}"


def train(arena: Arena, method: str, seed: int, runs: Path) -> None:
    """Train a method to its end."""
    teacher = [] if method == ALONE else [f"teacher.weights={arena.teacher}"]
    settings = [*arena.equal, f"train.seed={seed}", *teacher, *METHODS[method].settings()]
    train_to_end(arena.recipe, settings, place_of(method, seed, runs))


def measure(model: Path, arena: Arena, out: Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """Figures of a model on all pairs of the unseen identities; kept in ``out`` and not measured twice."""
    if not out.exists():
        fprs = [word for fpr in ("1e-2", "1e-3", "1e-4") for word in ("--fpr", fpr)]
        facekd("eval", str(model), *arena.unseen, *fprs, *options, "--json", str(out))
    (result,) = json.loads(out.read_text())["results"]
    return result


def report(arena: Arena, runs: Path, methods: Sequence[str], seeds: Sequence[int], command: str) -> dict[str, Any]:
    """The table of every run that is finished.

    Raises:
        SystemExit: None is.
    """
    chosen = [(method, seed, place_of(method, seed, runs)) for method in methods for seed in seeds]
    finished = [(method, seed, run) for method, seed, run in chosen if (run / "student.safetensors").exists()]
    if not finished:
        raise SystemExit("no run is finished")
    rows = [
        row(measure(run, arena, runs / f"{run.name}.json"), method, seed, run_size(run))
        for method, seed, run in finished
    ]
    told = dict(zip(("color", "normalize"), arena.color[1::2], strict=False))
    size = {"parameters": load_embedder(arena.teacher, **told).parameters}
    teacher = row(measure(arena.teacher, arena, runs / "teacher.json", arena.color), "teacher", None, size)
    shown = dict.fromkeys(method for method, _, _ in finished)
    return {
        "benchmark": arena.benchmark,
        "command": command,
        **conditions(finished[-1][2]),
        "seeds": sorted({seed for _, seed, _ in finished}),
        "recipe": arena.recipe,
        "recipes": {method: " --set ".join(METHODS[method].settings()) for method in shown},
        "teacher": [teacher],
        "rows": rows,
    }


def joined(earlier: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """A record of this and of earlier runs, made elsewhere perhaps: what is measured now, and earlier rows it lacks.

    Rows of a method whose recipe has changed since, or of a study that changed, are not kept. Rows from elsewhere
    carry their own ``conditions``.

    Args:
        earlier: What is in the results already.
        now: What :func:`report` gave.
    """
    if earlier is None or earlier["recipe"] != now["recipe"]:
        return dict(now)
    at_that_time = {name: earlier[name] for name in CONDITIONS}
    elsewhere = {"conditions": at_that_time} if any(now[name] != told for name, told in at_that_time.items()) else {}
    measured = {(row["method"], row["seed"]) for row in now["rows"]}
    asked = {method: " --set ".join(METHODS[method].settings()) for method in METHODS}
    steps = now["rows"][0]["steps"]
    kept = [
        elsewhere | row
        for row in earlier["rows"]
        if (row["method"], row["seed"]) not in measured
        and earlier["recipes"][row["method"]] == asked.get(row["method"])
        and row["steps"] == steps
    ]
    rows = [*kept, *now["rows"]]
    methods = {row["method"] for row in rows}
    return {
        **now,
        "seeds": sorted({row["seed"] for row in rows}),
        "recipes": {method: recipe for method, recipe in asked.items() if method in methods},
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--faces", type=Path, help="folder of real faces, lists and models; drawn faces if not given")
    parser.add_argument("--runs", type=Path, help="where runs are kept; runs/BENCHMARK if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", choices=METHODS, nargs="+", metavar="METHOD", help="all of them if not given")
    parser.add_argument("--only-report", action="store_true", help="train nothing; write down what is finished")
    given = parser.parse_args()
    runs = given.runs or Path("runs") / ("methods_real" if given.faces else "methods_drawn")
    runs.mkdir(parents=True, exist_ok=True)
    arena = real_faces(given.faces) if given.faces else drawn_faces(runs)
    chosen = given.methods or arena.methods
    for seed in [] if given.only_report else given.seeds:
        prepare(arena)
        for method in chosen:
            train(arena, method, seed, runs)
    faces = " --faces FOLDER" if given.faces else ""
    command = f"python -m benchmarks.methods{faces} --seeds {' '.join(map(str, given.seeds))}"
    path = RESULTS / f"{arena.benchmark}.json"
    earlier = json.loads(path.read_text()) if path.exists() else None
    write_json(path, joined(earlier, report(arena, runs, chosen, given.seeds, command)))


if __name__ == "__main__":
    main()
