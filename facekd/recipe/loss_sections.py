"""One options model per loss.

Fields mirror the keyword-only parameters of the function of the same name in ``facekd.losses``,
except those listed in ``engine_options``, which tell the trainer how to feed it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from facekd.recipe.base import Positive, Problem, Section, Weight

Scale = Annotated[float, Field(gt=0, le=1e4, description="factor of the cosine logits")]

EVERY_LOSS = frozenset({"weight", "start_epoch", "ramp_epochs"})
Need = Literal[
    "teacher_embeddings",
    "teacher_classifier",
    "own_classifier",
    "any_classifier",
    "labels",
    "equal_widths",
    "subset_teachers",
    "subset_classifiers",
    "assistant",
    "virtual_samples",
    "variance_head",
]
"""What a loss may ask of a run; ``equal_widths``: it sets each element of the student's embedding against the
teacher's; ``assistant``, ``own_classifier`` and ``variance_head``: it trains them beside the student;
``any_classifier``: that, or else the teacher's; ``subset_teachers``, ``subset_classifiers``: of each of ``subsets``;
``virtual_samples``: mixtures of the step's images, seen by the student and, live, by the teacher."""


class LossSection(Section):
    """What every loss of a recipe has in common."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS
    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings"})

    name: str
    weight: Weight = 1.0
    start_epoch: float = Field(default=0.0, ge=0, le=100_000, description="the term is left out before")
    ramp_epochs: float = Field(default=0.0, ge=0, le=100_000, description="epochs in which the weight rises from 0")

    def needs(self) -> frozenset[Need]:
        """What the loss asks of a run, as it is set.

        Example:
            >>> sorted(L2(name="l2").needs())
            ['equal_widths', 'teacher_embeddings']
            >>> sorted(MarginSoftmax(name="margin_softmax", class_weights="teacher").needs())
            ['labels', 'teacher_classifier']
        """
        return self.asks

    def loss_options(self) -> dict[str, float | str | None]:
        """The keyword arguments for the function in ``facekd.losses``.

        Example:
            >>> Cckd(name="cckd", weight=0.5).loss_options()
            {'gamma': 0.4, 'order': 2}
        """
        held_back = self.engine_options | {"name"}
        return {key: getattr(self, key) for key in type(self).model_fields if key not in held_back}

    def weight_at(self, epoch: float) -> float:
        """The weight after so many epochs.

        Example:
            >>> term = L2(name="l2", weight=2.0, start_epoch=1.0, ramp_epochs=4.0)
            >>> [term.weight_at(epoch) for epoch in (0.5, 1.0, 2.0, 9.0)]
            [0.0, 0.0, 0.5, 2.0]
        """
        if epoch < self.start_epoch:
            return 0.0
        return self.weight * (min(1.0, (epoch - self.start_epoch) / self.ramp_epochs) if self.ramp_epochs else 1.0)


ClassWeights = Annotated[
    Literal["own", "teacher"],
    Field(description="own: a trained classifier; teacher: the teacher's classifier, frozen (ProxylessKD)"),
]


def classifier_need(class_weights: str) -> Need:
    """What the option ``class_weights`` asks of a run.

    Example:
        >>> classifier_need("own"), classifier_need("teacher")
        ('own_classifier', 'teacher_classifier')
    """
    return "teacher_classifier" if class_weights == "teacher" else "own_classifier"


class MarginSoftmax(LossSection):
    """Softmax over identities with a margin on the true class; frozen teacher weights make it ProxylessKD."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | {"class_weights", "candidates", "sample_rate"}

    name: Literal["margin_softmax"]
    class_weights: ClassWeights = "own"
    margin: float = Field(
        default=0.5, ge=0, lt=math.pi / 2, description="radians (arcface, combined) or cosine (cosface)"
    )
    scale: Scale = 64.0
    kind: Literal["arcface", "cosface", "combined"] = "arcface"
    past_pi: Literal["linear", "easy", "none"] = Field(
        default="linear", description="what happens where angle + margin passes pi"
    )
    margin_gradient: Literal["exact", "passthrough"] = "exact"
    margin_cosine: float = Field(default=0.0, ge=0, lt=2, description="margin on the cosine (combined only)")
    margin_multiplier: float = Field(default=1.0, ge=1, le=4, description="factor of the angle (combined only)")
    candidates: int | None = Field(
        default=None, ge=1, le=10**6, description="nearest classes the own one is told from; null: all of them"
    )
    sample_rate: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the classes in each step's softmax: the batch's own, others drawn (Partial FC); own only",
    )

    def needs(self) -> frozenset[Need]:
        return frozenset({"labels", classifier_need(self.class_weights)})

    def contradictions(self) -> Iterable[Problem]:
        neutral: dict[str, float | str] = {"margin_cosine": 0.0, "margin_multiplier": 1.0}
        if self.kind == "combined":
            neutral = {}
        if self.kind == "cosface":
            neutral |= {"past_pi": "linear", "margin_gradient": "exact"}
        for key, value in neutral.items():
            if getattr(self, key) != value:
                yield Problem((key,), f"has no effect with kind: {self.kind}", "remove it, or change kind")
        if self.kind != "combined" and self.margin == 0:
            yield Problem(("margin",), f"must be greater than 0 for {self.kind}", "kind: combined allows 0")
        if self.candidates is not None and self.class_weights == "own":
            what = f"{self.candidates}, but a classifier in training has no lasting neighbours"
            yield Problem(("candidates",), what, "write class_weights: teacher, or remove it")
        if self.sample_rate < 1 and self.class_weights == "teacher":
            what = f"{self.sample_rate:g}, but a frozen classifier has no rows to spare from training"
            yield Problem(("sample_rate",), what, "write candidates: N, or class_weights: own")
        boundary = (math.pi - self.margin) / self.margin_multiplier
        if self.past_pi == "linear" and math.cos(boundary) - (math.pi - boundary) * math.sin(boundary) > -1 + 1e-12:
            what = f"{self.margin_multiplier:g} with margin {self.margin:g} makes past_pi: linear step up"
            yield Problem(("margin_multiplier",), what, "lower one of them, or write past_pi: none")


class L2(LossSection):
    """Squared distance of the normalised embeddings."""

    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "equal_widths"})

    name: Literal["l2"]


class Cosine(LossSection):
    """One minus the cosine of student and teacher embedding."""

    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "equal_widths"})

    name: Literal["cosine"]


class LogitKD(LossSection):
    """Softened class probabilities of the teacher (Hinton et al., 2015) over cosine logits."""

    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "teacher_classifier"})

    name: Literal["logit_kd"]
    scale: Scale = 64.0
    temperature: Positive = Field(default=4.0, le=1e4)


class Cckd(LossSection):
    """Correlation congruence: Gaussian similarities of all pairs of a batch."""

    name: Literal["cckd"]
    gamma: Positive = Field(default=0.4, le=1e4, description="sharpness of the similarity")
    order: int | None = Field(default=2, ge=1, le=50, description="of the Taylor series; null: the exponential itself")


class Rkd(LossSection):
    """Relational distillation: distances of pairs and angles of triplets."""

    name: Literal["rkd"]
    distance_weight: float = Field(default=1.0, ge=0, le=1e6)
    angle_weight: float = Field(default=2.0, ge=0, le=1e6, description="0 spares memory that grows with batch^3")

    def contradictions(self) -> Iterable[Problem]:
        if self.distance_weight == self.angle_weight == 0:
            yield Problem(("angle_weight",), "0, and so is distance_weight", "give one of them a weight")


class Pkt(LossSection):
    """Probabilistic knowledge transfer: neighbourhoods of a batch as probabilities."""

    name: Literal["pkt"]


class Sp(LossSection):
    """Similarity-preserving distillation: normalised rows of a batch's similarities."""

    name: Literal["sp"]


class Ekd(LossSection):
    """Evaluation-oriented distillation: ranks of pairs among the thresholds of student and teacher."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | {"fprs", "momentum", "queue"}
    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "labels"})

    name: Literal["ekd"]
    temperature: float = Field(default=0.01, gt=0, le=10, description="softness of a rank, in units of cosine")
    hardest: int = Field(default=2000, ge=1, le=10**7, description="most impostor pairs of a batch that count")
    positive_weight: float = Field(default=0.02, ge=0, le=1e6)
    negative_weight: float = Field(default=0.01, ge=0, le=1e6)
    fprs: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(strict=False, min_length=1)] = Field(
        default=(1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6), description="false-positive rates with a threshold each"
    )
    momentum: float = Field(default=0.99, ge=0, lt=1, description="share of a threshold kept each step")
    queue: int = Field(default=4096, ge=0, le=10**6, description="earlier images whose impostor pairs set thresholds")

    def contradictions(self) -> Iterable[Problem]:
        if self.positive_weight == self.negative_weight == 0:
            yield Problem(("negative_weight",), "0, and so is positive_weight", "give one of them a weight")
        if len(set(self.fprs)) < len(self.fprs):
            yield Problem(("fprs",), "names a rate twice", "give each once")


class AdaDistill(LossSection):
    """Margin softmax against class centres made of the teacher's embeddings as the student learns."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | {"weighted"}
    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "equal_widths", "labels"})

    name: Literal["adadistill"]
    margin: float = Field(default=0.45, gt=0, lt=math.pi / 2, description="radians (arcface) or cosine (cosface)")
    scale: Scale = 64.0
    kind: Literal["arcface", "cosface"] = "arcface"
    weighted: bool = Field(default=True, description="images a centre does not know well move it more")


class MarginDistillation(LossSection):
    """Margin softmax on the teacher's classifier, with the more margin the surer the teacher is of an image."""

    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "teacher_classifier", "equal_widths", "labels"})

    name: Literal["margin_distillation"]
    least_margin: float = Field(default=0.2, ge=0, lt=math.pi / 2, description="radians")
    most_margin: float = Field(default=0.5, gt=0, lt=math.pi / 2, description="radians")
    scale: Scale = 64.0

    def contradictions(self) -> Iterable[Problem]:
        if self.least_margin > self.most_margin:
            yield Problem(("least_margin",), f"{self.least_margin:g} is above most_margin", "lower it")


class SharedHeadKD(LossSection):
    """Softened class probabilities of the teacher through its own classifier, on the student's embedding (TH-KD)."""

    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "teacher_classifier", "equal_widths"})

    name: Literal["shared_head_kd"]
    scale: Scale = 64.0
    temperature: Positive = Field(default=4.0, le=1e4)


class Residual(LossSection):
    """Squared distance of the raw embeddings, and an assistant that learns what the student lacks (RIM)."""

    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "equal_widths", "assistant"})

    name: Literal["residual"]
