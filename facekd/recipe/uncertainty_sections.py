"""Options of the losses that learn a variance; fields as in ``loss_sections``."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

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

HEAD_OPTIONS = frozenset({"variance", "head", "detach_variance"})


class Pad(LossSection):
    """Prime-aware adaptive distillation: squared error weighted by a learned variance."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | HEAD_OPTIONS | {"warmup_epochs"}
    asks: ClassVar[frozenset[Need]] = frozenset({"teacher_embeddings", "equal_widths", "variance_head"})

    name: Literal["pad"]
    floor: Floor = 1e-6
    warmup_epochs: float = Field(
        default=1.0, ge=0, le=100_000, description="epochs of plain l2 before the variance counts"
    )
    variance: VarianceKind = "per_dimension"
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
