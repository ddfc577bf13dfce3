"""From a recipe to the moving parts of its run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from facekd.data.identities import IdentitySource
from facekd.data.loading import Batch, RememberedImages, TrainingImages, step_data
from facekd.data.samplers import StepBatches, class_uniform, shown_again, shuffled, sliced, superclass_uniform
from facekd.data.subset import rows_within
from facekd.data.superclasses import group_identities
from facekd.engine.fitting import training_reader
from facekd.engine.training.inheritance import LEAST_AGREEMENT, Classifier, class_means, inherit_classifier
from facekd.engine.training.objective import Objective
from facekd.engine.training.outputs import Sizes
from facekd.engine.training.plan import Plan, architecture_of, cached_views, classifier_of, clean_views
from facekd.engine.training.session import Session
from facekd.engine.training.sources import augment_settings, resolution_settings
from facekd.engine.training.subset import Subset
from facekd.engine.training.teacher import (
    EMBED_BATCH,
    Asking,
    embed_views,
    mirror_views,
    plain_views,
    teacher_cache,
    version_views,
)
from facekd.errors import UsageError
from facekd.files import value_digest
from facekd.losses import ClassShare
from facekd.models.architecture import PROJECTED_FROM
from facekd.models.embedder import Embedder, open_device
from facekd.models.heads import Projected
from facekd.models.preprocessing import Preprocessing
from facekd.models.residual import ResidualPair
from facekd.models.weights import load_fitting_weights, load_weights, read_state
from facekd.recipe import Recipe
from facekd.recipe.loss_options import any_needs
from facekd.recipe.sections import Optimizer, Student

Averaged = TypeVar("Averaged", bound=nn.Module)


def resolve_device(name: str) -> torch.device:
    """``auto`` to the best device there is, any other name to itself if it exists.

    Raises:
        DeviceError: The device asked for is not there.
    """
    mps = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    return open_device(name)


def make_student(section: Student, seed: int, teacher: Embedder | None = None) -> tuple[nn.Module, list[str]]:
    """The student, its weights drawn from ``seed`` or read from the recipe's files.

    Args:
        section: The student of the recipe.
        seed: Of weights that no file gives, such as those of a projector whose student starts from a file without one.
        teacher: Whom it learns from, where there is one.

    Returns:
        The student, and what a user should know of how it was filled.

    Raises:
        InputError: The file's weights do not fit the backbone.
    """
    notes = []
    torch.manual_seed(seed)
    student = architecture_of(section, teacher).build()
    starts = [(student, section.weights)]
    if isinstance(student, ResidualPair) and section.assistant is not None:
        starts = [
            (student.student.backbone, section.weights),
            (student.assistant.backbone, section.assistant.weights),
        ]
    for module, path in starts:
        if path is not None:
            state, metadata = read_state(path)
            bare = isinstance(module, Projected) and PROJECTED_FROM not in metadata
            filled = module.get_submodule("backbone") if bare else module
            if section.partial and path == section.weights:
                notes.append(f"student.weights: {load_fitting_weights(filled, state, path)}")
            else:
                load_weights(filled, state, path)
    return (student.requires_grad_(False) if section.frozen else student), notes


def make_optimizer(section: Optimizer, student: nn.Module, objective: nn.Module) -> torch.optim.Optimizer:
    """The optimizer over what is trained.

    Matrices of the student, of its own classifier and of a projector decay; biases, normalisation and PReLU slopes do
    not, nor do the objective's parts: the bias of a variance head is a measured quantity. A frozen classifier is a
    buffer and never comes here. All is updated by one kernel, which heeds :attr:`Session.halted`.
    """
    named = [(f"student.{name}", p) for name, p in student.named_parameters() if p.requires_grad]
    named += [(f"objective.{name}", p) for name, p in objective.named_parameters() if p.requires_grad]
    kept = {name for name, p in named if p.ndim <= 1 or name.startswith("objective.parts.")}
    groups = [
        {"params": [p for name, p in named if name not in kept], "weight_decay": section.weight_decay},
        {"params": [p for name, p in named if name in kept], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if section.name == "adamw":
        return torch.optim.AdamW(groups, lr=section.learning_rate, betas=(section.momentum, 0.999), fused=True)
    sgd = torch.optim.SGD(groups, lr=section.learning_rate, momentum=section.momentum, fused=True)
    for _, parameter in named if section.momentum else ():  # the kernel takes all or none, and some heads begin late
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


def make_average(module: Averaged | None, decay: float | None) -> Averaged | None:
    """A copy of a module to hold the running average of its weights, where there is one and a decay is given."""
    return None if decay is None or module is None else copy.deepcopy(module).requires_grad_(False)


@dataclass(frozen=True)
class Caches:
    """Teacher embeddings computed before the first step.

    Attributes:
        clean: Of every image and its mirror, ``(images, 2, dim)``, where they are needed.
        steps: Of what the steps show, ``(images, views, dim)``, where the teacher does not run live.
        subsets: Teachers of subsets with what was asked of them.
    """

    clean: np.ndarray | None = None
    steps: np.ndarray | None = None
    subsets: tuple[Subset, ...] = ()


def make_dataset(recipe: Recipe, source: IdentitySource) -> TrainingImages:
    """The training images as the steps see them, kept at their own size or the student's, whichever is larger."""
    side = recipe.student.input_size
    read = training_reader(recipe, source)
    height, width = read(0).shape[:2]
    return TrainingImages(
        RememberedImages(source, read, (max(height, side), max(width, side)), shared=recipe.train.workers > 0),
        source.labels,
        augment_settings(recipe.data.augment),
        seed=recipe.train.seed,
        size=(side, side),
        versions=recipe.data.versions,
        resolutions=resolution_settings(recipe.data.resolutions),
    )


def make_caches(
    recipe: Recipe,
    dataset: TrainingImages,
    source: IdentitySource,
    teacher: Embedder | None,
    asking: Asking,
) -> Caches:
    """Ask the teacher once about everything the run will want to know of it; called by all processes of a run."""
    if teacher is None:
        return Caches()
    clean = steps = None
    if clean_views(recipe, teacher):
        clean = teacher_cache(teacher, source, mirror_views(source), asking, kind="mirror", count=2)
    versions = cached_views(recipe)
    if versions and recipe.teacher is not None and recipe.teacher.view != "clean":
        stored = {"settings": asdict(dataset.settings), "size": dataset.images.size, "versions": versions}
        views = version_views(dataset, versions, rows_within(source, dataset.images.source))
        steps = teacher_cache(teacher, source, views, asking, kind=value_digest(stored), count=versions)
    return Caches(clean, clean if versions and steps is None else steps)


def make_superclasses(recipe: Recipe, source: IdentitySource, clean: np.ndarray | None) -> np.ndarray | None:
    """Which identities look alike to the teacher, ``(identities,)``, where the recipe draws its batches by that.

    Raises:
        UsageError: They do not fall into groups large enough for a batch.
    """
    train = recipe.train
    if train.superclasses is None or train.images_per_identity is None or clean is None:
        return None
    centres = class_means(clean, source.labels, len(source.names)).numpy()
    least = train.batch_size // train.images_per_identity
    try:
        return group_identities(centres, train.superclasses, least=least, seed=train.seed)
    except ValueError as error:
        fix = "lower it or train.batch_size, or raise train.images_per_identity"
        raise UsageError("train.superclasses", str(error), fix) from None


def some_embeddings(teacher: Embedder, source: IdentitySource, caches: Caches) -> torch.Tensor:
    """The teacher's embeddings of the first few training images, ``(count, dim)``, from a cache where there is one."""
    cached = caches.clean if caches.steps is None else caches.steps
    few = np.arange(min(EMBED_BATCH, len(source)))
    rows = embed_views(teacher, plain_views(source), few) if cached is None else cached[few]
    return torch.from_numpy(np.array(rows[:, 0]))


def _sizes(recipe: Recipe, plan: Plan, teacher: Embedder | None, caches: Caches, share: ClassShare | None) -> Sizes:
    width = architecture_of(recipe.student, teacher).width
    return Sizes(
        classes=plan.identities,
        embedding_size=width,
        teacher_size=width if teacher is None else teacher.embedding_size,
        batch_size=recipe.train.batch_size,
        steps_per_epoch=plan.steps_per_epoch,
        projected=recipe.student.projector == "drop",
        subsets=tuple(one.sizes() for one in caches.subsets),
        seed=recipe.train.seed,
        class_share=share,
    )


def make_session(
    recipe: Recipe,
    plan: Plan,
    source: IdentitySource,
    dataset: TrainingImages,
    teacher: Embedder | None,
    caches: Caches,
    place: torch.device,
    *,
    least_agreement: float = LEAST_AGREEMENT,
    class_share: ClassShare | None = None,
) -> Session:
    """Build every part of a run, its inherited classifier proved to fit, by as much as ``least_agreement`` says.

    Of several processes each has its ``class_share`` of the classifier, where the losses allow that.

    Raises:
        FacekdError: A part that cannot be built, or does not fit another.
    """
    classifier = _inherited(recipe, teacher, source, caches, least_agreement)
    student, notes = make_student(recipe.student, recipe.train.seed, teacher)
    student = student.to(place)
    if isinstance(student, ResidualPair) and teacher is not None:
        student.start_at(some_embeddings(teacher, source, caches))
    if recipe.train.channels_last:
        student = student.to(memory_format=torch.channels_last)
    sizes = _sizes(recipe, plan, teacher, caches, class_share)
    objective = Objective(recipe.losses, sizes, None if classifier is None else classifier.class_weights).to(place)
    size = recipe.student.input_size
    return Session(
        recipe=recipe,
        plan=plan,
        source=source,
        dataset=dataset,
        device=place,
        student=student,
        preprocessing=Preprocessing.named(recipe.student.normalize, recipe.student.color, (size, size)),
        objective=objective,
        optimizer=make_optimizer(recipe.optimizer, student, objective),
        teacher=teacher,
        cached=caches.steps,
        classifier=classifier,
        subsets=caches.subsets,
        average=make_average(student, recipe.train.ema),
        average_head=make_average(objective.head, recipe.train.ema),
        notes=(*notes, *objective.notes, *shown_again(source.labels, recipe.train.images_per_identity)),
        superclasses=make_superclasses(recipe, source, caches.clean),
    )


def _inherited(
    recipe: Recipe, teacher: Embedder | None, source: IdentitySource, caches: Caches, least: float
) -> Classifier | None:
    if teacher is None or recipe.teacher is None or not any_needs(recipe.losses, "teacher_classifier"):
        return None
    return inherit_classifier(classifier_of(recipe.teacher, teacher), teacher, source, caches.clean, least=least)


def make_batches(session: Session) -> Iterator[Batch]:
    """The images of every step that is left, as the recipe draws them; of this process its share."""
    train, plan = session.recipe.train, session.plan
    labels, each = session.source.labels, train.images_per_identity
    if each is None:
        draw = shuffled(plan.images, train.batch_size, train.seed)
    elif session.superclasses is None:
        draw = class_uniform(labels, train.batch_size, each, train.seed)
    else:
        draw = superclass_uniform(labels, session.superclasses, train.batch_size, each, train.seed)
    draw = sliced(draw, session.world.rank, session.world.size)
    batches = StepBatches(draw, plan.steps_per_epoch, train.seed, session.step, plan.total_steps)
    return step_data(session.dataset, batches, train.workers, session.device.type == "cuda")
