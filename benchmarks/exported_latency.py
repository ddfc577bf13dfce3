"""How fast the exported files of real models run: each model's file of float32 beside those of fewer bits.

The files are those that `benchmarks.exports` left in its folder, which have passed every gate of `facekd export`. All
forms of a model take turns within one process; a ratio is of one turn.

    python -m benchmarks.exported_latency FOLDER
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.data_loading import spread
from benchmarks.latency import COUNTS, THREADS
from benchmarks.record import hand_over, surroundings
from facekd.engine.latency import Timing, bench
from facekd.models.onnx_model import load_onnx

FORMS = ("fp32", "fp16", "int8")
BATCH = COUNTS["batch"]
OUT = Path(__file__).with_name("results") / "exported_latency.json"


def models_in(folder: Path) -> list[str]:
    """Models of which a folder holds a file of every form.

    Raises:
        SystemExit: There is none.
    """
    whole = sorted(path.name.removesuffix("-fp32.onnx") for path in folder.glob("*-fp32.onnx"))
    found = [name for name in whole if all((folder / f"{name}-{form}.onnx").exists() for form in FORMS)]
    if not found:
        raise SystemExit(f"{folder}: holds no model in every form (run benchmarks.exports on it first)")
    return found


def timed(folder: Path, model: str, repeats: int, turns: int) -> list[dict[str, Any]]:
    """Times of every form of a model at one face and at a batch, and their ratios to float32 within a turn."""
    files = {form: folder / f"{model}-{form}.onnx" for form in FORMS}
    opened = {form: load_onnx(path, form) for form, path in files.items()}
    taken: dict[tuple[str, int], list[float]] = {}
    for _ in range(turns):
        for form, embedder in opened.items():
            timing = Timing(BATCH, repeats, THREADS, opencv=False, export=False)
            for entry in bench(embedder, files[form], timing)["latency"]:
                taken.setdefault((form, entry["batch"]), []).append(entry["median"])
    return [
        {
            "model": model,
            "form": form,
            "batch": batch,
            "bytes": files[form].stat().st_size,
            "seconds": _rounded(values),
            "ratio": spread([own / whole for own, whole in zip(values, taken["fp32", batch], strict=True)]),
        }
        for (form, batch), values in taken.items()
    ]


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.4g}") for value in values]


def report(folder: Path, repeats: int, turns: int) -> dict[str, Any]:
    """Everything measured and everything it depends on."""
    return {
        "benchmark": "exported_latency",
        "command": "python -m benchmarks.exported_latency FOLDER",
        "seeds": [0],
        "threads": THREADS,
        "repeats": repeats,
        "turns": turns,
        **surroundings("onnxruntime"),
        "rows": [row for model in models_in(folder) for row in timed(folder, model, repeats, turns)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where benchmarks.exports put its files")
    parser.add_argument("--repeats", type=int, default=12, help="passes of one turn; of a batch a third")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    hand_over(report(given.folder, given.repeats, given.turns), given.out)


if __name__ == "__main__":
    main()
