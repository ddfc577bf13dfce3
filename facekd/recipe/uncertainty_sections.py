"""Options of the losses that learn a variance; fields as in ``loss_sections``."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from facekd.recipe.base import Positive
from facekd.recipe.loss_sections import (
    EVERY_LOSS,
    ClassWeights,
    LossSection,
    Need,
    Scale,
    classifier_need,
)

VarianceKind = Annotated[Literal["per_dimension", "scalar"], Field(description="one for each, or one for all")]
HeadKind = Annotated[
    Literal["linear", "mlp"], Field(description="what reads the variance off the embedding; mlp: that of PFE")
]
DetachVariance = Annotated[bool, Field(description="stop the gradient from the variance head into the backbone")]
Floor = Annotated[float, Field(gt=0, le=1, description="least variance, as a fraction of the mean squared residual")]
WarmupEpochs = Annotated[
    float, Field(ge=0, le=100_000, description="epochs of the plain distance before the variance counts")
]

HEAD_OPTIONS = frozenset({"variance", "head", "detach_variance"})


class Pad(LossSection):
    """Prime-aware adaptive distillation: squared error weighted by a learned variance."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | HEAD_OPTIONS | {"warmup_epochs"}
    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "equal_widths", "variance_head"})

    name: Literal["pad"]
    floor: Floor = 1e-6
    warmup_epochs: WarmupEpochs = 1.0
    variance: VarianceKind = "per_dimension"
    head: HeadKind = "linear"
    detach_variance: DetachVariance = False


class PadLogit(LossSection):
    """Prime-aware adaptive distillation of the teacher's class probabilities, with one variance an image."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | {"warmup_epochs", "head", "detach_variance"}
    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "teacher_classifier", "variance_head"})

    name: Literal["pad_logit"]
    scale: Scale = 64.0
    temperature: Positive = Field(default=4.0, le=1e4)
    floor: Floor = 1e-6
    warmup_epochs: WarmupEpochs = 1.0
    head: HeadKind = "linear"
    detach_variance: DetachVariance = False


class PadRelation(LossSection):
    """Prime-aware adaptive distillation of similarities within the batch, with one variance an image."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | {"warmup_epochs", "head", "detach_variance"}
    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "variance_head"})

    name: Literal["pad_relation"]
    floor: Floor = 1e-6
    warmup_epochs: WarmupEpochs = 1.0
    head: HeadKind = "linear"
    detach_variance: DetachVariance = False


class Dul(LossSection):
    """Margin softmax of an embedding with learned noise, and the divergence of that noise from a unit Gaussian."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | HEAD_OPTIONS | {"class_weights"}

    name: Literal["dul"]
    class_weights: ClassWeights = "own"
    kl_weight: float = Field(
        default=0.01, ge=0, le=1e6, description="of the divergence, a mean over images and dimensions"
    )
    margin: float = Field(default=0.5, gt=0, lt=math.pi / 2, description="radians (arcface) or cosine (cosface)")
    scale: Scale = 64.0
    kind: Literal["arcface", "cosface"] = "arcface"
    variance: VarianceKind = "per_dimension"
    head: HeadKind = "linear"
    detach_variance: DetachVariance = False

    def needs(self) -> frozenset[Need]:
        return frozenset({"labels", "variance_head", classifier_need(self.class_weights)})


class DulRegression(LossSection):
    """Likelihood of the row of an image's class under the Gaussian about its embedding."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | HEAD_OPTIONS | {"class_weights"}

    name: Literal["dul_regression"]
    class_weights: ClassWeights = "teacher"
    floor: Floor = 1e-6
    variance: VarianceKind = "per_dimension"
    head: HeadKind = "mlp"
    detach_variance: DetachVariance = False

    def needs(self) -> frozenset[Need]:
        return frozenset({"labels", "variance_head", classifier_need(self.class_weights)})


class Pfe(LossSection):
    """Mutual likelihood of the genuine pairs of a batch under the Gaussians about their embeddings."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | HEAD_OPTIONS
    asks: ClassVar[frozenset[Need]] = frozenset({"labels", "variance_head"})

    name: Literal["pfe"]
    floor: Floor = 1e-6
    variance: VarianceKind = "per_dimension"
    head: HeadKind = "mlp"
    detach_variance: DetachVariance = False
