"""What every part of a recipe shares: strictness, and contradictions told by key."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

Location = tuple[str | int, ...]

REQUIRED = "REQUIRED"
"""The value of a key that a shipped recipe leaves to its user; a recipe that still holds it is refused."""


class Problem(NamedTuple):
    """One thing wrong with a recipe: the keys leading to it, what is wrong, how to mend it."""

    location: Location
    what: str
    fix: str = ""


class Section(BaseModel):
    """A frozen part of a recipe that refuses unknown keys, wrong types and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    def contradictions(self) -> Iterable[Problem]:
        """Problems between the values of this part; locations are relative to it."""
        return ()

    @model_validator(mode="after")
    def _refuse_contradictions(self) -> Self:
        found = list(self.contradictions())
        if found:
            text = "; ".join(f"{'.'.join(map(str, p.location))}: {p.what}" for p in found)
            raise PydanticCustomError("contradictions", "{text}", {"text": text, "problems": found})
        return self


def _literal_path(value: str) -> str:
    if not value or "\0" in value:
        raise PydanticCustomError("path", "empty path or NUL character in it")
    if value.startswith("~") or "${" in value:
        raise PydanticCustomError("path", "~ and ${...} are not expanded in a recipe; write the path out")
    return value


FilePath = Annotated[str, Field(max_length=4096), AfterValidator(_literal_path)]
"""A path as text, taken literally and relative to the working directory."""

Positive = Annotated[float, Field(gt=0)]

Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0, le=1e6, description="factor of this term in the sum of the losses")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
