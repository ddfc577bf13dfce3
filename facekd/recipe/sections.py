"""The sections of a recipe: every hyper-parameter of a run, with its range and its one default."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from facekd.recipe.base import FilePath, Fraction, Positive, Problem, Section, Seed
from facekd.recipe.identity_sections import Identities, LeaveOut

Color = Literal["rgb", "bgr"]
Normalize = Annotated[
    Literal["half", "128", "imagenet", "unit", "none"],
    BeforeValidator(lambda v: "128" if v == 128 and v is not True else v),
]
Epochs = Annotated[float, Field(ge=0, le=100_000)]
Sides = Annotated[tuple[Annotated[int, Field(ge=4, le=1024)], ...], Field(strict=False)]
OptionValue = bool | int | float | str


class Assistant(Section):
    """A second backbone, whose embedding is added to the student's; both are deployed."""

    backbone: str = Field(min_length=1, max_length=200, description="a registered name, or timm/<name>")
    options: dict[str, OptionValue] = Field(default={}, description="keyword options of the backbone")
    weights: FilePath | None = Field(default=None, description="weights to start from")


class Student(Section):
    """The small model to train."""

    backbone: str = Field(min_length=1, max_length=200, description="a registered name, or timm/<name>")
    embedding_size: int = Field(default=512, ge=2, le=16_384)
    input_size: int = Field(default=112, ge=32, le=1024, description="height and width in pixels")
    options: dict[str, OptionValue] = Field(default={}, description="keyword options of the backbone")
    color: Color = "rgb"
    normalize: Normalize = "half"
    weights: FilePath | None = Field(default=None, description="weights to start from")
    partial: bool = Field(default=False, description="take of weights the tensors that fit, and draw the others")
    assistant: Assistant | None = Field(
        default=None, description="learns what the student lacks of the teacher, by the loss residual; null: none"
    )
    frozen: bool = Field(default=False, description="its weights stay; only what stands on its embedding learns")
    projector: Literal["none", "drop", "keep"] = Field(
        default="none",
        description="a learned linear map to the teacher's width, where that is another; drop: losses that compare "
        "with the teacher's embedding or classifier see through it, and the finished student is without it; keep: it "
        "is part of the student, whose embedding then has the teacher's width",
    )

    def contradictions(self) -> Iterable[Problem]:
        if self.assistant is not None and self.projector != "none":
            yield Problem(("projector",), f"{self.projector} has no place beside an assistant", "write none")
        if self.partial and self.weights is None:
            yield Problem(("partial",), "has no effect without weights", "remove it, or add weights: FILE")
        if self.partial and self.frozen:
            yield Problem(("partial",), "leaves drawn values in a frozen student", "remove it, or write frozen: false")


class Teacher(Section):
    """The large model to learn from."""

    weights: FilePath = Field(
        description="run folder, .safetensors, .pt, .pth, .ckpt, .onnx, hf:owner/name/file, timm/name"
    )
    color: Color | None = Field(default=None, description="of a foreign model; null: what its project does")
    normalize: Normalize | None = Field(default=None, description="of a foreign model; null: what its project does")
    view: Literal["clean", "same", "sharp"] = Field(
        default="clean",
        description="clean: unchanged pixels and their mirror, cached; same: the student's augmented pixels; "
        "sharp: those before data.resolutions took detail from them, cached",
    )
    class_weights: FilePath | None = Field(
        default=None, description="its classifier, where that lies elsewhere: a file, or a folder of shards"
    )
    classifier: Literal["auto", "class_means", "none"] = Field(
        default="auto",
        description="where the teacher's class weights come from; auto: class_weights, its run folder, its checkpoint, "
        "else class means",
    )
    snapshots: Literal["aligned", "stretched"] | None = Field(
        default=None,
        description="learn from a run's snapshots in turn (its folder or snapshots.json as weights), live; aligned: in "
        "epoch 1 from the teacher's epoch 1 and so on; stretched: from that as far along in its run; null: one teacher",
    )
    licence: str = Field(default="", max_length=2000)

    def contradictions(self) -> Iterable[Problem]:
        if self.snapshots is not None and self.view != "same":
            what = f"{self.view} asks one teacher once, and every epoch has another"
            yield Problem(("view",), what, "write view: same")
        if self.snapshots is None and self.weights.endswith(".json"):
            yield Problem(("snapshots",), "missing; weights names a manifest of them", "write snapshots: aligned")
        if self.class_weights is not None and self.classifier != "auto":
            fix = "remove it, or write classifier: auto"
            yield Problem(("class_weights",), f"has no effect with classifier: {self.classifier}", fix)


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
    mix: Fraction = Field(default=0.0, description="share of images blended with another person's; they have no label")


class Resolutions(Section):
    """Resolutions that the student's images are brought down to, by area, and up again, bicubic."""

    sides: Sides = Field(
        default=(), description="longer sides in pixels, each as likely as any other; empty: images stay as they are"
    )
    share: float = Field(default=1.0, gt=0, le=1, description="share of the images that are brought down")

    def contradictions(self) -> Iterable[Problem]:
        if len(set(self.sides)) < len(self.sides):
            yield Problem(("sides",), "names a side twice", "give each once")
        if not self.sides and self.share != 1:
            yield Problem(("share",), "has no effect without sides", "remove it, or add sides: [28, 14]")


class Data(Section):
    """The training images."""

    source: Literal["synthetic", "folder", "list", "record", "tar", "auto"] = Field(
        description="how the images are stored; auto: as the path shows"
    )
    path: FilePath | None = Field(
        default=None,
        description="folder of identity folders, .rec, .tar shards, or .csv, .tsv or .parquet with path and identity",
    )
    images: FilePath | None = Field(
        default=None, description="root of the paths in a list; the list's own folder if null"
    )
    allow_resize: bool = Field(
        default=False, description="take images, here and in evaluate, of another cut of the face than the student's"
    )
    template: str = Field(
        default="arcface", max_length=200, description="landmarks the faces lie on; told to whoever uses the student"
    )
    licence: str = Field(default="", max_length=2000)
    leave_out: LeaveOut | None = Field(default=None, description="images that are not trained on; null: none")
    subset: Identities | None = Field(default=None, description="train on these identities alone; null: on all")
    synthetic: Synthetic = Synthetic()
    augment: Augment = Augment()
    resolutions: Resolutions = Resolutions()
    versions: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description="augmented versions kept of each image, so that teacher.view: same or sharp can be cached; "
        "null: no end",
    )

    def contradictions(self) -> Iterable[Problem]:
        if self.source == "synthetic":
            for key in ("path", "images", "leave_out"):
                if getattr(self, key) is not None:
                    yield Problem((key,), "has no meaning with source: synthetic", "remove it, or change source")
            return
        if self.path is None:
            yield Problem(("path",), f"missing; source: {self.source} needs one", "add path: ...")
        if self.source in ("folder", "record", "tar") and self.images is not None:
            yield Problem(("images",), f"has no meaning with source: {self.source}", "remove it, or write source: list")
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
    images_per_identity: int | None = Field(
        default=None,
        ge=2,
        le=65_536,
        description="batches of this many images of each of a few identities; null: every image once an epoch",
    )
    superclasses: int | None = Field(
        default=None,
        ge=2,
        le=100_000,
        description="the identities of a batch look alike to the teacher: k-means clusters of its class means",
    )
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
    snapshot_every: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="epochs between snapshots, weights kept for a student to learn from in turn; the last epoch is "
        "always one; null: none",
    )
    log_every: int = Field(default=20, ge=1, le=1_000_000, description="steps")
    max_steps: int | None = Field(default=None, ge=1, description="stop early, after this many steps")

    def contradictions(self) -> Iterable[Problem]:
        if self.images_per_identity is not None and self.batch_size % self.images_per_identity:
            what = f"{self.batch_size} is no multiple of images_per_identity: {self.images_per_identity}"
            yield Problem(("batch_size",), what, "change one of them")
        if self.superclasses is not None and self.images_per_identity is None:
            fix = "add images_per_identity: 4"
            yield Problem(("superclasses",), "has no effect without images_per_identity", fix)
