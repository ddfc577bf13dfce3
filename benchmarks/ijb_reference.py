"""What an IJB folder should give, in plain NumPy, OpenCV, onnxruntime and scikit-learn, with nothing of facekd.

Written from the definitions: of each image come e and e', the embeddings of it and of its mirror; v is e + e' or e, of
its own length or of length one, times the detector's score or not; a template is the sum of the means of v over each of
its media, brought to length one; all in float64 and plain loops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score, roc_curve

TEMPLATE = ((38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041))
SIDE = 112
RANKS = (1, 5, 10)
NIST, MERGED = "nist", "merged"

Vectors = Mapping[int, np.ndarray]
People = Mapping[int, int]


@dataclass(frozen=True)
class Row:
    """One image of the lists.

    Attributes:
        name: Its file.
        template: Id.
        medium: Id.
        points: Five landmarks.
        score: Of the detector.
    """

    name: str
    template: int
    medium: int
    points: np.ndarray
    score: float


def read_rows(meta: Path) -> list[Row]:
    """The images an IJB-C folder lists."""
    told = {}
    for line in (meta / "ijbc_name_5pts_score.txt").read_text().splitlines():
        name, *numbers = line.split()
        told[name] = np.array(numbers, float)
    rows = []
    for line in (meta / "ijbc_face_tid_mid.txt").read_text().splitlines():
        name, template, medium = line.split()
        rows.append(Row(name, int(template), int(medium), told[name][:10].reshape(5, 2), float(told[name][10])))
    return rows


def aligned(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The crop in which the landmarks lie nearest to the template, by a linear least squares for a, b and the shift."""
    import cv2

    lines, wanted = [], []
    for (x, y), (to_x, to_y) in zip(points, TEMPLATE, strict=True):
        lines += [[x, -y, 1, 0], [y, x, 0, 1]]
        wanted += [to_x, to_y]
    (a, b, right, down), *_ = np.linalg.lstsq(np.array(lines), np.array(wanted), rcond=None)
    return cv2.warpAffine(image, np.array([[a, -b, right], [b, a, down]]), (SIDE, SIDE), flags=cv2.INTER_LINEAR)


def see(model: Path, crops: Path, rows: Sequence[Row], batch: int = 64) -> np.ndarray:
    """Embeddings (n, 2, dim) of every image and its mirror by an ONNX model that takes RGB from 0 to 255."""
    import cv2
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    (fed,) = session.get_inputs()

    def pictures(part: Sequence[Row]) -> Iterator[np.ndarray]:
        for row in part:
            data = np.frombuffer((crops / row.name).read_bytes(), np.uint8)
            yield aligned(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB), row.points)

    parts = []
    for start in range(0, len(rows), batch):
        faces = np.stack(list(pictures(rows[start : start + batch]))).transpose(0, 3, 1, 2).astype(np.float32)
        views = [session.run(None, {fed.name: np.ascontiguousarray(each)})[0] for each in (faces, faces[..., ::-1])]
        parts.append(np.stack(views, axis=1))
    return np.concatenate(parts)


def template_vectors(views: np.ndarray, rows: Sequence[Row], norm: str, det: bool, flip: bool) -> dict[int, np.ndarray]:
    """The embedding of each template."""
    media: dict[int, dict[int, list[np.ndarray]]] = {}
    for (straight, mirrored), row in zip(views.astype(np.float64), rows, strict=True):
        vector = straight + mirrored if flip else straight
        if norm == "unit":
            vector = vector / np.linalg.norm(vector)
        if det:
            vector = vector * row.score
        media.setdefault(row.template, {}).setdefault(row.medium, []).append(vector)
    sums = {template: sum(np.mean(images, axis=0) for images in each.values()) for template, each in media.items()}
    return {template: total / np.linalg.norm(total) for template, total in sums.items()}


def verification(vectors: Vectors, meta: Path, fprs: Sequence[float]) -> dict[str, float]:
    """Figures of 1:1: the largest TPR whose FPR does not exceed each of those that the pairs can show.

    The EER is taken where misses come to be as many as false accepts, on the side with the smaller sum of the two.
    """
    pairs = np.loadtxt(meta / "ijbc_template_pair_label.txt", dtype=np.int64)
    same = pairs[:, 2] == 1
    place = {template: at for at, template in enumerate(vectors)}
    table = np.stack(list(vectors.values()))
    left, right = (np.array([place[template] for template in side.tolist()]) for side in pairs[:, :2].T)
    scores = np.concatenate(
        [(table[left[at]] * table[right[at]]).sum(axis=1) for at in np.array_split(np.arange(len(left)), 100)]
    )
    fpr, tpr, thresholds = roc_curve(same, scores, drop_intermediate=False)
    missed, accepted = np.rint((1 - tpr) * same.sum()), np.rint(fpr * (~same).sum())
    excess = missed * (~same).sum() - accepted * same.sum()
    crossing = (int(np.argmax(excess <= 0)), int(np.flatnonzero(excess >= 0)[-1]))
    told = {"auc": float(roc_auc_score(same, scores)), "eer": min(float(fpr[at] + 1 - tpr[at]) for at in crossing) / 2}
    for target in fprs:
        if target * int((~same).sum()) >= 3:
            last = int(np.flatnonzero(fpr <= target)[-1])
            told |= {f"tpr@{target:g}": float(tpr[last]), f"threshold@{target:g}": float(thresholds[last])}
    return told


def subjects(path: Path) -> dict[int, int]:
    """Whom each template of a gallery or probe list shows."""
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return {int(template): int(subject) for template, subject, *_ in lines}


@dataclass(frozen=True)
class Answers:
    """What a gallery says to each probe.

    Attributes:
        mated: Whether it holds the probe's subject.
        mate: Score with it.
        rank: Of the mate; every other template that scores as high stands before it.
        others: Scores with all templates of other subjects, -2 where it is the subject's.
    """

    mated: np.ndarray
    mate: np.ndarray
    rank: np.ndarray
    others: np.ndarray


def searched(vectors: Vectors, probes: People, gallery: People) -> Answers:
    """Search for every probe."""
    mated, mates, ranks, rest = [], [], [], []
    held, people = np.stack([vectors[one] for one in gallery]), np.array(list(gallery.values()))
    for probe, subject in probes.items():
        scores, own = held @ vectors[probe], people == subject
        mate = scores[own].max() if own.any() else -2.0
        others = np.where(own, -2.0, scores)
        mated.append(own.any())
        mates.append(mate)
        ranks.append(1 + int((others >= mate).sum()))
        rest.append(others)
    return Answers(np.array(mated), np.array(mates), np.array(ranks), np.array(rest))


def identification(vectors: Vectors, meta: Path, fpirs: Sequence[float]) -> dict[str, float]:
    """Figures of 1:N by both rules for false alarms."""
    probes = subjects(meta / "ijbc_1N_probe_mixed.csv")
    galleries = [subjects(meta / f"ijbc_1N_gallery_{name}.csv") for name in ("G1", "G2")]
    apart = [searched(vectors, probes, gallery) for gallery in galleries]
    merged = searched(vectors, probes, galleries[0] | galleries[1])
    told = {}
    for rank in RANKS:
        told[f"rank@{rank}"] = float(np.mean([(one.rank[one.mated] <= rank).mean() for one in apart]))
        told[f"rank_merged@{rank}"] = float((merged.rank[merged.mated] <= rank).mean())
    for fpir in fpirs:
        if all(fpir * int((~one.mated).sum()) >= 3 for one in apart):
            points = [alarmed(one, fpir) for one in apart]
            told |= {f"tpir_{NIST}@{fpir:g}": float(np.mean([tpir for tpir, _ in points]))}
            told |= {f"threshold_{NIST}@{fpir:g}/{at}": limit for at, (_, limit) in enumerate(points)}
        if fpir * len(probes) >= 3:
            limit = np.sort(merged.others.ravel())[-int(np.ceil(fpir * len(probes)))]
            told |= {f"tpir_{MERGED}@{fpir:g}": float((merged.mate[merged.mated] > limit).mean())}
            told |= {f"threshold_{MERGED}@{fpir:g}/0": float(limit)}
    return told


def alarmed(answers: Answers, fpir: float) -> tuple[float, float]:
    """TPIR and threshold of one gallery: of all scores the lowest at which no more non-mated probes raise an alarm."""
    alarms, mates = answers.others[~answers.mated].max(axis=1), answers.mate[answers.mated]
    allowed = [limit for limit in (*alarms, *mates) if (alarms >= limit).mean() <= fpir]
    lowest = min(allowed)
    return float((mates >= lowest).mean()), float(lowest)
