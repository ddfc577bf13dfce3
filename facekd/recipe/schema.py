"""The recipe: one training run, written down."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from facekd.recipe.base import Problem, Section
from facekd.recipe.evaluation import Evaluate
from facekd.recipe.loss_options import LossOptions
from facekd.recipe.rules import contradictions_between
from facekd.recipe.sections import Data, Optimizer, Schedule, Student, Teacher, Train
from facekd.recipe.subset_sections import SubsetTeacher


class Recipe(Section):
    """One training run, complete: nothing a run depends on lies outside it but the files it names."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="names the run folder")
    description: str = Field(default="", max_length=10_000)
    student: Student
    teacher: Teacher | None = None
    subsets: Annotated[tuple[SubsetTeacher, ...], Field(strict=False, description="teachers of some identities")] = ()
    data: Data
    losses: Annotated[tuple[LossOptions, ...], Field(strict=False, min_length=1)]
    optimizer: Optimizer
    schedule: Schedule = Schedule()
    train: Train
    evaluate: Evaluate = Evaluate()

    def contradictions(self) -> Iterable[Problem]:
        return contradictions_between({name: getattr(self, name) for name in type(self).model_fields})
