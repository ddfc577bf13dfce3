"""An IJB folder built from real photographs, measured 1:1 and 1:N in all eight modes beside a plain reference.

FOLDER holds the aligned images ``lfw112``, the list ``lfw_test.csv`` and ``models`` with YuNet and EdgeFace-XS. The
images are laid loose again and looked at by YuNet (``benchmarks.ijb_building``), ``facekd eval --all-modes`` measures
the folder with ``--report``, ``facekd eval --verify`` does it again without what is cached, and
``benchmarks.ijb_reference``, which has nothing of facekd, aligns, embeds and measures it from the same files. A figure
that differs is told. Figures are of drawn protocols, so they compare with nothing that is published for IJB-C. What is
finished is left alone, so it can be stopped at will.

    python -m benchmarks.ijb_real FOLDER --out benchmarks/results/ijb_real.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ijb_building, ijb_reference
from benchmarks.record import hand_over, surroundings
from facekd.data.open_source import open_identities
from facekd.files import write_json

MODEL, DETECTOR = "edgeface_xs_raw_rgb.onnx", "yunet.onnx"
SEEN = ("--color", "rgb", "--normalize", "none")
PROTOCOLS = {"ijb-1:1": (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1), "ijb-1:n": (1e-2, 1e-1)}
"""Protocol -> FPRs or FPIRs."""
KEPT = {
    "ijb-1:1": ("genuine", "impostor", "auc", "eer", "tpr_at_fpr"),
    "ijb-1:n": ("gallery", "probes", "rank", "rank_merged", "tpir_at_fpir"),
}
"""Protocol -> what the record keeps of a result."""
HOW = ("norm", "det", "flip")


def facekd(*words: object) -> str:
    """What one command of the command line, which must succeed, prints."""
    told = [str(word) for word in words]
    print("facekd", *told, flush=True)
    command = [sys.executable, "-m", "facekd_cli", *told]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def built(folder: Path, runs: Path, seed: int, people: int | None) -> dict[str, Any]:
    """What the IJB folder in ``runs`` holds; it is built where it is not there."""
    kept = runs / "built.json"
    if not kept.exists():
        began = time.perf_counter()
        source = open_identities(folder / "lfw_test.csv", folder / "lfw112")
        counts = ijb_building.build(source, folder / "models" / DETECTOR, runs / "ijbc", seed, people)
        write_json(kept, {**counts, "seconds": round(time.perf_counter() - began, 1)})
    return json.loads(kept.read_text())


def evaluated(model: Path, runs: Path, protocol: str) -> dict[str, Any]:
    """Results of ``facekd eval`` in every mode, what its page shows, and what ``--verify`` says of them."""
    name = protocol.replace(":", "-")
    figures, page, kept = (runs / f"{name}{suffix}" for suffix in (".json", ".html", ".verified.json"))
    if not figures.exists():
        words = (model, "--on", runs / "ijbc", "--protocol", protocol, "--all-modes", *SEEN, "--device", "cpu")
        words += tuple(word for rate in PROTOCOLS[protocol] for word in ("--fpr", rate))
        facekd("eval", *words, "--cache", runs / "cache", "--report", page, "--json", figures)
    if not kept.exists():
        began = time.perf_counter()
        said = facekd("eval", "--verify", figures, "--device", "cpu").strip().split(": ", 1)[1]
        write_json(kept, {"said": said, "seconds": round(time.perf_counter() - began, 1)})
    shown = page.read_text(encoding="utf-8")
    return {
        "results": json.loads(figures.read_text())["results"],
        "page": {
            "faces": shown.count('<img src="data:image/jpeg;base64,'),
            "loads_from_elsewhere": len(re.findall(r"(?:src|href)=.(?:https?:)?//|url\(.?(?:https?:)?//", shown)),
            "mib": round(page.stat().st_size / 2**20, 2),
        },
        "verified": json.loads(kept.read_text()),
    }


def ours(result: Mapping[str, Any]) -> dict[str, float]:
    """Figures of one result of ``facekd eval`` by the names the reference gives them."""
    if result["protocol"] == "ijb-1:1":
        told = {"auc": result["auc"], "eer": result["eer"]["value"]}
        for point in result["tpr_at_fpr"]:
            told |= {f"{name}@{point['fpr']:g}": point[name] for name in ("tpr", "threshold")}
        return told
    told = {f"{name}@{rank}": rate for name in ("rank", "rank_merged") for rank, rate in result[name].items()}
    for point in result["tpir_at_fpir"]:
        at = f"{point['definition']}@{point['fpir']:g}"
        told |= {f"tpir_{at}": point["tpir"]}
        told |= {f"threshold_{at}/{place}": limit for place, limit in enumerate(point["threshold"])}
    return told


def theirs(views: np.ndarray, runs: Path, result: Mapping[str, Any]) -> dict[str, float]:
    """The same figures by the reference."""
    meta = runs / "ijbc" / ijb_building.META
    vectors = ijb_reference.template_vectors(views, ijb_reference.read_rows(meta), *(result[name] for name in HOW))
    measured = ijb_reference.verification if result["protocol"] == "ijb-1:1" else ijb_reference.identification
    return measured(vectors, meta, PROTOCOLS[result["protocol"]])


def apart(found: Mapping[str, float], wanted: Mapping[str, float]) -> dict[str, float]:
    """By how much figures differ.

    Raises:
        ValueError: One side tells a figure that the other refuses.

    Example:
        >>> apart({"auc": 0.5, "tpr@0.1": 0.25}, {"auc": 0.5, "tpr@0.1": 0.75})
        {'auc': 0.0, 'tpr@0.1': 0.5}
    """
    if found.keys() != wanted.keys():
        raise ValueError(f"only one side tells {sorted(found.keys() ^ wanted.keys())}")
    return {name: abs(value - wanted[name]) for name, value in found.items()}


def compared(results: Sequence[Mapping[str, Any]], views: np.ndarray, runs: Path) -> list[dict[str, Any]]:
    """What the record keeps of results, each with how far it is from the reference.

    Args:
        results: Of ``facekd eval``.
        views: Of every image and its mirror, by the reference.
        runs: Where the IJB folder is.
    """
    rows = []
    for result in results:
        names = ("protocol", *HOW, *KEPT[result["protocol"]], "refused", "failed_images")
        differs = apart(ours(result), theirs(views, runs, result))
        told = {"differs_from_reference": differs, "seconds": result["seconds"]["score"]}
        rows.append({**{name: result[name] for name in names}, **told})
    return rows


def measure(folder: Path, runs: Path, seed: int, people: int | None) -> dict[str, Any]:
    """Build, evaluate and compare.

    Args:
        folder: Faces, the list and models.
        runs: Where what is finished is kept, apart for every seed and number of people.
        seed: Of what is drawn when the folder is built.
        people: How many; all where None.
    """
    runs = runs / f"{people or 'all'}-{seed}"
    runs.mkdir(parents=True, exist_ok=True)
    counts, model = built(folder, runs, seed, people), folder / "models" / MODEL
    found = {protocol: evaluated(model, runs, protocol) for protocol in PROTOCOLS}
    began = time.perf_counter()
    crops = runs / "ijbc" / ijb_building.CROPS
    views = ijb_reference.see(model, crops, ijb_reference.read_rows(crops.parent / ijb_building.META))
    seconds = {"reference embeds": round(time.perf_counter() - began, 1)}
    rows = []
    for protocol, each in found.items():
        results = each.pop("results")
        seconds[f"{protocol} embeds"] = results[0]["seconds"]["embed"]
        rows += compared(results, views, runs)
    busy = {"cores": os.cpu_count(), "load_of_15_minutes": round(os.getloadavg()[2], 1)}
    return {"model": MODEL, "folder": counts, "evaluations": found, "seconds": seconds, "busy": busy, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="faces, the list and models")
    parser.add_argument("--runs", type=Path, default=Path("runs/ijb_real"), help="where what is finished is kept")
    parser.add_argument("--people", type=int, help="only so many, evenly spaced in the order of their names")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    given = parser.parse_args()
    fewer = f" --people {given.people}" if given.people else ""
    record = {
        "benchmark": "ijb_real",
        "command": f"python -m benchmarks.ijb_real FOLDER --seed {given.seed}{fewer}",
        "seeds": [given.seed],
        **measure(given.folder, given.runs, given.seed, given.people),
        **surroundings("torch", "onnxruntime", "opencv-python", "numpy", "scikit-learn"),
    }
    hand_over(record, given.out)


if __name__ == "__main__":
    main()
