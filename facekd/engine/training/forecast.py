"""How long a run will take and how much memory it will need, from a few steps on a few of its images.

The run is built as it will be, for very few images and for two small batches; what a step takes is a line through the
two. What hangs on the number of identities is measured apart, at some of them. Nothing of the size of the run is
allocated, and nothing is written but to a temporary folder. So few images cannot prove that an inherited classifier
fits: the run itself does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from torch import Tensor, nn

from facekd.data.identities import IdentitySource
from facekd.data.loading import MEMORY_LIMIT, TrainingImages
from facekd.data.subset import SubsetSource
from facekd.engine.allocations import peak_bytes
from facekd.engine.resumable import Watched
from facekd.engine.training.build import (
    make_batches,
    make_caches,
    make_dataset,
    make_optimizer,
    make_session,
    resolve_device,
)
from facekd.engine.training.outputs import Sizes, StepOutputs
from facekd.engine.training.parts import Sample
from facekd.engine.training.plan import Plan, make_plan
from facekd.engine.training.probes import line, probed_batches, smaller, some_rows
from facekd.engine.training.session import Session
from facekd.engine.training.sources import open_source
from facekd.engine.training.step import take_step
from facekd.engine.training.teacher import Asking, embed_views, plain_views
from facekd.engine.training.trainer import sized
from facekd.losses import margin_softmax
from facekd.losses.class_blocks import BLOCK_NUMBERS
from facekd.losses.sampling import sample_classes
from facekd.models.embedder import Embedder
from facekd.models.heads import MarginClassifier
from facekd.recipe import Recipe
from facekd.recipe.loss_options import Loss, MarginSoftmax, any_needs, sampled_rate

LARGEST = {"cpu": 16, "cuda": 128, "mps": 64}
"""The larger of the two batches, by kind of device: one that keeps it busy."""
CLASSES, IMAGES = 4096, 128
"""Identities and images at which the softmax is measured, where there are more."""
SCORED = 2**20
"""Identities of which a sample is drawn to time that, where there are more."""
ASKED = 16
"""Images the teacher is timed with."""
STEPS = 5
Step = Callable[[Tensor, Tensor], None]


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
    compute += _softmax_seconds(recipe, plan, large.session.architecture.width, device)
    loading = batch * (large.later_seconds if keeps else large.first_seconds)
    classifier = plan.classifier_bytes + _passing_bytes(recipe, plan, large.session.architecture.width)
    step = max(compute, loading / workers) if workers else compute + loading
    return Forecast(
        step_seconds=step,
        epoch_seconds=step * plan.steps_per_epoch,
        run_seconds=step * plan.total_steps,
        cache_seconds=0.0 if teacher is None else _cache_seconds(plan, teacher, large.session.source),
        memory_bytes=round(line(batch, heights)) + classifier + kept * keeps,
    )


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
        small = smaller(recipe, batch, 2 * STEPS)
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


def _softmax_seconds(recipe: Recipe, plan: Plan, width: int, device: torch.device) -> float:
    """What the softmax over the identities adds to a step, measured at some of them; nothing for candidates."""
    among_all = [loss for loss in recipe.losses if needs_classes(loss) and not getattr(loss, "candidates", None)]
    batch = recipe.train.batch_size
    images, total = min(batch, IMAGES), 0.0
    for loss in among_all:
        rate = sampled_rate([loss])
        summed = max(1, round(rate * plan.identities))
        classes = min(summed, CLASSES)
        labels = torch.randint(classes, (images,), device=device)
        step: Step = partial(_whole_step, torch.randn(classes, width, device=device))
        if "own_classifier" in loss.needs():
            step = _trained_step(recipe, loss, classes, width, device)
        if rate < 1:
            total += _draw_seconds(plan.identities, rate, labels)
        taken = []
        for _ in range(STEPS):
            given = torch.randn(images, width, device=device, requires_grad=True)
            began = perf_counter()
            step(given, labels)
            float(given.grad.sum())  # type: ignore[union-attr]
            taken.append(perf_counter() - began)
        total += median(taken[1:]) * (summed / classes) * (batch / images)
    return total


def _whole_step(rows: Tensor, given: Tensor, labels: Tensor) -> None:
    margin_softmax(given, rows, labels, margin=0.2, scale=32.0).backward()


def _trained_step(recipe: Recipe, loss: Loss, classes: int, width: int, device: torch.device) -> Step:
    """A step that trains so many rows; those of a sample are fetched for their optimizer and put back."""
    head = MarginClassifier(classes, width).to(device)
    optimizer = make_optimizer(recipe.optimizer, nn.Module(), head)
    sizes = Sizes(classes=classes, embedding_size=width, teacher_size=width, batch_size=1, steps_per_epoch=1)
    part = None
    if isinstance(loss, MarginSoftmax) and loss.sample_rate < 1:
        part = Sample(loss.model_copy(update={"sample_rate": 1.0}), sizes)

    def step(given: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        if part is None:
            _whole_step(head.class_weights, given, labels)
            optimizer.step()
            return
        found = part(StepOutputs(given, None, labels, class_weights=head.class_weights), 0)
        _whole_step(found["class_weights"], given, found["labels"])
        with part.among_drawn(optimizer, head.class_weights):
            optimizer.step()

    return step


def _draw_seconds(identities: int, rate: float, labels: Tensor) -> float:
    """To draw the sample from all identities, measured at some of them."""
    scored = min(identities, SCORED)
    labels = labels.clamp(max=scored - 1)
    began = perf_counter()
    sample_classes(labels, torch.rand(scored, device=labels.device), round(rate * scored)).labels.tolist()
    return (perf_counter() - began) * identities / scored


def _passing_bytes(recipe: Recipe, plan: Plan, width: int) -> int:
    """What is held of a classifier in training for a moment: all rows by the optimizer, a block by the softmax."""
    if not any_needs(recipe.losses, "own_classifier"):
        return 0
    rows = 4 * width * round(sampled_rate(recipe.losses) * plan.identities)
    copies = 2 if recipe.optimizer.name == "adamw" else int(recipe.optimizer.weight_decay > 0)
    return max(copies * rows, 2 * min(rows, 4 * BLOCK_NUMBERS))


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
