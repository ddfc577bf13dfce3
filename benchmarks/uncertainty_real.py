"""What is a learned uncertainty good for on real faces? Turning away, comparing, and putting templates together.

FOLDER is that of ``benchmarks.real_faces``. A finished student stays as it is and heads are trained on
``lfw_train.csv``. The images of ``lfw_test.csv``, of identities never trained on, are blurred by a sigma drawn for
each, and all pairs are compared at one threshold. Finished runs are left alone and a broken one goes on.

    python -m benchmarks.uncertainty_real FOLDER
    python -m benchmarks.uncertainty_real FOLDER --student RUN

The recorded figures are of ``runs/methods_real/stkd-0``, which ``benchmarks.methods --faces FOLDER --methods STKD``
trains.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import real_faces
from benchmarks.degraded_faces import blurred
from benchmarks.methods import place_of
from benchmarks.real_faces import RESULTS, conditions, run_size, train_to_end
from benchmarks.uncertainty import EQUAL, METHODS, RECIPE, about_student, embedded, head_settings
from benchmarks.uncertainty_uses import JUDGED, REJECTED, figures
from facekd.data.images import encode_png
from facekd.data.open_source import open_identities
from facekd.files import write_json

HEADS = ("PAD", "PFE", "DUL", "DUL regression")


@dataclass(frozen=True)
class Blurs:
    """How a set of images is blurred.

    Attributes:
        share: Share of the images that are blurred; the others stay sharp.
        least: Smallest sigma of a blurred one, in pixels of a face of 112.
        most: Largest; sigmas are uniform between.
    """

    share: float
    least: float
    most: float

    def sigma(self, index: int) -> float:
        """How far image ``index`` of the list is blurred."""
        chosen, place = np.random.default_rng([0, index]).random(2)
        return float(self.least + (self.most - self.least) * place) if chosen < self.share else 0.0


SETS = {
    "every image by up to 2": Blurs(1.0, 0.0, 2.0),
    "every image by up to 6": Blurs(1.0, 0.0, 6.0),
    "one image in five by 2 to 6": Blurs(0.2, 2.0, 6.0),
}


def blur_faces(listed: Path, images: Path, blurs: Blurs, out: Path) -> None:
    """Write every image of a list as ``IDENTITY/INDEX.png``, blurred as its set says; whole or not at all."""
    if out.exists():
        return
    faces, partial = open_identities(listed, images), out.with_name(out.name + ".partial")
    for index in range(len(faces)):
        folder = partial / faces.names[int(faces.labels[index])]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{index:06d}.png").write_bytes(encode_png(blurred(faces.read(index), blurs.sigma(index))))
    partial.rename(out)


def study(folder: Path, runs: Path, student: Path | None, seeds: Sequence[int], heads: Sequence[str]) -> dict[str, Any]:
    """Train and measure everything that is missing; returns the whole table.

    Args:
        folder: Faces, lists and models.
        runs: Where runs are kept.
        student: A finished run of ``benchmarks.real_faces``; one is trained where there is none.
        seeds: Of the heads.
        heads: Methods of ``benchmarks.uncertainty``.
    """
    runs.mkdir(parents=True, exist_ok=True)
    given = " --student RUN" if student else ""
    if student is None:
        student = runs / "student"
        real_faces.train(real_faces.RECIPES["ProxylessKD + PAD"], folder, 0, student, ())
    for told, blurs in SETS.items():
        blur_faces(folder / "lfw_test.csv", folder / "lfw112", blurs, runs / told.replace(" ", "_"))
    data = (f"data.path={folder / 'lfw_train.csv'}", f"data.images={folder / 'lfw112'}")
    rows, run = [], student
    for seed in seeds:
        for name in heads:
            run = place_of(name, seed, runs)
            train_to_end(RECIPE, head_settings(student, data, METHODS[name], seed), run)
            size = run_size(run)
            for told, blurs in SETS.items():
                faces = runs / told.replace(" ", "_")
                stored = embedded(run, (str(faces),), runs / f"{run.name}-{faces.name}.npz")
                sigmas = np.array([blurs.sigma(int(Path(image).stem)) for image in stored.names])
                rows.append({"method": name, "seed": seed, **size, "blurred": told, **figures(stored, sigmas)})
    return {
        "benchmark": "uncertainty_real",
        "command": f"python -m benchmarks.uncertainty_real FOLDER{given} --seeds {' '.join(map(str, seeds))}",
        **conditions(run),
        "seeds": list(seeds),
        "recipe": " --set ".join((RECIPE, *EQUAL)),
        "recipes": {name: " --set ".join(METHODS[name].settings()) for name in heads},
        "student": about_student(student),
        "rejected": REJECTED,
        "fpr": JUDGED,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="faces, lists and models")
    parser.add_argument("--student", type=Path, help="a finished run; trained here if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs/uncertainty_real"), help="where runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--heads", choices=METHODS, nargs="+", default=HEADS, metavar="METHOD")
    given = parser.parse_args()
    found = study(given.folder, given.runs, given.student, given.seeds, given.heads)
    write_json(RESULTS / "uncertainty_real.json", found)


if __name__ == "__main__":
    main()
