"""The recipe: every hyper-parameter of a run, with its range and its one default."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from facekd.recipe.base import FilePath, Fraction, Positive, Problem, Section, Seed
from facekd.recipe.loss_options import (
    L2,
    Cosine,
    LogitKD,
    LossOptions,
    MarginSoftmax,
    Pad,
    uses_teacher,
    uses_teacher_classifier,
)

Loss = MarginSoftmax | L2 | Cosine | LogitKD | Pad

Color = Literal["rgb", "bgr"]
Normalize = Annotated[
    Literal["half", "128", "imagenet", "none"], BeforeValidator(lambda v: "128" if v == 128 and v is not True else v)
]
Epochs = Annotated[float, Field(ge=0, le=100_000)]
OptionValue = bool | int | float | str


class Student(Section):
    """The small model to train."""

    backbone: str = Field(min_length=1, max_length=200, description="a registered name, or timm/<name>")
    embedding_size: int = Field(default=512, ge=2, le=16_384)
    input_size: int = Field(default=112, ge=32, le=1024, description="height and width in pixels")
    options: dict[str, OptionValue] = Field(default={}, description="keyword options of the backbone")
    color: Color = "rgb"
    normalize: Normalize = "half"
    weights: FilePath | None = Field(default=None, description="weights to start from")


class Teacher(Section):
    """The large model to learn from."""

    weights: FilePath = Field(description="run folder, .safetensors, .pt, .pth or .onnx")
    color: Color | None = Field(default=None, description="only for a foreign model that does not say")
    normalize: Normalize | None = Field(default=None, description="only for a foreign model that does not say")
    view: Literal["clean", "same"] = Field(
        default="clean",
        description="clean: unchanged pixels and their mirror, cached; same: the student's augmented pixels",
    )
    classifier: Literal["auto", "class_means", "none"] = Field(
        default="auto", description="where the teacher's class weights come from; auto: its file, else class means"
    )
    licence: str = Field(default="", max_length=2000)


class Synthetic(Section):
    """Drawn faces: a range of identities, each rendered ``samples`` times."""

    identities: int = Field(default=200, ge=2, le=10_000_000)
    samples: int = Field(default=20, ge=1, le=100_000)
    seed: Seed = 0
    first_identity: int = Field(default=0, ge=0, le=1_000_000_000)


class Augment(Section):
    """Strengths of the random changes to a training image; 0 switches one off."""

    flip: Fraction = 0.5
    shift: Fraction = 0.0
    scale: float = Field(default=0.0, ge=0, lt=1)
    rotate: float = Field(default=0.0, ge=0, le=180, description="degrees to either side")
    color: Fraction = 0.0
    grayscale: Fraction = 0.0
    blur: Fraction = 0.0
    downscale: Fraction = 0.0
    erase: Fraction = 0.0


class Data(Section):
    """The training images."""

    source: Literal["synthetic", "folder", "list"]
    path: FilePath | None = Field(default=None, description="folder of identity folders, or .csv with path,identity")
    images: FilePath | None = Field(
        default=None, description="root of the paths in a list; the list's own folder if null"
    )
    licence: str = Field(default="", max_length=2000)
    synthetic: Synthetic = Synthetic()
    augment: Augment = Augment()

    def contradictions(self) -> Iterable[Problem]:
        if self.source == "synthetic":
            for key in ("path", "images"):
                if getattr(self, key) is not None:
                    yield Problem((key,), "has no meaning with source: synthetic", "remove it, or change source")
            return
        if self.path is None:
            yield Problem(("path",), f"missing; source: {self.source} needs one", "add path: ...")
        if self.source == "folder" and self.images is not None:
            yield Problem(("images",), "has no meaning with source: folder", "remove it, or write source: list")
        if self.synthetic != Synthetic():
            fix = "remove it, or --set data.synthetic={}"
            yield Problem(("synthetic",), f"has no meaning with source: {self.source}", fix)


class Optimizer(Section):
    """How gradients change the weights."""

    name: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = Field(gt=0, le=100)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD; the first beta of AdamW")
    weight_decay: float = Field(default=5e-4, ge=0, le=10)
    clip_gradient: Positive | None = Field(default=None, description="largest norm of the backbone's gradient")


class Schedule(Section):
    """The learning rate over the run, as a factor of ``optimizer.learning_rate``."""

    name: Literal["constant", "cosine", "step", "poly"] = "constant"
    warmup_epochs: Epochs = Field(default=0.0, description="epochs of linear rise from 0")
    milestones: Annotated[tuple[Positive, ...], Field(strict=False)] = Field(
        default=(), description="step: epochs of the drops"
    )
    gamma: float = Field(default=0.1, gt=0, lt=1, description="step: factor of each drop")
    power: float = Field(default=2.0, gt=0, le=10, description="poly: exponent")
    final: Fraction = Field(default=0.0, description="cosine, poly: factor at the end")

    def contradictions(self) -> Iterable[Problem]:
        used = {"step": ("milestones", "gamma"), "poly": ("power", "final"), "cosine": ("final",)}.get(self.name, ())
        for key in ("milestones", "gamma", "power", "final"):
            if key not in used and getattr(self, key) != type(self).model_fields[key].default:
                yield Problem((key,), f"has no effect with name: {self.name}", "remove it, or change name")
        if self.name == "step" and not self.milestones:
            yield Problem(("milestones",), "missing; name: step needs them", "add milestones: [10, 20]")
        if any(a >= b for a, b in zip(self.milestones, self.milestones[1:], strict=False)):
            yield Problem(("milestones",), f"not increasing: {list(self.milestones)}", "sort them, each once")


class Train(Section):
    """The loop."""

    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(default=128, ge=2, le=65_536)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    channels_last: bool = True
    workers: int = Field(default=0, ge=0, le=256, description="processes that load images")
    seed: Seed = 0
    ema: float | None = Field(
        default=None, gt=0, lt=1, description="decay of the averaged weights; null: none are kept"
    )
    freeze_norm_epochs: Epochs = Field(
        default=0.0, description="last epochs in which the student's BatchNorm uses its running statistics"
    )
    checkpoint_every: float = Field(default=1.0, gt=0, le=100_000, description="epochs")
    log_every: int = Field(default=20, ge=1, le=1_000_000, description="steps")
    max_steps: int | None = Field(default=None, ge=1, description="stop early, after this many steps")


class EvaluationSet(Section):
    """Images to evaluate on while training: a file or folder, or drawn faces."""

    path: FilePath | None = None
    synthetic: Synthetic | None = None
    images: FilePath | None = Field(default=None, description="root of the paths in a pairs file or list")
    protocol: Literal["auto", "lfw", "pairs", "all-pairs"] = "auto"

    def contradictions(self) -> Iterable[Problem]:
        if (self.path is None) == (self.synthetic is None):
            yield Problem((), "give exactly one of path and synthetic")
        if self.synthetic is None:
            return
        if self.images is not None:
            yield Problem(("images",), "has no meaning for synthetic faces", "remove it")
        if self.protocol not in ("auto", "all-pairs"):
            yield Problem(("protocol",), f"{self.protocol} needs a pairs file", "write auto or all-pairs")
        if self.synthetic.samples < 2:
            yield Problem(("synthetic", "samples"), "1 image per identity gives no genuine pair", "write 2 or more")


FprTarget = Annotated[float, Field(gt=0, lt=1)]


class Evaluate(Section):
    """What is measured during and after training."""

    every: float | None = Field(
        default=None, gt=0, le=100_000, description="epochs between evaluations; null: at the end only"
    )
    sets: Annotated[tuple[EvaluationSet, ...], Field(strict=False)] = ()
    fpr: Annotated[tuple[FprTarget, ...], Field(strict=False, min_length=1)] = (1e-2, 1e-3)
    flip: bool = Field(default=True, description="add the embedding of the mirrored image")
    select: Literal["last", "best"] = Field(default="last", description="which weights become student.safetensors")

    def contradictions(self) -> Iterable[Problem]:
        if len(set(self.fpr)) != len(self.fpr):
            yield Problem(("fpr",), "names a target twice", "give each once")
        if self.select == "best" and not self.sets:
            yield Problem(("select",), "best needs something to measure", "add evaluate.sets, or write last")
        elif self.select == "best" and self.every is None:
            yield Problem(("select",), "best needs evaluations during training", "add evaluate.every, or write last")


def _teacher_and_losses(teacher: Teacher | None, losses: tuple[Loss, ...]) -> Iterable[Problem]:
    for index, loss in enumerate(losses):
        earlier = [other.name for other in losses[:index]]
        if loss.name in earlier:
            fix = "keep one, and set its weight"
            yield Problem(("losses", index, "name"), f"{loss.name} is already losses.{earlier.index(loss.name)}", fix)
        if teacher is None and uses_teacher(loss):
            what = f"{loss.name} needs a teacher"
            if isinstance(loss, MarginSoftmax):
                what = f"{loss.name} with class_weights: teacher needs a teacher"
            yield Problem(("losses", index), what, "add teacher: {weights: FILE}")
        elif teacher is not None and teacher.classifier == "none" and uses_teacher_classifier(loss):
            fix = "write auto or class_means"
            yield Problem(("teacher", "classifier"), f"none, but {loss.name} needs the teacher's classifier", fix)
    if losses and all(loss.weight == 0 for loss in losses):
        yield Problem(("losses",), "the weight of every loss is 0", "give one a weight above 0")
    if teacher is not None and losses and not any(uses_teacher(loss) for loss in losses):
        yield Problem(("teacher",), "no loss uses the teacher", "write teacher: null, or add a loss such as l2")


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
    (("schedule", "train"), _within_the_run),
    (("data", "evaluate"), _unseen_identities),
)
"""Checks between sections: the sections a rule reads, and the rule."""


def contradictions_between(sections: dict[str, Any]) -> list[Problem]:
    """Problems between sections, from every rule whose sections are all at hand.

    Example:
        >>> [p.what for p in contradictions_between({"teacher": None, "losses": (L2(name="l2"),)})]
        ['l2 needs a teacher']
    """
    ready = [(names, rule) for names, rule in RULES if all(name in sections for name in names)]
    return [problem for names, rule in ready for problem in rule(*(sections[name] for name in names))]


class Recipe(Section):
    """One training run, complete: nothing a run depends on lies outside it but the files it names."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="names the run folder")
    description: str = Field(default="", max_length=10_000)
    student: Student
    teacher: Teacher | None = None
    data: Data
    losses: Annotated[tuple[LossOptions, ...], Field(strict=False, min_length=1)]
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    train: Train
    evaluate: Evaluate = Evaluate()

    def contradictions(self) -> Iterable[Problem]:
        return contradictions_between({name: getattr(self, name) for name in type(self).model_fields})
