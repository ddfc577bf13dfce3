"""Which method closes how much of the way from the student alone to its teacher? Same data, student and steps for all.

On real faces: FOLDER holds the teacher ``models/edgeface_xs_raw_rgb.onnx``, the images ``lfw112/``, the training list
``lfw_train.csv`` and the list ``lfw_test.csv`` of identities never trained on, all pairs of which are scored. Every run
is one ``facekd train`` command; finished runs are left alone and a broken one goes on, so the study can be stopped at
will, and what is finished can be written down at any time.

    python -m benchmarks.methods FOLDER
    python -m benchmarks.methods FOLDER --seeds 0 --methods l2 PAD
    python -m benchmarks.methods FOLDER --only-report
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.real_faces import RESULTS, TEACHER, conditions, facekd, row, run_size, train_to_end
from benchmarks.tables import ALONE
from facekd.files import write_json
from facekd.models.embedder import load_embedder

RECIPE = "l2/edgeface_xs_resnet_tiny"
EQUAL = (
    "data.augment.mix=0",
    "train.epochs=20",
    "train.freeze_norm_epochs=5",
    "train.checkpoint_every=5",
)
"""What every method has alike, beside the recipe it is a change of."""
SOFTMAX = "{name: margin_softmax, margin: 0.2, scale: 32}"
LIGHT_SOFTMAX = "{name: margin_softmax, margin: 0.2, scale: 32, weight: 0.02}"
INHERITED = "{name: margin_softmax, class_weights: teacher, margin: 0.2, scale: 32}"
LIGHT_INHERITED = "{name: margin_softmax, class_weights: teacher, margin: 0.2, scale: 32, weight: 0.02}"
PAD = "{name: pad, variance: scalar, floor: 0.25, warmup_epochs: 3}"
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
        return [f"losses=[{', '.join(self.losses)}]", *EQUAL, *self.changes]


METHODS = {
    ALONE: Method((SOFTMAX,), ("teacher=null",)),
    "l2": Method(("{name: l2}",)),
    "cosine": Method(("{name: cosine}",)),
    "l2 + softmax": Method((LIGHT_SOFTMAX, "{name: l2}")),
    "logit KD": Method((SOFTMAX, "{name: logit_kd, scale: 64, temperature: 4}")),
    "TH-KD": Method(
        (
            SOFTMAX,
            "{name: logit_kd, weight: 1.5, temperature: 4}",
            "{name: shared_head_kd, weight: 0.02, temperature: 4}",
        )
    ),
    "ProxylessKD": Method((INHERITED,)),
    "MarginDistillation": Method(("{name: margin_distillation, least_margin: 0.1, most_margin: 0.3, scale: 32}",)),
    "AdaDistill": Method(("{name: adadistill, margin: 0.2, scale: 32}",)),
    "PAD": Method((PAD,)),
    "ProxylessKD + PAD": Method((LIGHT_INHERITED, PAD)),
    "EKD": Method((SOFTMAX, "{name: ekd}"), BALANCED),
    "CCKD": Method((SOFTMAX, "{name: cckd, weight: 100}"), BALANCED),
    "RKD": Method((SOFTMAX, "{name: rkd, weight: 10}")),
    "SP": Method((SOFTMAX, "{name: sp, weight: 3000}")),
    "PKT": Method((SOFTMAX, "{name: pkt, weight: 100}")),
}


def train(method: str, folder: Path, seed: int, runs: Path) -> Path:
    """The run folder of a method and seed, trained to its end."""
    run = runs / f"{method.lower().replace(' ', '_')}-{seed}"
    paths = [f"data.path={folder / 'lfw_train.csv'}", f"data.images={folder / 'lfw112'}", f"train.seed={seed}"]
    teacher = f"teacher.weights={folder / 'models' / 'edgeface_xs_raw_rgb.onnx'}"
    train_to_end(RECIPE, [*paths, *([] if method == ALONE else [teacher]), *METHODS[method].settings()], run)
    return run


def measure(model: Path, folder: Path, out: Path, options: tuple[str, ...] = ()) -> dict[str, Any]:
    """Figures of a model on all pairs of the unseen identities; kept in ``out`` and not measured twice."""
    if not out.exists():
        fprs = [word for fpr in ("1e-2", "1e-3", "1e-4") for word in ("--fpr", fpr)]
        on = ("--on", str(folder / "lfw_test.csv"), "--images", str(folder / "lfw112"))
        facekd("eval", str(model), *on, *fprs, *options, "--json", str(out))
    (result,) = json.loads(out.read_text())["results"]
    return result


def report(folder: Path, runs: Path, methods: Sequence[str], seeds: Sequence[int]) -> dict[str, Any]:
    """The table of every run that is finished.

    Raises:
        SystemExit: None is.
    """
    teacher = folder / "models" / "edgeface_xs_raw_rgb.onnx"
    rows, finished = [], None
    for method in methods:
        for seed in seeds:
            run = runs / f"{method.lower().replace(' ', '_')}-{seed}"
            if (run / "student.safetensors").exists():
                finished = run
                rows.append(row(measure(run, folder, runs / f"{run.name}.json"), method, seed, run_size(run)))
    if finished is None:
        raise SystemExit("no run is finished")
    parameters = load_embedder(teacher, color="rgb", normalize="none").parameters
    of_teacher = row(
        measure(teacher, folder, runs / "teacher.json", TEACHER), "teacher", None, {"parameters": parameters}
    )
    return {
        "benchmark": "methods_real",
        "command": f"python -m benchmarks.methods FOLDER --seeds {' '.join(map(str, seeds))}",
        **conditions(finished),
        "seeds": list(seeds),
        "recipes": {method: " --set ".join([RECIPE, *METHODS[method].settings()]) for method in methods},
        "teacher": [of_teacher],
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="faces, lists and models")
    parser.add_argument("--runs", type=Path, default=Path("runs/methods_real"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", choices=METHODS, nargs="+", default=list(METHODS), metavar="METHOD")
    parser.add_argument("--only-report", action="store_true", help="train nothing; write down what is finished")
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    for seed in [] if given.only_report else given.seeds:
        for method in given.methods:
            train(method, given.folder, seed, given.runs)
    write_json(RESULTS / "methods_real.json", report(given.folder, given.runs, given.methods, given.seeds))


if __name__ == "__main__":
    main()
