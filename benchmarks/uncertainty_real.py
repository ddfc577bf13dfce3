"""What is a learned uncertainty good for on real faces? Turning away, comparing, and putting templates together.

FOLDER is that of ``benchmarks.real_faces``. A finished student stays as it is and heads are trained on
``lfw_train.csv``. The images of ``lfw_test.csv``, of identities never trained on, are blurred by a sigma drawn for
each, and all pairs are compared at one threshold. Finished runs are left alone and a broken one goes on.

    python -m benchmarks.uncertainty_real FOLDER
    python -m benchmarks.uncertainty_real FOLDER --student RUN
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from benchmarks import real_faces
from benchmarks.degraded_faces import blurred, spearman
from benchmarks.methods import place_of
from benchmarks.real_faces import RESULTS, conditions, run_size, train_to_end
from benchmarks.uncertainty import (
    EQUAL,
    LENGTH,
    METHODS,
    RECIPE,
    about_student,
    embedded,
    head_settings,
    log_variance_of,
)
from facekd.data.images import encode_png
from facekd.data.open_source import open_identities
from facekd.engine.embed import StoredEmbeddings
from facekd.files import write_json
from facekd.metrics.roc import operating_points
from facekd.metrics.uncertainty import (
    error_versus_reject,
    fuse_templates,
    harmonic_mean_variance,
    mutual_likelihood,
    pair_uncertainty,
    uncertainty_spread,
)
from facekd.metrics.verification import unit

HEADS = ("PAD", "PFE")


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
FPRS = (1e-2, 1e-3, 1e-4)
JUDGED = 1e-3
REJECTED = (0.0, 0.05, 0.1, 0.2, 0.3)
TEMPLATE = 3
"""Images of a template."""
RANDOM = 100
"""Random orders whose mean curve is shown."""


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


def all_pairs(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of rows, (p, 2), and whether it is of one person.

    Example:
        >>> pairs, genuine = all_pairs(np.array([4, 7, 4]))
        >>> pairs.tolist(), genuine.tolist()
        ([[0, 1], [0, 2], [1, 2]], [False, True, False])
    """
    pairs = np.stack(np.triu_indices(len(labels), 1), axis=1)
    return pairs, labels[pairs[:, 0]] == labels[pairs[:, 1]]


def cosines(embeddings: Tensor | np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """The cosine of each pair of rows."""
    rows = unit(embeddings)
    return (rows @ rows.T).numpy()[pairs[:, 0], pairs[:, 1]]


def tprs(scores: np.ndarray, genuine: np.ndarray) -> list[dict[str, float]]:
    """TPR at each FPR that the impostors can show, as a row of a table has it."""
    found, _ = operating_points(scores[genuine], scores[~genuine], FPRS)
    return [{"fpr": p.fpr, "tpr": p.tpr, "threshold": p.threshold, "impostors": p.impostors} for p in found]


def threshold_at(points: Sequence[Mapping[str, float]], fpr: float) -> float:
    """The threshold of the point at an FPR."""
    return next(point["threshold"] for point in points if point["fpr"] == fpr)


def reject_curves(scores: np.ndarray, orders: Mapping[str, np.ndarray], threshold: float) -> dict[str, list[float]]:
    """FNMR at a threshold as genuine pairs are turned away, by each order and, as ``random``, by none.

    Args:
        scores: (p,) of genuine pairs.
        orders: (p,) how unsure each pair is, by name.
        threshold: Lowest accepted score.
    """
    curves = {
        name: error_versus_reject(scores, order, threshold=threshold, fractions=REJECTED)
        for name, order in orders.items()
    }
    rng = np.random.default_rng(0)
    drawn = [
        error_versus_reject(scores, rng.permutation(len(scores)), threshold=threshold, fractions=REJECTED)
        for _ in range(RANDOM)
    ]
    return {**curves, "random": np.mean(drawn, axis=0).tolist()}


def quality_groups(
    scores: np.ndarray, genuine: np.ndarray, pairs: np.ndarray, uncertainty: np.ndarray, threshold: float
) -> list[dict[str, Any]]:
    """TPR and FPR at one threshold for pairs of two surer images, of one, and of none; surer than the median."""
    unsure = (uncertainty > np.median(uncertainty)).astype(int)
    low = unsure[pairs[:, 0]] + unsure[pairs[:, 1]]
    found = []
    for quality, count in (("high", 0), ("mixed", 1), ("low", 2)):
        own, other = scores[genuine & (low == count)], scores[~genuine & (low == count)]
        rates = {"tpr": float((own >= threshold).mean()), "fpr": float((other >= threshold).mean())}
        found.append({"quality": quality, "genuine": len(own), "impostor": len(other), **rates})
    return found


def templates_of(labels: np.ndarray, size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Disjoint templates of ``size`` images of a person each, as many as its images give.

    Args:
        labels: (n,) person of each image.
        size: Images of a template.
        seed: Of the order in which a person's images are dealt.

    Returns:
        Rows of the images, (templates * size,), and the person of each template, (templates,).

    Example:
        >>> rows, people = templates_of(np.array([3, 3, 3, 8, 8]), 2)
        >>> len(rows), people.tolist(), sorted(rows[2:].tolist())
        (4, [3, 8], [3, 4])
    """
    rng, rows, people = np.random.default_rng(seed), [], []
    for person in np.unique(labels):
        dealt = rng.permutation(np.flatnonzero(labels == person))
        count = len(dealt) // size
        rows.append(dealt[: count * size])
        people += [person] * count
    return np.concatenate(rows), np.array(people)


def fused_scores(embeddings: np.ndarray, log_variance: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Templates compared by the cosine of plain means, and of means weighted by 1 / sigma^2."""
    rows, people = templates_of(labels, TEMPLATE)
    where = np.repeat(np.arange(len(people)), TEMPLATE)
    pairs, genuine = all_pairs(people)
    found = {}
    for name, variance in (("plain mean", np.zeros((len(rows), 1))), ("weighted by 1 / sigma^2", log_variance[rows])):
        fused, _ = fuse_templates(embeddings[rows], variance, where)
        found[name] = tprs(cosines(fused, pairs), genuine)
    size = {"images": TEMPLATE, "templates": len(people), "genuine": int(genuine.sum())}
    return {**size, "impostor": int((~genuine).sum()), "tpr_at_fpr": found}


def figures(stored: StoredEmbeddings, sigmas: np.ndarray) -> dict[str, Any]:
    """All that one head's uncertainty is good for, on blurred images.

    Args:
        stored: Embeddings and log variances of the images.
        sigmas: (n,) how far each was blurred.
    """
    log_variance = log_variance_of(stored)
    uncertainty = harmonic_mean_variance(log_variance).numpy()
    length = -np.linalg.norm(stored.embeddings, axis=1)
    told = {"uncertainty": uncertainty, "true strength": sigmas, LENGTH: length}
    pairs, genuine = all_pairs(stored.labels)
    scores = cosines(stored.embeddings, pairs)
    by_cosine = tprs(scores, genuine)
    threshold = threshold_at(by_cosine, JUDGED)
    orders = {name: pair_uncertainty(values, pairs[genuine]).numpy() for name, values in told.items()}
    likelihood = mutual_likelihood(stored.embeddings, log_variance, pairs, block=1024).numpy()
    return {
        "images": len(sigmas),
        "genuine": int(genuine.sum()),
        "impostor": int((~genuine).sum()),
        "spread": uncertainty_spread(log_variance),
        "correlation": {"uncertainty": spearman(uncertainty, sigmas), LENGTH: spearman(length, sigmas)},
        "fnmr": reject_curves(scores[genuine], orders, threshold),
        "groups": quality_groups(scores, genuine, pairs, uncertainty, threshold),
        "scores": {"cosine": by_cosine, "mutual likelihood": tprs(likelihood, genuine)},
        "templates": fused_scores(stored.embeddings, log_variance, stored.labels),
    }


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
