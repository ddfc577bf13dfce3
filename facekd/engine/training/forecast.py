"""How long a run will take and how much memory it will need, from a few steps on a few of its images.

The run is built as it will be, for very few images and for two small batches; what a step takes is a line through the
two. What hangs on the number of identities is measured apart, at some of them. Nothing of the size of the run is
allocated, and nothing is written but to a temporary folder. So few images cannot prove that an inherited classifier
fits: the run itself does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch

from facekd.data.identities import IdentitySource
from facekd.data.loading import MEMORY_LIMIT, TrainingImages
from facekd.data.subset import SubsetSource
from facekd.engine.allocations import peak_bytes
from facekd.engine.resumable import Watched
from facekd.engine.training.build import make_batches, make_caches, make_dataset, make_session, resolve_device
from facekd.engine.training.plan import Plan, make_plan
from facekd.engine.training.session import Session
from facekd.engine.training.sources import open_source
from facekd.engine.training.step import take_step
from facekd.engine.training.teacher import Asking, embed_views, plain_views
from facekd.engine.training.trainer import sized
from facekd.losses import margin_softmax
from facekd.models.embedder import Embedder
from facekd.recipe import Recipe
from facekd.recipe.loss_options import Loss

LARGEST = {"cpu": 16, "cuda": 128, "mps": 64}
"""The larger of the two batches, by kind of device: one that keeps it busy."""
CLASSES, IMAGES = 4096, 128
"""Identities and images at which the softmax is measured, where there are more."""
ASKED = 16
"""Images the teacher is timed with."""
STEPS = 5


@dataclass(frozen=True)
class Forecast:
    """What a run will cost.

    Attributes:
        step_seconds: A step, its images loaded, once those that are kept in memory have been read.
        epoch_seconds: An epoch of them, without evaluations.
        run_seconds: All steps.
        cache_seconds: To ask the teacher beforehand, where nothing is cached yet.
        memory_bytes: Tensors at the height of a step, the images that are kept among them, beside what the libraries
            take themselves.
    """

    step_seconds: float
    epoch_seconds: float
    run_seconds: float
    cache_seconds: float
    memory_bytes: int

    def as_dict(self) -> dict[str, float | int]:
        """The figures by name."""
        return asdict(self)


def forecast_run(recipe: Recipe, device: str = "auto") -> tuple[Plan, Forecast | None]:
    """The size of a run and what it will cost on this machine, as busy as it is now.

    The forecast is None where teachers of subsets take part. ``train.compile`` is left out of it.

    Raises:
        FacekdError: Anything the run itself would refuse before its first step.
    """
    place = resolve_device(device)
    source = open_source(recipe.data)
    plan, (teacher, _, _) = sized(recipe, source, str(place))
    return plan, None if recipe.subsets else forecast(recipe, plan, source, teacher, place)


def forecast(
    recipe: Recipe, plan: Plan, source: IdentitySource, teacher: Embedder | None, device: torch.device
) -> Forecast:
    """What a run will cost.

    Args:
        recipe: The run; without teachers of subsets.
        plan: Its size.
        source: Its images.
        teacher: Its teacher, where it has one.
        device: Where it will run.
    """
    batch, workers = recipe.train.batch_size, recipe.train.workers
    with tempfile.TemporaryDirectory() as folder:
        probes = [
            _Probe(recipe, source, teacher, size, device, Path(folder, str(size)))
            for size in probed_batches(batch, recipe.train.images_per_identity or 1, LARGEST[device.type])
        ]
        for _ in range(STEPS):
            for probe in probes:
                probe.step()
        heights = [(probe.batch, probe.memory(device)) for probe in probes]
    large = probes[-1]
    height, width = large.session.dataset.images.size
    kept = plan.images * height * width * 3
    keeps = kept <= MEMORY_LIMIT
    compute = line(batch, [(probe.batch, median(probe.seconds)) for probe in probes])
    compute += _softmax_seconds(recipe.losses, plan, batch, large.session.architecture.width, device)
    loading = batch * (large.later_seconds if keeps else large.first_seconds)
    step = max(compute, loading / workers) if workers else compute + loading
    return Forecast(
        step_seconds=step,
        epoch_seconds=step * plan.steps_per_epoch,
        run_seconds=step * plan.total_steps,
        cache_seconds=0.0 if teacher is None else _cache_seconds(plan, teacher, large.session.source),
        memory_bytes=round(line(batch, heights)) + plan.classifier_bytes + kept * keeps,
    )


def probed_batches(batch: int, each: int, largest: int) -> tuple[int, ...]:
    """The sizes of two small batches, or the one size there can be.

    Args:
        batch: Of the run.
        each: Images of an identity in it.
        largest: More are not needed to keep the device busy.

    Example:
        >>> probed_batches(128, 1, 16), probed_batches(128, 4, 16), probed_batches(2, 1, 16)
        ((4, 16), (8, 16), (2,))
    """
    least = max(2, 2 * each)
    large = max(least, min(batch, largest) // each * each)
    small = max(least, large // 4 // each * each)
    return (small, large) if small < large else (large,)


def line(at: float, points: Sequence[tuple[int, float]]) -> float:
    """The value at a place of the line through two points, which does not fall; in proportion to a single one.

    Example:
        >>> line(10, [(2, 3.0), (4, 4.0)]), line(10, [(2, 3.0)]), line(10, [(2, 3.0), (4, 2.0)])
        (7.0, 15.0, 2.0)
    """
    if len(points) == 1:
        return points[0][1] * at / points[0][0]
    (one, low), (other, high) = points
    return high + max(0.0, (high - low) / (other - one)) * (at - other)


class _Probe:
    """The run with a small batch on few images.

    Attributes:
        batch: Images in a step.
        session: The run.
        seconds: Of each step so far, after the first and without its images.
        first_seconds: To read and change an image.
        later_seconds: The same once it is kept in memory.
    """

    def __init__(
        self,
        recipe: Recipe,
        source: IdentitySource,
        teacher: Embedder | None,
        batch: int,
        device: torch.device,
        folder: Path,
    ) -> None:
        small = _smaller(recipe, batch)
        few = SubsetSource(
            source,
            some_rows(source.labels, 2 * batch, max(2, recipe.train.images_per_identity or 2)),
            {"forecast": [str(batch)]},
        )
        plan, dataset = make_plan(small, few, teacher), make_dataset(small, few)
        self.batch, self.seconds = batch, list[float]()
        self.first_seconds, self.later_seconds = (_image_seconds(dataset, epoch) for epoch in range(2))
        caches = make_caches(small, dataset, few, teacher, Asking(folder, Watched()))
        self.session = make_session(small, plan, few, dataset, teacher, caches, device, least_agreement=0.0)
        self._batches = make_batches(self.session)
        self._step()

    def step(self) -> None:
        """One step, timed."""
        batch = next(self._batches).to(self.session.device)
        began = perf_counter()
        take_step(self.session, self.session.student, batch)
        self.seconds.append(perf_counter() - began)

    def memory(self, device: torch.device) -> int:
        """Bytes held at the height of a step, those of weights, gradients and the optimizer with them."""
        return held_bytes(self.session) + peak_bytes(self._step, device)

    def _step(self) -> None:
        take_step(self.session, self.session.student, next(self._batches).to(self.session.device))


def _smaller(recipe: Recipe, batch: int) -> Recipe:
    """The recipe with a small batch, and without what only a long run can have."""
    train: dict[str, Any] = {"batch_size": batch, "epochs": 2 * STEPS, "max_steps": None, "workers": 0}
    train |= {"superclasses": None, "freeze_norm_epochs": 0.0}
    labelled = recipe.data.augment.model_copy(update={"mix": 0.0})  # so few images might all be blends, without a label
    versions = None if recipe.data.versions is None else 1
    data = recipe.data.model_copy(update={"versions": versions, "augment": labelled})
    return recipe.model_copy(update={"train": recipe.train.model_copy(update=train), "data": data})


def some_rows(labels: np.ndarray, count: int, each: int) -> np.ndarray:
    """Images of several identities, ascending.

    Args:
        labels: Class of each image, ``(images,)``.
        count: How many images, fewer where there are no more.
        each: How many of an identity, more only where there are too few identities.

    Example:
        >>> some_rows(np.array([0, 0, 0, 0, 1, 1, 2]), 4, 2), some_rows(np.array([0, 0, 0, 0, 1, 1, 2]), 6, 2)
        (array([0, 1, 4, 5]), array([0, 1, 2, 3, 4, 5]))
    """
    order = np.argsort(labels, kind="stable")
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    place = np.arange(len(order)) - np.repeat(starts, counts)
    while np.count_nonzero(place < each) < min(count, len(order)):
        each *= 2
    return np.sort(order[place < each][:count])


def _image_seconds(dataset: TrainingImages, epoch: int) -> float:
    began = perf_counter()
    for index in range(len(dataset)):
        dataset[epoch, index]
    return (perf_counter() - began) / len(dataset)


def held_bytes(session: Session) -> int:
    """Bytes of everything a run holds between two steps."""
    modules = [session.student, session.objective, *(module for _, module in session.averages())]
    tensors = [held for module in modules for held in (*module.parameters(), *module.buffers())]
    tensors += [tensor.grad for tensor in tensors if tensor.grad is not None]
    tensors += [
        value for state in session.optimizer.state.values() for value in state.values() if torch.is_tensor(value)
    ]
    teacher = 0 if session.teacher is None else 4 * session.teacher.parameters
    return teacher + sum(tensor.nbytes for tensor in tensors)


def _softmax_seconds(losses: Sequence[Loss], plan: Plan, batch: int, width: int, device: torch.device) -> float:
    """What the softmax over all identities adds to a step, measured at some of them; nothing for candidates."""
    among_all = [loss for loss in losses if needs_classes(loss) and not getattr(loss, "candidates", None)]
    if not among_all:
        return 0.0
    classes, images = min(plan.identities, CLASSES), min(batch, IMAGES)
    rows = torch.randn(classes, width, device=device)
    labels = torch.randint(classes, (images,), device=device)
    total = 0.0
    for loss in among_all:
        held = rows.clone().requires_grad_("own_classifier" in loss.needs())
        taken = []
        for _ in range(STEPS):
            given = torch.randn(images, width, device=device, requires_grad=True)
            began = perf_counter()
            margin_softmax(given, held, labels, margin=0.2, scale=32.0).backward()
            float(given.grad.sum())  # type: ignore[union-attr]
            taken.append(perf_counter() - began)
        total += median(taken[1:])
    return total * (plan.identities / classes) * (batch / images)


def needs_classes(loss: Loss) -> bool:
    """Whether a loss compares every image with every identity."""
    return not loss.needs().isdisjoint({"own_classifier", "teacher_classifier"})


def _cache_seconds(plan: Plan, teacher: Embedder, few: IdentitySource) -> float:
    """To ask the teacher about everything the cache will hold."""
    asked = plan.cache_bytes // (4 * teacher.embedding_size)
    if not asked:
        return 0.0
    rows = np.arange(min(len(few), ASKED))
    began = perf_counter()
    embed_views(teacher, plain_views(few), rows)
    return (perf_counter() - began) / len(rows) * asked
