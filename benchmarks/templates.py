"""What 1:1 over templates costs at the size of IJB-C, once its images are embedded.

23,124 templates of 512 numbers and 15,658,489 pairs, drawn: a centre for each subject, with noise. The list of pairs
is written to a file and read as that of an IJB folder is. Scoring is measured against its floor, the same rows gathered
and multiplied and nothing else, in turns; both run on one thread. ``added_mib`` is the most memory at any time above
what the process held with the embeddings in it. Everything runs in a process of its own.

    python -m benchmarks.templates --out benchmarks/results/templates.json
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

import facekd
from benchmarks.record import hand_over
from facekd.data.ijb import IjbFolder
from facekd.data.ijb_lists import Faces
from facekd.data.ijb_protocols import TemplatePairs, read_pairs
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.evaluation.template_evaluation import IJB_FPRS
from facekd.engine.evaluation.template_pairs import measure_template_pairs
from facekd.metrics.templates import Membership, template_pair_scores

GALLERY, PROBES, DIM = 3_531, 19_593, 512
GENUINE, IMPOSTOR = 19_557, 15_638_932
BLOCK = 2048


def drawn_templates(seed: int, share: float) -> tuple[torch.Tensor, np.ndarray]:
    """Unit embeddings of a gallery template a subject and then of all probes, and the subject of each."""
    rng = np.random.default_rng(seed)
    gallery, probes = max(4, int(GALLERY * share)), max(8, int(PROBES * share))
    subjects = np.concatenate([np.arange(gallery), rng.integers(0, gallery, probes)])
    centres = torch.from_numpy(rng.normal(size=(gallery, DIM)).astype(np.float32))
    noise = torch.from_numpy(rng.normal(size=(len(subjects), DIM)).astype(np.float32))
    rows = centres[torch.from_numpy(subjects)] + 2.2 * noise
    return torch.nn.functional.normalize(rows, dim=1), subjects


def write_pairs(folder: Path, subjects: np.ndarray, seed: int, share: float) -> None:
    """The list of pairs, and a probe list that tells the subject of every template; ids are rows counted from 1."""
    rng = np.random.default_rng([seed, 1])
    gallery = int(subjects.max()) + 1
    probes = np.arange(gallery, len(subjects))
    genuine = rng.choice(probes, int(GENUINE * share))
    right = rng.choice(probes, int(IMPOSTOR * share))
    left = (subjects[right] + rng.integers(1, gallery, len(right))) % gallery
    pairs = np.concatenate([np.stack([subjects[genuine], genuine], 1), np.stack([left, right], 1)]) + 1
    labels = np.concatenate([np.ones(len(genuine), np.int64), np.zeros(len(right), np.int64)])
    table = np.column_stack([pairs, labels])[rng.permutation(len(labels))]
    with open(folder / "ijbc_template_pair_label.txt", "w", encoding="ascii") as stream:
        for start in range(0, len(table), 100_000):
            stream.writelines(f"{a} {b} {label}\n" for a, b, label in table[start : start + 100_000].tolist())
    rows = "".join(f"{row},{subject}\n" for row, subject in enumerate(subjects.tolist(), 1))
    (folder / "ijbc_1N_probe_mixed.csv").write_text(f"TEMPLATE_ID,SUBJECT_ID\n{rows}", encoding="ascii")


def opened(folder: Path, templates: int) -> IjbFolder:
    """A folder of lists without images, a template to each row."""
    rows = np.arange(templates)
    names = [f"{row}.jpg" for row in rows]
    faces = Faces(folder / "ijbc_face_tid_mid.txt", rows.tolist(), names, rows + 1, rows)
    members = Membership(rows + 1, rows, rows, np.ones(templates))
    return IjbFolder("ijbc", folder, "ijbc", faces, members, None, "")  # type: ignore[arg-type]


def bare_scores(templates: torch.Tensor, pairs: TemplatePairs) -> torch.Tensor:
    """The floor: rows gathered and multiplied, and nothing checked."""
    left, right = torch.from_numpy(pairs.left), torch.from_numpy(pairs.right)
    scores = torch.empty(len(left))
    for start in range(0, len(left), BLOCK):
        part = slice(start, start + BLOCK)
        scores[part] = templates.index_select(0, left[part]).mul_(templates.index_select(0, right[part])).sum(dim=1)
    return scores


def memory_mib(field: str) -> float:
    """A line of what Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds by wall clock, and what came out."""
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def tell(folder: Path, seed: int, share: float, repeats: int, replicates: int) -> None:
    """Measure and print; meant for a process of its own."""
    torch.set_num_threads(1)
    templates, _ = drawn_templates(seed, share)
    source = opened(folder, len(templates))
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mib("VmRSS")
    reading, pairs = timed(lambda: read_pairs(source))
    assert isinstance(pairs, TemplatePairs)
    read_mib = memory_mib("VmHWM") - before
    plain, full = (EvalSettings(fprs=IJB_FPRS, bootstrap=count) for count in (0, replicates))
    measuring = [timed(lambda: measure_template_pairs(templates, pairs, plain))[0] for _ in range(repeats)]
    plain_mib = memory_mib("VmHWM") - before
    with_intervals, measured = timed(lambda: measure_template_pairs(templates, pairs, full))
    found = {
        "added_mib": {"reading": read_mib, "and measuring": plain_mib, "and intervals": memory_mib("VmHWM") - before}
    }
    scoring: dict[str, list[float]] = {"facekd": [], "floor": []}
    for turn in range(repeats):
        ways = [("facekd", lambda: template_pair_scores(templates, pairs.left, pairs.right))]
        ways.append(("floor", lambda: bare_scores(templates, pairs)))
        for name, way in ways[:: 1 if turn % 2 else -1]:
            scoring[name].append(timed(way)[0])
    ratios = [own / floor for own, floor in zip(scoring["facekd"], scoring["floor"], strict=True)]
    seconds = {
        "reading the list of pairs": [reading],
        "scoring": scoring["facekd"],
        "the floor of scoring": scoring["floor"],
        "all figures, without intervals": measuring,
        "all figures, with intervals": [with_intervals],
    }
    told = {"templates": len(templates), "pairs": len(pairs.left), "dim": DIM, "replicates": replicates}
    spreads = {name: spread(values) for name, values in seconds.items()}
    intervals = getattr(measured, "intervals", None)
    print(
        json.dumps({**told, "seconds": spreads, "ratio": spread(ratios), **found, "intervals": intervals is not None})
    )


def spread(values: Sequence[float]) -> dict[str, object]:
    """Median and the quartiles of repeated measurements."""
    low, median, high = np.percentile(values, [25, 50, 75])
    return {"median": round(float(median), 3), "iqr": [round(float(low), 3), round(float(high), 3)]}


def report(share: float, repeats: int, replicates: int, seed: int) -> dict[str, object]:
    """Everything measured and everything it depends on."""
    with tempfile.TemporaryDirectory() as name:
        write_pairs(Path(name), drawn_templates(seed, share)[1], seed, share)
        options = ("--share", share, "--repeats", repeats, "--replicates", replicates, "--seed", seed)
        command = [sys.executable, "-m", "benchmarks.templates", "--tell", name, *map(str, options)]
        told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {
        "benchmark": "templates",
        "command": "python -m benchmarks.templates --out benchmarks/results/templates.json",
        **told,
        "repeats": repeats,
        "threads": 1,
        "seeds": [seed],
        "machine": f"{platform.machine()} {platform.system()}",
        "versions": {
            "facekd": facekd.__version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": torch.__version__,
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--share", type=float, default=1.0, help="of the size of IJB-C")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--replicates", type=int, default=1000, help="behind each interval")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    parser.add_argument("--tell", type=Path, help="only measure with the lists in this folder, and tell")
    given = parser.parse_args()
    if given.tell is not None:
        tell(given.tell, given.seed, given.share, given.repeats, given.replicates)
        return
    hand_over(report(given.share, given.repeats, given.replicates, given.seed), given.out)


if __name__ == "__main__":
    main()
