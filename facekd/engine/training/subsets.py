"""The teachers of subsets: opened, sized and asked as the one teacher of a recipe is, each about its own images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from facekd.data.embedding_cache import cache_bytes
from facekd.data.identities import IdentitySource
from facekd.data.loading import TrainingImages
from facekd.data.subset import of_identities
from facekd.engine.training.build import make_caches
from facekd.engine.training.inheritance import inherit_classifier
from facekd.engine.training.plan import Plan, classifier_of, kept_views, open_teacher, runs_live
from facekd.engine.training.sources import chosen_identities
from facekd.engine.training.subset import Subset
from facekd.engine.training.teacher import Asking
from facekd.errors import InputError
from facekd.models.classifier_files import read_classifier_files
from facekd.models.embedder import Embedder
from facekd.recipe import Recipe
from facekd.recipe.loss_options import L2, LogitKD, Loss, any_needs
from facekd.recipe.subset_sections import SubsetTeacher


def alone(recipe: Recipe, section: SubsetTeacher) -> Recipe:
    """A recipe as it would be with this teacher and no other, which decides about its caches and its classifier."""
    asking = [loss for loss in recipe.losses if "subset_teachers" in loss.needs()]
    losses: list[Loss] = [
        LogitKD(name="logit_kd") if "subset_classifiers" in loss.needs() else L2(name="l2") for loss in asking
    ]
    train = recipe.train.model_copy(update={"superclasses": None})
    return recipe.model_copy(update={"teacher": section, "subsets": (), "losses": tuple(losses), "train": train})


def open_subsets(recipe: Recipe, source: IdentitySource, device: str) -> tuple[Subset, ...]:
    """The teachers of a recipe's subsets, each with the training images of its identities.

    Raises:
        InputError: A model that cannot be used, or identities that the data does not have.
    """
    found = []
    for section in recipe.subsets:
        teacher = open_teacher(section, device)
        where = f"subsets.{section.name}"
        names: Sequence[str]
        if section.identities is not None:
            names = chosen_identities(section.identities, source, f"{where}.identities")
        else:
            names = _named_by_classifier(section, teacher, where)
        found.append(Subset(section, teacher, of_identities(source, names, where)))
    return tuple(found)


def _named_by_classifier(section: SubsetTeacher, teacher: Embedder, where: str) -> Sequence[str]:
    place = classifier_of(section, teacher)
    names = None if place is None else read_classifier_files(place, teacher.embedding_size).class_names
    if names is None:
        what = f"{teacher.name} has no classifier that names its identities"
        raise InputError(where, what, f"add identities to {where}")
    return names


def with_subsets(plan: Plan, recipe: Recipe, subsets: Sequence[Subset]) -> Plan:
    """A plan that counts the teachers of subsets too."""
    for subset in subsets:
        single, size = alone(recipe, subset.section), subset.teacher.embedding_size
        held = any_needs(recipe.losses, "subset_classifiers")
        views = kept_views(single, subset.teacher)
        plan = replace(
            plan,
            teachers=plan.teachers + 1,
            teacher_parameters=plan.teacher_parameters + subset.teacher.parameters,
            classifier_bytes=plan.classifier_bytes + 4 * held * len(subset.source.names) * size,
            cache_bytes=plan.cache_bytes + cache_bytes(len(subset.source), views, size),
            teacher_step_images=plan.teacher_step_images + recipe.train.batch_size * runs_live(single),
        )
    return plan


def ask_subsets(
    recipe: Recipe, dataset: TrainingImages, subsets: Sequence[Subset], asking: Asking
) -> tuple[Subset, ...]:
    """Ask every teacher of a subset once what the run will want to know of it, and prove its classifier.

    Called by all processes of a run.

    Raises:
        FacekdError: An embedding or classifier that cannot be used.
    """
    found = []
    for subset in subsets:
        single = alone(recipe, subset.section)
        caches = make_caches(single, dataset, subset.source, subset.teacher, asking)
        classifier = None
        if any_needs(recipe.losses, "subset_classifiers"):
            place = classifier_of(subset.section, subset.teacher)
            with asking.world.together():
                classifier = inherit_classifier(
                    place, subset.teacher, subset.source, caches.clean, poll=asking.watched.poll
                )
        found.append(replace(subset, cached=caches.steps, classifier=classifier))
    return tuple(found)
