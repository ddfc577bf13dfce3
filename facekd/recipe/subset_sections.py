"""Several teachers, each of some of the identities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from facekd.recipe.base import Positive, Problem
from facekd.recipe.identity_sections import Identities
from facekd.recipe.loss_sections import EVERY_LOSS, LossSection, Need, Scale
from facekd.recipe.sections import Teacher


class SubsetTeacher(Teacher):
    """A model that knows some of the identities, and is asked about images of these alone; keys as in ``teacher``."""

    name: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,49}$", description="names it in messages and figures")
    identities: Identities | None = Field(
        default=None, description="whom it teaches; null: all whom its classifier names. Subsets may overlap"
    )
    share: Positive | None = Field(default=None, description="its part of the loss, for a loss with shares: given")

    def contradictions(self) -> Iterable[Problem]:
        yield from super().contradictions()
        if self.snapshots is not None:
            yield Problem(("snapshots",), "a teacher of a subset is one model", "write null")
        elif self.view == "sharp":
            yield Problem(("view",), "sharp is not for a teacher of a subset", "write clean or same")
        if self.classifier == "class_means" and self.identities is None:
            yield Problem(("identities",), "missing; class_means do not say whom it knows", "add identities")


Shares = Literal["equal", "images", "given"]


class _SubsetLoss(LossSection):
    """What the losses of several teachers have in common."""

    engine_options: ClassVar[frozenset[str]] = EVERY_LOSS | {"shares"}

    shares: Shares = Field(
        default="equal",
        description="parts of the teachers, which sum to 1; equal; images: in proportion to 1 / images of the subset; "
        "given: in proportion to subsets.N.share",
    )


class SubsetKD(_SubsetLoss):
    """Softened class probabilities of several teachers, each over the identities it knows."""

    asks: ClassVar[frozenset[Need]] = frozenset({"subset_teachers", "subset_classifiers", "any_classifier", "labels"})

    name: Literal["subset_kd"]
    scale: Scale = 64.0
    temperature: Positive = Field(default=4.0, le=1e4)


class SubsetL2(_SubsetLoss):
    """Squared distance to the embeddings of several teachers, each through a projector of its own."""

    asks: ClassVar[frozenset[Need]] = frozenset({"subset_teachers", "labels"})

    name: Literal["subset_l2"]
