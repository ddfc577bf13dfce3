"""Doing what ``facekd eval`` was asked to do, now or by a report that asks for it again."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from facekd import __version__
from facekd.engine.evaluation.across_groups import across_groups
from facekd.engine.evaluation.across_sets import across_sets
from facekd.engine.evaluation.request import Request
from facekd.engine.evaluation.resolution_modes import resolution_modes
from facekd.errors import ContradictionError, UsageError

from .common import open_model, progress_bar
from .eval_templates import evaluate_template_set

if TYPE_CHECKING:
    from facekd.engine.evaluation.curves import Evaluated
    from facekd.engine.evaluation.evaluation_sets import OpenedSet
    from facekd.engine.evaluation.figures import EvalSettings
    from facekd.engine.evaluation.report_faces import Faces
    from facekd.engine.evaluation.template_sets import TemplateSet
    from facekd.engine.model_facts import ModelFacts
    from facekd.models.embedder import Embedder


@dataclass(frozen=True)
class Caches:
    """Folders in which embeddings are kept; they are computed anew where None.

    Attributes:
        templates: Those of images of templates.
        others: Those of other sets.
    """

    templates: Path | None = None
    others: Path | None = None


NO_CACHES = Caches()


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
    opened: tuple[OpenedSet | TemplateSet, ...]
    evaluations: tuple[Evaluated, ...]
    doubts: tuple[str, ...]
    faces: tuple[Faces, ...]
    models: tuple[ModelFacts, ...]

    @property
    def results(self) -> list[dict[str, Any]]:
        """The figures, as in the JSON."""
        return [dict(evaluation.result) for evaluation in self.evaluations]


def perform(
    request: Request,
    *,
    probe: bool | None = False,
    details: bool = False,
    costs: bool = False,
    caches: Caches = NO_CACHES,
    opening: Callable[[OpenedSet | TemplateSet], None] = lambda opened: None,
    loading: Callable[[Path, Embedder], None] = lambda path, embedder: None,
) -> Done:
    """Evaluate.

    Args:
        request: What to do.
        probe: Whether to look for a better way to see the faces; None leaves it to what the model's file states.
        details: Keep what pictures are drawn from.
        costs: Look at what each model costs, and time it.
        caches: Where embeddings are kept.
        opening: Told each set once it is open; may raise to stop.
        loading: Told each model once it is loaded; may raise to stop.

    Raises:
        FacekdError: Whatever the engine refuses.
    """
    from facekd.engine.evaluation.figures import EvalSettings
    from facekd.engine.model_facts import model_facts
    from facekd.engine.training.build import resolve_device
    from facekd.models.embedder import in_precision

    drawn, device = (request.bootstrap, request.seed), str(resolve_device(request.device))
    how = (request.fprs, request.flip, request.batch, *drawn, request.allow_resize, details)
    settings = EvalSettings(*how, device=device, cache=caches.others)
    opened = []
    for path in request.sets if any(not _is_stored(model) for model in request.models) else ():
        opened.append(_open_set(Path(path), request))
        opening(opened[-1])
    for warning in dict.fromkeys(line for one in opened for line in one.warnings):
        click.echo(f"facekd: warning: {warning}", err=True)
    doubts: list[str] = []
    models: list[ModelFacts] = []

    def load(path: Path) -> Embedder:
        embedder = in_precision(_open(path, request), request.precision)
        loading(path, embedder)
        models.extend([model_facts(embedder, path)] if costs else [])
        return embedder

    with tempfile.TemporaryDirectory() as fresh:
        if request.cross:
            found = list(_crossed(request, opened, settings, load))
        else:
            told = partial(_doubt, doubts, probe)
            found = list(_evaluations(request, opened, settings, load, told, caches.templates or Path(fresh)))
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


def _open_set(path: Path, request: Request) -> OpenedSet | TemplateSet:
    from facekd.engine.evaluation.evaluation_sets import grouped, open_set
    from facekd.engine.evaluation.template_sets import is_template_set, open_template_set

    if is_template_set(path, request.protocol):
        if request.by is not None:
            raise UsageError("--by", f"{path} holds templates, not a list with columns", "leave it out")
        return open_template_set(path, request.protocol, count_failures=request.count_failures)
    images = None if request.images is None else Path(request.images)
    opened = open_set(path, images=images, protocol=request.protocol, drop_same=request.drop_same)
    return opened if request.by is None else grouped(opened, path, request.by)


def _with_stored(models: Sequence[ModelFacts], evaluations: Sequence[Evaluated]) -> list[ModelFacts]:
    """A model for every name and digest that results have, those of stored embeddings unknown but for these."""
    from facekd.engine.model_facts import ModelFacts

    known = {(model.name, model.digest): model for model in models}
    heads = dict.fromkeys((one.result["model"], one.result["model_digest"]) for one in evaluations)
    return [known.get(head, ModelFacts(*head)) for head in heads]


def written(done: Done) -> dict[str, Any]:
    """The JSON of ``facekd eval``: the figures, and what it takes to compute them again."""
    from facekd.engine.run_folder import environment
    from facekd.engine.training.build import resolve_device

    made = environment(resolve_device(done.request.device))
    kept = {"facekd": __version__, "arguments": done.request.as_dict(), "environment": made, "results": done.results}
    summaries = {"across_sets": across_sets(done.results), "across_groups": across_groups(done.results)}
    return kept | {name: found for name, found in summaries.items() if found}


def _doubt(
    doubts: list[str], wanted: bool | None, embedder: Embedder, opened: OpenedSet | TemplateSet, **watching: Any
) -> None:
    """Add a line where a model would see these faces better in another way."""
    from facekd.engine import probe
    from facekd.engine.evaluation.template_sets import TemplateSet

    if not (wanted or (wanted is None and not probe.says_itself(embedder))):
        return
    if isinstance(opened, TemplateSet):
        people = probe.people_by_label(opened.members.rows)
        found = probe.probe_faces(embedder, opened.images.read, people, **watching)
    else:
        found = probe.probe_set(embedder, opened, **watching)
    told = None if found is None else probe.doubt(embedder, found)
    doubts.extend([told] if told else [])


def _evaluations(
    request: Request,
    opened: Sequence[OpenedSet | TemplateSet],
    settings: EvalSettings,
    load: Callable[[Path], Embedder],
    doubt: Callable[..., None],
    cache: Path,
) -> Iterator[tuple[Evaluated, Faces]]:
    """Figures of every model on every set in every mode with its faces; each model is loaded once and doubted on the
    first set."""
    from facekd.engine.evaluation.evaluator import evaluate_resolutions
    from facekd.engine.evaluation.report_faces import faces_of_set, faces_of_templates
    from facekd.engine.evaluation.template_sets import TemplateSet
    from facekd.engine.resumable import Watched
    from facekd.engine.signals import interruptible
    from facekd.engine.uncertainty import with_variance

    modes = resolution_modes(request.resolutions, request.gallery)
    with interruptible("facekd eval", "stopped; nothing was written") as poll, progress_bar() as progress:
        for path in map(Path, request.models):
            if _is_stored(path):
                yield from _of_stored(path, request, settings)
                continue
            embedder = load(path)
            asked = with_variance(embedder, path) if request.uncertainty else embedder
            size = embedder.preprocessing.size
            for one in opened:

                def report(phase: str, done: int, total: int, name: str = f"{path.name} on {one.name}") -> None:
                    progress(f"{phase} {name}", done, total)

                if isinstance(one, TemplateSet):
                    watched = Watched(report, poll)
                    faces = faces_of_templates(one, size, count_failures=request.count_failures)
                    for result in evaluate_template_set(asked, one, settings, request, cache, watched):
                        yield result, faces
                else:
                    faces = faces_of_set(one, size)
                    for found in evaluate_resolutions(asked, one, settings, modes, progress=report, poll=poll):
                        yield found, faces
                if one is opened[0] and not request.count_failures:
                    doubt(embedder, one, progress=report, poll=poll)


def _is_stored(model: str | Path) -> bool:
    return Path(model).suffix.lower() == ".npz"


def _of_stored(path: Path, request: Request, settings: EvalSettings) -> Iterator[tuple[Evaluated, Faces]]:
    """Figures of stored embeddings, and of their groups where a list tells them."""
    from facekd.engine.embed import load_embeddings
    from facekd.engine.evaluation.evaluation_sets import groups_of_stored
    from facekd.engine.evaluation.evaluator import evaluate_stored
    from facekd.engine.evaluation.report_faces import Faces

    stored, groups = load_embeddings(path), None
    if request.by is not None:
        groups = groups_of_stored(path.name, stored.names, stored.labels, Path(request.sets[0]), request.by)
    faces = Faces(stored.names.__getitem__)
    for found in evaluate_stored(stored, path.name, settings, uncertainty=request.uncertainty, groups=groups):
        yield found, faces


def _crossed(
    request: Request,
    opened: Sequence[OpenedSet | TemplateSet],
    settings: EvalSettings,
    load: Callable[[Path], Embedder],
) -> Iterator[tuple[Evaluated, Faces]]:
    """Figures of two models on every set, alone and with each other."""
    from facekd.engine.evaluation.evaluator import evaluate_cross
    from facekd.engine.evaluation.report_faces import faces_of_set
    from facekd.engine.evaluation.template_sets import TemplateSet
    from facekd.engine.signals import interruptible

    with interruptible("facekd eval", "stopped; nothing was written") as poll, progress_bar() as progress:
        first, second = (load(Path(model)) for model in request.models)
        for one in opened:
            if isinstance(one, TemplateSet):
                raise UsageError("--cross", f"{one.name} has templates", "leave it out for such sets")

            def report(phase: str, done: int, total: int, name: str = one.name) -> None:
                progress(f"{phase} {name}", done, total)

            faces = faces_of_set(one, first.preprocessing.size)
            for found in evaluate_cross((first, second), one, settings, progress=report, poll=poll):
                yield found, faces
