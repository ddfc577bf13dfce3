"""Measuring the student of a run, and the one figure by which two of its states are compared."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from facekd.engine.evaluation.evaluation_sets import OpenedSet, identity_set, open_set
from facekd.engine.evaluation.evaluator import measure_resolutions
from facekd.engine.evaluation.figures import EvalSettings
from facekd.engine.evaluation.resolution_modes import resolution_modes, sides_of
from facekd.engine.evaluation.seeing import as_seen, rows_of_set
from facekd.engine.evaluation.uncertain_pairs import Seen
from facekd.engine.resumable import Watched
from facekd.engine.signals import Poll
from facekd.engine.training.session import Session
from facekd.engine.training.shares import Make, Rows, led
from facekd.engine.training.sources import synthetic_source
from facekd.models.embedder import TorchEmbedder
from facekd.recipe.evaluation import Evaluate, EvaluationSet


def open_sets(section: Evaluate) -> list[OpenedSet]:
    """The evaluation sets of a recipe, checked before training begins.

    Raises:
        InputError: A set that cannot be used.
    """
    return [_open(item) for item in section.sets]


def _open(item: EvaluationSet) -> OpenedSet:
    if item.synthetic is not None:
        drawn = item.synthetic
        return identity_set(f"synthetic {drawn.identities}x{drawn.samples}", synthetic_source(drawn))
    images = None if item.images is None else Path(item.images)
    return open_set(Path(str(item.path)), images=images, protocol=item.protocol)


def evaluate_student(session: Session, sets: list[OpenedSet], poll: Poll, *, bootstrap: int) -> list[dict[str, Any]]:
    """Results of the weights that would be deployed now, one per set and resolution, set by set; none but in rank 0.

    Every process of the run calls this and embeds its share of each set, in whole batches, with rank 0's weights: the
    figures are to the bit those of one process that has them.

    Args:
        session: The run.
        sets: From :func:`open_sets`.
        poll: Asked between batches whether to stop.
        bootstrap: Replicates behind each interval; 0 leaves intervals out.
    """
    section, world = session.recipe.evaluate, session.world
    world.follow(session.deployed)
    embedder = TorchEmbedder(
        module=session.deployed,
        name=session.recipe.name,
        digest="",
        embedding_size=session.architecture.width,
        preprocessing=session.preprocessing,
        metadata={},
        device=session.device,
    )
    resize, device = session.recipe.data.allow_resize, str(session.device)
    settings = EvalSettings(tuple(section.fpr), section.flip, bootstrap=bootstrap, allow_resize=resize, device=device)
    session.deployed.eval()
    modes = resolution_modes(section.resolutions, section.gallery)
    seen = [(opened, side) for opened in sets for side in sides_of(modes)]
    shape, watched = (embedder.embedding_size,), Watched(poll=poll)
    work = [
        Rows(rows_of_set(embedder, opened, settings, side, watched), settings.batch_size, shape)
        for opened, side in seen
    ]

    def measure(made: Sequence[Make]) -> list[dict[str, Any]]:
        def see(opened: OpenedSet, side: int | None) -> Seen:
            return as_seen(embedder, opened, settings, made[seen.index((opened, side))](0, len(opened.images)))

        found = (measure_resolutions(embedder, opened, settings, modes, partial(see, opened)) for opened in sets)
        return [one.result for of_set in found for one in of_set]

    return led(world, measure, work) or []


def figure_of_merit(results: list[dict[str, Any]]) -> float | None:
    """What ``select: best`` maximises: TPR at the smallest FPR of the first set at full resolution, then its AUC.

    None where nothing was measured.

    Example:
        >>> figure_of_merit([{"auc": 0.5, "tpr_at_fpr": [{"fpr": 1e-2, "tpr": 0.9}, {"fpr": 1e-3, "tpr": 0.7}]}])
        0.7
        >>> figure_of_merit([{"auc": 0.5, "tpr_at_fpr": []}])
        0.5
    """
    if not results:
        return None
    points = results[0]["tpr_at_fpr"]
    return min(points, key=lambda point: point["fpr"])["tpr"] if points else results[0]["auc"]
