"""Doing what ``facekd eval`` was asked to do, now or by a report that asks for it again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekd import __version__
from facekd.engine.across_sets import across_sets
from facekd.engine.request import Request
from facekd.engine.resolution_modes import Resolution, resolution_modes
from facekd.errors import ContradictionError

from .common import open_model, progress_bar

if TYPE_CHECKING:
    from facekd.engine.evaluation_sets import OpenedSet
    from facekd.engine.evaluator import Evaluation
    from facekd.engine.figures import EvalSettings
    from facekd.engine.model_facts import ModelFacts
    from facekd.engine.report_faces import Faces
    from facekd.models.embedder import Embedder


@dataclass(frozen=True)
class Done:
    """An evaluation that is over.

    Attributes:
        request: What was asked.
        settings: As the engine took it.
        opened: The sets.
        evaluations: Every model on every set in every mode.
        doubts: Lines on models that would see these faces better in another way.
        faces: Of the set of each evaluation, as its model takes them.
        models: What each model costs; empty unless asked for.
    """

    request: Request
    settings: EvalSettings
    opened: tuple[OpenedSet, ...]
    evaluations: tuple[Evaluation, ...]
    doubts: tuple[str, ...]
    faces: tuple[Faces, ...]
    models: tuple[ModelFacts, ...]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The figures, as in the JSON."""
        return [evaluation.result for evaluation in self.evaluations]


def perform(
    request: Request,
    *,
    probe: bool | None = False,
    details: bool = False,
    costs: bool = False,
    opening: Callable[[OpenedSet], None] = lambda opened: None,
    loading: Callable[[Path, Embedder], None] = lambda path, embedder: None,
) -> Done:
    """Evaluate.

    Args:
        request: What to do.
        probe: Whether to look for a better way to see the faces; None leaves it to what the model's file states.
        details: Keep what pictures are drawn from.
        costs: Look at what each model costs, and time it.
        opening: Told each set once it is open; may raise to stop.
        loading: Told each model once it is loaded; may raise to stop.

    Raises:
        FacekdError: Whatever the engine refuses.
    """
    from facekd.engine.evaluation_sets import open_set
    from facekd.engine.figures import EvalSettings
    from facekd.engine.model_facts import model_facts

    settings = EvalSettings(
        request.fprs, request.flip, request.batch, request.bootstrap, request.seed, request.allow_resize, details
    )
    images = None if request.images is None else Path(request.images)
    opened = []
    for path in request.sets:
        opened.append(open_set(Path(path), images=images, protocol=request.protocol, drop_same=request.drop_same))
        opening(opened[-1])
    for warning in dict.fromkeys(line for one in opened for line in one.warnings):
        click.echo(f"facekd: warning: {warning}", err=True)
    doubts: list[str] = []
    models: list[ModelFacts] = []

    def load(path: Path) -> Embedder:
        embedder = _open(path, request)
        loading(path, embedder)
        models.extend([model_facts(embedder, path)] if costs else [])
        return embedder

    modes = resolution_modes(request.resolutions, request.gallery)
    paths = [Path(model) for model in request.models]
    if request.cross:
        found = list(_crossed(paths, opened, settings, load))
    else:
        found = list(_evaluations(paths, opened, settings, modes, load, partial(_doubt, doubts, probe)))
    evaluations, faces = tuple(one for one, _ in found), tuple(pictures for _, pictures in found)
    if costs:
        models = _with_stored(models, evaluations)
    return Done(request, settings, tuple(opened), evaluations, tuple(doubts), faces, tuple(models))


def _open(path: Path, request: Request) -> Embedder:
    """A model; one of several need not be of those that ``--color`` and ``--normalize`` are said of."""
    try:
        return open_model(path, request.color, request.normalize, request.device)
    except ContradictionError:
        if len(request.models) == 1:
            raise
        return open_model(path, None, None, request.device)


def _with_stored(models: Sequence[ModelFacts], evaluations: Sequence[Evaluation]) -> list[ModelFacts]:
    """A model for every name and digest that results have, those of stored embeddings unknown but for these."""
    from facekd.engine.model_facts import ModelFacts

    known = {(model.name, model.digest): model for model in models}
    heads = dict.fromkeys((one.result["model"], one.result["model_digest"]) for one in evaluations)
    return [known.get(head, ModelFacts(*head)) for head in heads]


def written(done: Done) -> dict[str, Any]:
    """The JSON of ``facekd eval``: the figures, and what it takes to compute them again."""
    from facekd.engine.build import resolve_device
    from facekd.engine.run_folder import environment

    made = environment(resolve_device(done.request.device))
    kept = {"facekd": __version__, "arguments": done.request.as_dict(), "environment": made, "results": done.results}
    summaries = across_sets(done.results)
    return kept | ({"across_sets": summaries} if summaries else {})


def _doubt(doubts: list[str], wanted: bool | None, embedder: Embedder, opened: OpenedSet, **watching: Any) -> None:
    """Add a line where a model would see these faces better in another way."""
    from facekd.engine import probe

    if wanted or (wanted is None and not probe.says_itself(embedder)):
        found = probe.probe_set(embedder, opened, **watching)
        told = None if found is None else probe.doubt(embedder, found)
        doubts.extend([told] if told else [])


def _evaluations(
    models: Sequence[Path],
    opened: Sequence[OpenedSet],
    settings: EvalSettings,
    modes: Sequence[Resolution],
    load: Callable[[Path], Embedder],
    doubt: Callable[..., None],
) -> Iterator[tuple[Evaluation, Faces]]:
    """Figures of every model on every set in every mode with its faces; each model is loaded once and doubted on the
    first set."""
    from facekd.engine.embed import load_embeddings
    from facekd.engine.evaluator import evaluate_resolutions, evaluate_stored
    from facekd.engine.report_faces import Faces, faces_of_set
    from facekd.engine.signals import interruptible

    with interruptible("facekd eval", "stopped; nothing was written") as poll, progress_bar() as progress:
        for path in models:
            if path.suffix.lower() == ".npz":
                stored = load_embeddings(path)
                yield evaluate_stored(stored, path.name, settings), Faces(stored.names.__getitem__)
                continue
            embedder = load(path)
            for one in opened:

                def report(phase: str, done: int, total: int, name: str = f"{path.name} on {one.name}") -> None:
                    progress(f"{phase} {name}", done, total)

                faces = faces_of_set(one, embedder.preprocessing.size)
                for found in evaluate_resolutions(embedder, one, settings, modes, progress=report, poll=poll):
                    yield found, faces
                if one is opened[0]:
                    doubt(embedder, one, progress=report, poll=poll)


def _crossed(
    models: Sequence[Path], opened: Sequence[OpenedSet], settings: EvalSettings, load: Callable[[Path], Embedder]
) -> Iterator[tuple[Evaluation, Faces]]:
    """Figures of two models on every set, alone and with each other."""
    from facekd.engine.evaluator import evaluate_cross
    from facekd.engine.report_faces import faces_of_set
    from facekd.engine.signals import interruptible

    with interruptible("facekd eval", "stopped; nothing was written") as poll, progress_bar() as progress:
        first, second = map(load, models)
        for one in opened:

            def report(phase: str, done: int, total: int, name: str = one.name) -> None:
                progress(f"{phase} {name}", done, total)

            faces = faces_of_set(one, first.preprocessing.size)
            for found in evaluate_cross((first, second), one, settings, progress=report, poll=poll):
                yield found, faces
