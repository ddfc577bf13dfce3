"""Does a file still tell people apart as its model does? Both are measured on one set, and a fall is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from facekd.data.images import resize, to_chw
from facekd.data.verification import ImageSource
from facekd.engine.evaluation.evaluation_sets import OpenedSet
from facekd.engine.evaluation.evaluator import evaluate_set
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.fitting import fitting
from facekd.engine.progress import Progress
from facekd.errors import InputError, RequirementError
from facekd.models.embedder import Embedder

RANGED = 256
"""Faces int8 takes its ranges from, of a set that has as many beside those the checks take."""
FOUNDED = 30
"""False accepts that fix the threshold of an FPR the fall is looked at; rarer ones are chance."""


def judge_on(
    embedder: Embedder, sets: list[OpenedSet], settings: EvalSettings, most: float | None
) -> Callable[[Embedder], list[dict[str, Any]]]:
    """What measures a file against its model on sets, and refuses it.

    Args:
        embedder: The model.
        sets: What both are measured on.
        settings: How.
        most: Fall of TPR that is allowed, at every FPR of 30 false accepts or more; None allows any.

    Returns:
        A function of the file that answers the results of the model and the file, in turn for each set. It raises
        `RequirementError` where the TPR of the file is lower by more.
    """

    def judge(exported: Embedder) -> list[dict[str, Any]]:
        found = []
        for opened in sets:
            pair = [evaluate_set(model, opened, settings).result for model in (embedder, exported)]
            pair[1] = {**pair[1], "model": f"{pair[1]['model']}, exported"}
            if most is not None:
                _require(pair[0], pair[1], most)
            found += pair
        return found

    return judge


def _require(before: dict[str, Any], after: dict[str, Any], most: float) -> None:
    told = []
    later = {point["fpr"]: point for point in after["tpr_at_fpr"]}
    for point in before["tpr_at_fpr"]:
        if point["fpr"] * point["impostors"] >= FOUNDED and point["fpr"] in later:
            told.append((point["fpr"], point["tpr"], later[point["fpr"]]["tpr"]))
    if not told:
        what = f"{before['impostor']} impostor pairs are too few to show a fall at FPR 1e-2"
        raise RequirementError(before["set"], what, "give a larger set, or leave out --max-drop")
    worse = [f"TPR at FPR {fpr:g} falls from {a:.5f} to {b:.5f}" for fpr, a, b in told if a - b > most]
    if worse:
        what = f"{'; '.join(worse)}, more than {most:g}"
        raise RequirementError(before["set"], what, "nothing was written; calibrate on more faces, or use fp16")


def some_faces(
    source: ImageSource,
    size: tuple[int, int],
    most: int,
    where: str,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> np.ndarray:
    """Faces of a set drawn at random: uint8 RGB (n, 3, height, width).

    Args:
        source: The set.
        size: (height, width) the model takes.
        most: Of them, at most so many.
        where: The option that named the set, for messages.
        seed: Of the draw.
        progress: Told of each face.

    Raises:
        InputError: No face in it.
        DataError: An image that cannot be read, or shows another cut of the face.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(source))[:most])
    if not chosen.size:
        raise InputError(where, "holds no image", "give a set of aligned faces")
    read = fitting(source, size, where, "facekd data align lays faces onto the template")
    faces = []
    for count, index in enumerate(chosen.tolist(), start=1):
        faces.append(to_chw(resize(read(index), size)))
        if progress:
            progress("read faces", count, chosen.size)
    return np.stack([faces[place] for place in np.random.default_rng(seed).permutation(len(faces))])
