"""The whole product on drawn faces: a teacher, a student alone, the same student distilled, one table, one ONNX file.

Prints every command before it runs it, so each can be typed alone.

    python -m benchmarks.demo --out demo
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from facekd.engine.run_folder import environment
from facekd.files import write_json

MODELS = ("teacher", "alone", "distilled")


def steps(out: Path) -> dict[str, list[str]]:
    """The commands by name, in order."""
    teacher, alone, distilled = (str(out / name) for name in MODELS)
    unseen = str(out / "unseen")
    synth = ["data", "synth", unseen, "--identities", "200", "--samples", "8", "--first-identity", "1000000"]
    sets = ["--on", unseen, "--fpr", "1e-2", "--fpr", "1e-3", "--fpr", "1e-4"]
    inherit = ["--set", f"teacher.weights={teacher}"]
    return {
        "train the teacher": ["train", "quickstart/teacher", "--out", teacher],
        "train the student alone": ["train", "quickstart/student", "--out", alone],
        "distil the student": ["train", "quickstart/proxylesskd_pad", *inherit, "--out", distilled],
        "draw unseen identities": synth,
        "measure all three": ["eval", teacher, alone, distilled, *sets, "--json", str(out / "figures.json")],
        "export to ONNX": ["export", distilled, "-o", str(out / "student.onnx")],
    }


def run(out: Path) -> dict[str, float]:
    """Run every step in a fresh folder; returns the seconds each took.

    A step that fails ends the demo with its own error and exit code.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    seconds = {}
    for name, words in steps(out).items():
        print(f"\n# {name}\nfacekd {shlex.join(words)}", flush=True)
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "facekd_cli", *words])
        if done.returncode:
            sys.exit(done.returncode)
        seconds[name] = round(time.perf_counter() - began, 1)
    return seconds


def record(out: Path, seconds: dict[str, float]) -> dict[str, object]:
    """What the demo measured, with the size of each model."""
    results = json.loads((out / "figures.json").read_text())["results"]
    rows = []
    for name, result in zip(MODELS, results, strict=True):
        plan = json.loads((out / name / "environment.json").read_text())["plan"]
        size = {"parameters": plan["student_parameters"], "macs": plan["student_macs"]}
        rows.append({**result, "model": name, **size})
    return {
        "benchmark": "demo",
        "command": "make demo",
        **environment(torch.device("cpu")),
        "seeds": [0],
        "seconds": seconds,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to make; replaced if it is there")
    parser.add_argument("--record", type=Path, help="write the figures and times to this JSON file")
    given = parser.parse_args()
    seconds = run(given.out)
    print(f"\nin all {sum(seconds.values()):.0f} s")
    if given.record:
        write_json(given.record, record(given.out, seconds))


if __name__ == "__main__":
    main()
