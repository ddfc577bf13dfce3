"""The section of a recipe that says what is measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import Field

from facekd.recipe.base import FilePath, Problem, Section
from facekd.recipe.sections import Sides, Synthetic


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
    resolutions: Sides = Field(default=(), description="longer sides in pixels that probes are brought down to as well")
    gallery: Literal["full", "same", "both"] = Field(
        default="full", description="what these are compared with: images as they are, of the same resolution, or both"
    )
    select: Literal["last", "best"] = Field(default="last", description="which weights become student.safetensors")

    def contradictions(self) -> Iterable[Problem]:
        if len(set(self.fpr)) != len(self.fpr):
            yield Problem(("fpr",), "names a target twice", "give each once")
        if len(set(self.resolutions)) != len(self.resolutions):
            yield Problem(("resolutions",), "names a side twice", "give each once")
        if self.gallery != "full" and not self.resolutions:
            yield Problem(("gallery",), "has no effect without resolutions", "remove it, or add resolutions: [28, 14]")
        if self.select == "best" and not self.sets:
            yield Problem(("select",), "best needs something to measure", "add evaluate.sets, or write last")
        elif self.select == "best" and self.every is None:
            yield Problem(("select",), "best needs evaluations during training", "add evaluate.every, or write last")
