"""Which identities and images of a data set are meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from facekd.recipe.base import FilePath, Fraction, Problem, Section

Count = Annotated[int, Field(ge=1, le=100_000_000)]


class Shots(Section):
    """Identities by how many images they have."""

    at_least: Count | None = None
    at_most: Count | None = None

    def contradictions(self) -> Iterable[Problem]:
        if self.at_least is None and self.at_most is None:
            yield Problem((), "selects everybody", "give at_least or at_most")
        elif self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            yield Problem(("at_least",), f"{self.at_least} is above at_most: {self.at_most}", "lower it")


class Attribute(Section):
    """Identities by a column of a table that has a row for each of them."""

    file: FilePath = Field(description="CSV or TSV with the column identity and others")
    column: str = Field(min_length=1, max_length=200)
    values: Annotated[tuple[str, ...], Field(strict=False, min_length=1, description="any of these, as text")]


class Identities(Section):
    """Some identities of a data set, told in one of three ways."""

    shots: Shots | None = None
    attribute: Attribute | None = None
    file: FilePath | None = Field(default=None, description="a text file with an identity's name on each line")

    def contradictions(self) -> Iterable[Problem]:
        if sum(way is not None for way in (self.shots, self.attribute, self.file)) != 1:
            yield Problem((), "give exactly one of shots, attribute and file")


class LeaveOut(Section):
    """Images of a data set that are not trained on: those that do not decode."""

    file: FilePath = Field(description="CSV or TSV with the column path, as facekd data inspect --broken writes it")
    at_most: Fraction = Field(default=0.001, description="share of the images; more are refused")
