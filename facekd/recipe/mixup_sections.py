"""Options of the losses on mixtures of images; fields as in ``loss_sections``."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from facekd.recipe.base import Positive
from facekd.recipe.loss_sections import EVERY_LOSS, LossSection, Need, Scale

MixAlpha = Annotated[float, Field(gt=0, le=100, description="shares of a mixture are drawn from Beta(alpha, alpha)")]


class Stkd(LossSection):
    """Class probabilities of the teacher, and mixed labels, on virtual samples: mixtures of two images of the batch."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | {"alpha"}
    asks: ClassVar[frozenset[Need]] = frozenset({"virtual_samples", "teacher_classifier", "labels"})

    name: Literal["stkd"]
    alpha: MixAlpha = 1.0
    scale: Scale = 64.0
    temperature: Positive = Field(default=4.0, le=1e4)
    label_weight: float = Field(default=1.0, ge=0, le=1e6, description="factor of the mixed labels' cross-entropy")


class StkdSimilarity(LossSection):
    """The teacher's similarities of virtual samples to the images of the batch: no label and no classifier."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | {"alpha"}
    asks: ClassVar[frozenset[Need]] = frozenset({"virtual_samples", "teacher_embeddings"})

    name: Literal["stkd_similarity"]
    alpha: MixAlpha = 1.0
    temperature: float = Field(default=0.1, gt=0, le=10, description="softness, in units of cosine")
