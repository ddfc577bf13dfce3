"""What distillation buys on real faces: teacher, student alone, l2, ProxylessKD + PAD; same steps, several seeds.

FOLDER holds the teacher ``models/edgeface_xs_raw_rgb.onnx``, the images ``lfw112/`` and the lists ``lfw_train.csv``
(training identities), ``lfw_test.csv`` and ``lfw_pairs_test.txt`` (identities never trained on). Every run is one
``facekd train`` command; finished runs are left alone and a broken one goes on, so the study can be stopped at will.

    python -m benchmarks.real_faces FOLDER
    python -m benchmarks.real_faces FOLDER --study real_faces_longer --seeds 0
    python -m benchmarks.real_faces FOLDER --study real_faces_terms --runs runs/real_faces
    python -m benchmarks.real_faces FOLDER --study real_faces_activations --seeds 0
    python -m benchmarks.real_faces FOLDER --study real_faces_candidates --seeds 0
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from facekd.files import write_json
from facekd.models.embedder import load_embedder
from facekd.recipe import load_recipe

TEACHER = ("--color", "rgb", "--normalize", "none")
RECIPES = {
    "student alone": "baseline/resnet_tiny_faces112",
    "l2": "l2/edgeface_xs_resnet_tiny",
    "ProxylessKD + PAD": "proxylesskd_pad/edgeface_xs_resnet_tiny",
}
LONGER = ("train.epochs=120", "train.freeze_norm_epochs=30")
PAD = "{name: pad, variance: scalar, floor: 0.25, warmup_epochs: 6}"
INHERITED = "{name: margin_softmax, class_weights: teacher, margin: 0.2, scale: 32, weight: 0.02}"
AMONG = "{{name: margin_softmax, class_weights: teacher, margin: 0.2, scale: 32, candidates: {}}}"
OWN = "{name: margin_softmax, margin: 0.2, scale: 32, weight: 0.02}"
CENTRES = "{name: adadistill, margin: 0.2, scale: 32}"
TERMS = {
    "PAD": PAD,
    "l2 + softmax": f"{OWN}, {{name: l2}}",
    "l2 + ProxylessKD": f"{INHERITED}, {{name: l2}}",
    "AdaDistill": CENTRES,
    "AdaDistill + l2": f"{CENTRES.replace('}', ', weight: 0.02}')}, {{name: l2}}",
}
HALF = ("student.backbone=mobilefacenet",)
ACTIVATIONS = {
    "ResNet with ReLU": ("student.options={activation: relu}",),
    "ResNet with PReLU": ("student.options={activation: prelu}",),
    "MobileFaceNet with ReLU": (*HALF, "student.options={width: 0.5, activation: relu}"),
    "MobileFaceNet with PReLU": (*HALF, "student.options={width: 0.5, activation: prelu}"),
}
"""What ReLU, which onnxruntime fuses, costs beside PReLU: the student of the recipes, and a MobileFaceNet of half its
width; all copy the teacher by l2."""
CANDIDATES = {
    "ProxylessKD, every identity": "null",
    "ProxylessKD, 100 candidates": "100",
    "ProxylessKD, 10 candidates": "10",
}
"""Among whom the inherited classifier's softmax is taken, where nothing else teaches the student."""
SHORTER = ("train.epochs=20", "train.freeze_norm_epochs=5")
STUDIES: dict[str, dict[str, tuple[str, ...]]] = {
    "real_faces": dict.fromkeys(RECIPES, ()),
    "real_faces_terms": dict.fromkeys(RECIPES, ()) | {name: (f"losses=[{each}]",) for name, each in TERMS.items()},
    "real_faces_longer": {
        "student alone": LONGER,
        "l2": (*LONGER, "data.versions=16"),
        "ProxylessKD + PAD": (*LONGER, "data.versions=16"),
    },
    "real_faces_longest": {
        "ProxylessKD + PAD": ("train.epochs=240", "train.freeze_norm_epochs=60", "data.versions=16"),
    },
    "real_faces_activations": {name: (*each, *SHORTER) for name, each in ACTIVATIONS.items()},
    "real_faces_candidates": {
        name: (f"losses=[{AMONG.format(each)}]", "data.augment.mix=0", *SHORTER) for name, each in CANDIDATES.items()
    },
}
"""Study -> method -> what it changes in the method's recipe, or in that of l2 where it has none."""
L2 = RECIPES["l2"]
RESULTS = Path(__file__).parent / "results"
CONDITIONS = ("facekd", "python", "machine", "packages", "device", "accelerator", "threads")
"""What a record tells of where its runs were trained."""


def facekd(*arguments: str) -> None:
    """Run one command of the command line, which must succeed."""
    print("facekd", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "facekd_cli", *arguments], check=True)


def train_to_end(recipe: str, changes: Sequence[str], out: Path) -> None:
    """Train to the end, from wherever an earlier attempt left it."""
    if (out / "student.safetensors").exists():
        return
    options = [word for change in changes for word in ("--set", change)]
    resume = ["--resume"] if (out / "recipe.yaml").exists() else []
    facekd("train", recipe, "--out", str(out), *options, *resume)


def train(recipe: str, folder: Path, seed: int, out: Path, changes: Sequence[str]) -> None:
    """Train one student on the faces of the folder."""
    sets = [f"data.path={folder / 'lfw_train.csv'}", f"data.images={folder / 'lfw112'}", f"train.seed={seed}"]
    if not recipe.startswith("baseline/"):
        sets.append(f"teacher.weights={folder / 'models' / 'edgeface_xs_raw_rgb.onnx'}")
    train_to_end(recipe, [*sets, *changes], out)


def evaluate(models: list[Path], folder: Path, out: Path, options: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """Figures of models on the two sets of unseen identities; kept in ``out`` and not measured twice."""
    if not out.exists():
        sets = [word for name in ("lfw_test.csv", "lfw_pairs_test.txt") for word in ("--on", str(folder / name))]
        fprs = [word for fpr in ("1e-2", "1e-3", "1e-4") for word in ("--fpr", fpr)]
        images = ("--images", str(folder / "lfw112"))
        facekd("eval", *map(str, models), *sets, *images, *fprs, *options, "--json", str(out))
    return json.loads(out.read_text())["results"]


def row(result: dict[str, Any], method: str, seed: int | None, size: dict[str, Any]) -> dict[str, Any]:
    """One line of the table: what was measured, of what, and how large it is."""
    figures = ("set", "protocol", "pairs", "genuine", "impostor", "accuracy", "auc", "eer", "tpr_at_fpr", "refused")
    return {"method": method, "seed": seed, **size, **{name: result[name] for name in figures}}


def run_size(run: Path) -> dict[str, Any]:
    """Parameters, cost and length of a finished run, and its training speed, from what it recorded."""
    record = json.loads((run / "environment.json").read_text())
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(line["seconds"] for line in lines if "seconds" in line)
    plan = record["plan"]
    return {
        "input_size": load_recipe(run / "recipe.yaml").student.input_size,
        "parameters": plan["student_parameters"],
        "macs": plan["student_macs"],
        "steps": plan["total_steps"],
        "epochs": plan["total_steps"] // plan["steps_per_epoch"],
        "train_seconds": round(seconds),
        "inherited_classifier": record.get("inherited_classifier"),
    }


def conditions(run: Path) -> dict[str, Any]:
    """Machine, versions, device and threads a run was trained with, as it recorded them."""
    record = json.loads((run / "environment.json").read_text())
    return {name: record[name] for name in CONDITIONS}


def run_name(method: str) -> str:
    """What the run folders of a method begin with: its recipe's folder, or else its own name.

    Example:
        >>> run_name("student alone"), run_name("l2 + softmax")
        ('baseline', 'l2_+_softmax')
    """
    return RECIPES[method].split("/")[0] if method in RECIPES else method.lower().replace(" ", "_")


def study(name: str, folder: Path, runs: Path, seeds: list[int], only_report: bool = False) -> dict[str, Any]:
    """Train and measure everything that is missing, or nothing more; returns the table of what is finished."""
    runs.mkdir(parents=True, exist_ok=True)
    teacher = folder / "models" / "edgeface_xs_raw_rgb.onnx"
    rows, run = [], runs
    for seed in seeds:
        for method, changes in STUDIES[name].items():
            recipe = RECIPES.get(method, L2)
            place = runs / f"{run_name(method)}-{seed}"
            if only_report and not (place / "student.safetensors").exists():
                continue
            run = place
            train(recipe, folder, seed, run, changes)
            results = evaluate([run], folder, runs / f"{run.name}.json")
            rows += [row(result, method, seed, run_size(run)) for result in results]
    results = evaluate([teacher], folder, runs / "teacher.json", TEACHER)
    parameters = load_embedder(teacher, color="rgb", normalize="none").parameters
    return {
        "benchmark": name,
        "command": f"python -m benchmarks.real_faces FOLDER --study {name} --seeds {' '.join(map(str, seeds))}",
        **conditions(run),
        "seeds": seeds,
        "recipes": {
            method: " --set ".join([RECIPES.get(method, L2), *changes])
            for method, changes in STUDIES[name].items()
            if any(row["method"] == method for row in rows)
        },
        "teacher": [row(result, "teacher", None, {"parameters": parameters}) for result in results],
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="faces, lists and models")
    parser.add_argument("--study", choices=STUDIES, default="real_faces")
    parser.add_argument("--runs", type=Path, help="where runs are kept; runs/STUDY if not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only-report", action="store_true", help="train nothing; write down what is finished")
    given = parser.parse_args()
    runs = given.runs or Path("runs") / given.study
    found = study(given.study, given.folder, runs, given.seeds, given.only_report)
    write_json(RESULTS / f"{given.study}.json", found)


if __name__ == "__main__":
    main()
