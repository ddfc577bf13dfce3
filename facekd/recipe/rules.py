"""What must hold between the sections of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from facekd.recipe.base import Problem
from facekd.recipe.evaluation import Evaluate
from facekd.recipe.loss_options import (
    Loss,
    MarginSoftmax,
    SubsetKD,
    SubsetL2,
    any_needs,
    asks_about_images,
    chosen_classifier,
    in_teacher_space,
    sees_own_classifier,
    uses_teacher,
)
from facekd.recipe.sections import Data, Schedule, Student, Teacher, Train
from facekd.recipe.subset_sections import SubsetTeacher


def _teacher_and_losses(teacher: Teacher | None, losses: tuple[Loss, ...]) -> Iterable[Problem]:
    for index, loss in enumerate(losses):
        earlier = [other.name for other in losses[:index]]
        if loss.name in earlier:
            fix = "keep one, and set its weight"
            yield Problem(("losses", index, "name"), f"{loss.name} is already losses.{earlier.index(loss.name)}", fix)
        if teacher is None and uses_teacher(loss):
            what = f"{loss.name} needs a teacher"
            if chosen_classifier(loss) == "teacher":
                what = f"{loss.name} with class_weights: teacher needs a teacher"
            yield Problem(("losses", index), what, "add teacher: {weights: FILE}")
        elif teacher is not None and teacher.classifier == "none" and "teacher_classifier" in loss.needs():
            fix = "write auto or class_means"
            yield Problem(("teacher", "classifier"), f"none, but {loss.name} needs the teacher's classifier", fix)
    if losses and all(loss.weight_at(0.0) == 0 and (loss.start_epoch or loss.ramp_epochs) for loss in losses):
        fix = "let one loss start at 0 without a ramp"
        yield Problem(("losses", 0, "start_epoch"), "no loss is there at the first step", fix)
    if losses and all(loss.weight == 0 for loss in losses):
        yield Problem(("losses",), "the weight of every loss is 0", "give one a weight above 0")
    if teacher is not None and losses and not any(uses_teacher(loss) for loss in losses):
        yield Problem(("teacher",), "no loss uses the teacher", "write teacher: null, or add a loss such as l2")
    elif teacher is not None and teacher.snapshots and not any(map(asks_about_images, losses)):
        what = "no loss asks the teacher about images, and the classifier is that of its last epoch"
        yield Problem(("teacher", "snapshots"), what, "remove it, or add a loss such as l2")
    elif teacher is not None and teacher.class_weights and not any_needs(losses, "teacher_classifier"):
        fix = "remove it, or add margin_softmax with class_weights: teacher"
        yield Problem(("teacher", "class_weights"), "no loss uses the teacher's classifier", fix)


def _one_of_each(losses: tuple[Loss, ...]) -> Iterable[Problem]:
    """A run trains one classifier of its own at most, and one variance head."""
    choosing = [(index, loss) for index, loss in enumerate(losses) if chosen_classifier(loss) is not None]
    for index, loss in choosing[1:]:
        first = choosing[0][1]
        if chosen_classifier(loss) != chosen_classifier(first):
            what = f"{chosen_classifier(loss)}, but {first.name} has {chosen_classifier(first)}"
            yield Problem(("losses", index, "class_weights"), what, "write the same in both")
    learning = [(index, loss) for index, loss in enumerate(losses) if "variance_head" in loss.needs()]
    for index, loss in learning[1:]:
        what = f"{loss.name} learns a variance, and so does {learning[0][1].name}"
        yield Problem(("losses", index), what, "keep one of them")


def _sampled_classes(losses: tuple[Loss, ...]) -> Iterable[Problem]:
    """Rows that a step leaves out are to stand still, which another loss would move."""
    for index, loss in enumerate(losses):
        beside = [other.name for other in losses if other is not loss and sees_own_classifier(other)]
        if isinstance(loss, MarginSoftmax) and loss.sample_rate < 1 and beside:
            what = f"{loss.sample_rate:g}, but {beside[0]} looks at every row of the classifier"
            yield Problem(("losses", index, "sample_rate"), what, f"remove it, or {beside[0]}")


def _projector(student: Student, teacher: Teacher | None, losses: tuple[Loss, ...]) -> Iterable[Problem]:
    place, wanted = ("student", "projector"), student.projector
    if wanted != "none" and teacher is None:
        yield Problem(place, f"{wanted}, but there is no teacher to project to", "write none, or add a teacher")
    elif wanted == "drop" and losses and not in_teacher_space(losses):
        yield Problem(place, "drop, but no loss sees through it", "write none, or add a loss such as l2")
    elif wanted == "keep" and student.frozen:
        yield Problem(place, "keep, but a frozen student learns no projector", "write none, or frozen: false")


def _uncertainty(student: Student, losses: tuple[Loss, ...]) -> Iterable[Problem]:
    """What a learned variance and a student that stands still ask of each other and of the other losses."""
    if student.frozen and student.weights is None:
        what = "true, and there are no weights to keep"
        yield Problem(("student", "frozen"), what, "add student.weights: FILE, or write false")
    if student.frozen and not any(
        "variance_head" in loss.needs() or "own_classifier" in loss.needs() for loss in losses
    ):
        fix = "write false, or add a loss such as pfe"
        yield Problem(("student", "frozen"), "true, and no loss trains anything else", fix)
    for index, loss in enumerate(losses):
        if "variance_head" in loss.needs() and student.assistant is not None:
            what = f"{loss.name} learns a variance of the student alone, and its assistant is deployed with it"
            yield Problem(("losses", index), what, "remove it, or student.assistant")
        if loss.name == "pfe" and len(losses) == 1 and not student.frozen:
            what = "pfe alone draws all people together"
            yield Problem(("losses", index), what, "add student.frozen: true, or a loss such as margin_softmax")
        others = [other for other in losses if other is not loss]
        alone = "own_classifier" in loss.needs() and not any_needs(others, "own_classifier")
        if loss.name == "dul_regression" and alone:
            what = "own, but no other loss trains a classifier"
            yield Problem(("losses", index, "class_weights"), what, "write teacher, or add margin_softmax")


def _subsets(subsets: tuple[SubsetTeacher, ...], data: Data, losses: tuple[Loss, ...]) -> Iterable[Problem]:
    asking = [(index, loss) for index, loss in enumerate(losses) if isinstance(loss, SubsetKD | SubsetL2)]
    for index, loss in asking:
        if not subsets:
            yield Problem(("losses", index), f"{loss.name} needs teachers of subsets", "add subsets: [...]")
        missing = [one.name for one in subsets if one.share is None]
        if loss.shares == "given" and missing:
            what = f"given, but subsets.{missing[0]} has no share"
            yield Problem(("losses", index, "shares"), what, "add share to every subset")
    if subsets and losses and not asking:
        yield Problem(("subsets",), "no loss asks these teachers", "remove them, or add subset_kd or subset_l2")
    given = any(loss.shares == "given" for _, loss in asking)
    for index, one in enumerate(subsets):
        if one.name in [other.name for other in subsets[:index]]:
            yield Problem(("subsets", index, "name"), f"{one.name} is there twice", "name each once")
        if one.share is not None and asking and not given:
            yield Problem(("subsets", index, "share"), "has no effect without shares: given", "remove it")
        if one.classifier == "none" and any(isinstance(loss, SubsetKD) for _, loss in asking):
            yield Problem(("subsets", index, "classifier"), "none, but subset_kd needs it", "write auto or class_means")
        if one.view == "same" and data.resolutions.sides and data.versions is not None:
            what = "same cannot be cached: data.resolutions draws anew in every epoch"
            yield Problem(("subsets", index, "view"), what, "write view: clean, or data.versions: null")


def _blends(teacher: Teacher | None, data: Data, losses: tuple[Loss, ...]) -> Iterable[Problem]:
    if data.augment.mix == 0:
        return
    if not any_needs(losses, "teacher_embeddings"):
        what = "blends of two people have no label, and no loss asks the teacher about them"
        yield Problem(("data", "augment", "mix"), what, "write 0, or add a loss such as l2")
    elif teacher is not None and teacher.view == "clean":
        what = "the teacher must see the blends the student sees"
        yield Problem(("teacher", "view"), what, "write view: same or sharp, or data.augment.mix: 0")
    for loss in losses:
        if data.augment.mix == 1 and "labels" in loss.needs():
            yield Problem(("data", "augment", "mix"), f"1 leaves {loss.name} no labelled image", "write less than 1")


def _superclasses(teacher: Teacher | None, train: Train) -> Iterable[Problem]:
    if train.superclasses is not None and teacher is None:
        what = "who looks alike is asked of a teacher, and there is none"
        yield Problem(("train", "superclasses"), what, "write null, or add teacher: {weights: FILE}")


def _views(teacher: Teacher | None, data: Data, losses: tuple[Loss, ...]) -> Iterable[Problem]:
    if teacher is None or not any_needs(losses, "teacher_embeddings"):
        return
    lowered = bool(data.resolutions.sides)
    if teacher.view == "sharp" and not lowered:
        what = "sharp is same where data.resolutions has no sides"
        yield Problem(("teacher", "view"), what, "write view: same, or add data.resolutions.sides")
    elif teacher.view == "sharp" and data.versions is None:
        what = "sharp needs embeddings kept of a number of versions"
        yield Problem(("teacher", "view"), what, "add data.versions: 8, or write view: clean")
    elif teacher.view == "same" and lowered and data.versions is not None:
        what = "same cannot be cached: data.resolutions draws anew in every epoch"
        yield Problem(("teacher", "view"), what, "write view: sharp, or data.versions: null")


def _assistant(student: Student, losses: tuple[Loss, ...]) -> Iterable[Problem]:
    asking = [(index, loss) for index, loss in enumerate(losses) if "assistant" in loss.needs()]
    if student.assistant is not None and losses and not asking:
        yield Problem(("student", "assistant"), "no loss trains it", "add the loss residual, or write assistant: null")
    for index, loss in asking:
        if student.assistant is None:
            fix = "add student.assistant: {backbone: NAME}"
            yield Problem(("losses", index), f"{loss.name} needs an assistant", fix)


def _one_mixture(losses: tuple[Loss, ...]) -> Iterable[Problem]:
    """All losses on virtual samples see the same ones."""
    virtual = [(index, loss) for index, loss in enumerate(losses) if "virtual_samples" in loss.needs()]
    for index, loss in virtual[1:]:
        if getattr(loss, "alpha", None) != getattr(virtual[0][1], "alpha", None):
            what = f"differs from that of {virtual[0][1].name}; both see the same virtual samples"
            yield Problem(("losses", index, "alpha"), what, "write the same")


def _within_the_run(schedule: Schedule, train: Train) -> Iterable[Problem]:
    if train.freeze_norm_epochs > train.epochs:
        what = f"{train.freeze_norm_epochs:g} epochs of frozen statistics in a run of {train.epochs}"
        yield Problem(("train", "freeze_norm_epochs"), what, "write less than train.epochs")
    if schedule.warmup_epochs > train.epochs:
        what = f"{schedule.warmup_epochs:g} epochs of warm-up in a run of {train.epochs}"
        yield Problem(("schedule", "warmup_epochs"), what, "write less than train.epochs")


def _unseen_identities(data: Data, evaluate: Evaluate) -> Iterable[Problem]:
    if data.source != "synthetic":
        return
    trained = data.synthetic
    end = trained.first_identity + trained.identities
    for index, item in enumerate(evaluate.sets):
        drawn = item.synthetic
        if drawn is None or drawn.seed != trained.seed:
            continue
        if drawn.first_identity < end and trained.first_identity < drawn.first_identity + drawn.identities:
            what = f"shares identities with the training data ({trained.first_identity} to {end - 1})"
            yield Problem(("evaluate", "sets", index, "synthetic"), what, f"write first_identity: {end}")


Rule = Callable[..., Iterable[Problem]]

RULES: tuple[tuple[tuple[str, ...], Rule], ...] = (
    (("teacher", "losses"), _teacher_and_losses),
    (("student", "losses"), _assistant),
    (("teacher", "data", "losses"), _views),
    (("losses",), _one_mixture),
    (("losses",), _one_of_each),
    (("losses",), _sampled_classes),
    (("student", "teacher", "losses"), _projector),
    (("student", "losses"), _uncertainty),
    (("subsets", "data", "losses"), _subsets),
    (("schedule", "train"), _within_the_run),
    (("teacher", "train"), _superclasses),
    (("teacher", "data", "losses"), _blends),
    (("data", "evaluate"), _unseen_identities),
)
"""Checks between sections: the sections a rule reads, and the rule."""


def contradictions_between(sections: dict[str, Any]) -> list[Problem]:
    """Problems between sections, from every rule whose sections are all at hand.

    Example:
        >>> from facekd.recipe.loss_options import L2
        >>> [p.what for p in contradictions_between({"teacher": None, "losses": (L2(name="l2"),)})]
        ['l2 needs a teacher']
    """
    ready = [(names, rule) for names, rule in RULES if all(name in sections for name in names)]
    return [problem for names, rule in ready for problem in rule(*(sections[name] for name in names))]
