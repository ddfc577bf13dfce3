"""What a model is made of: one backbone or several together, as a recipe or the metadata of a file names them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from facekd.models.backbone import build_backbone
from facekd.models.heads import Projected, linear_projector
from facekd.models.residual import ResidualPair

PROJECTED_FROM = "projected_from"
"""Key of a file's metadata: width of the embedding that the model's own projector reads; absent where it has none."""


@dataclass(frozen=True)
class Part:
    """A backbone beside the first one.

    Attributes:
        backbone: The name `build_backbone` knows it by.
        options: Its own options by name.
    """

    backbone: str
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Architecture:
    """All that decides which tensors a model has.

    Attributes:
        backbone: The name `build_backbone` knows it by.
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels.
        options: The backbone's own options by name.
        assistant: The backbone whose embedding is added to the first one's; None where there is one backbone.
        projected: Width of a linear projector on the embedding that is part of the model; None where there is none.
    """

    backbone: str
    embedding_size: int
    input_size: int
    options: Mapping[str, object] = field(default_factory=dict)
    assistant: Part | None = None
    projected: int | None = None

    @property
    def width(self) -> int:
        """Width of what the model gives."""
        return self.projected or self.embedding_size

    def build(self) -> nn.Module:
        """The model, freshly initialised; in evaluation mode it gives one embedding an image.

        Raises:
            UsageError: A backbone or an option that does not exist.

        Example:
            >>> small = {"channels": "4,8", "blocks": "1,1"}
            >>> type(Architecture("resnet_tiny", 8, 32, small, Part("resnet_tiny", small)).build()).__name__
            'ResidualPair'
            >>> type(Architecture("resnet_tiny", 8, 32, small, projected=16).build()).__name__
            'Projected'
        """
        first = self._backbone(self.backbone, self.options)
        if self.assistant is not None:
            second = self._backbone(self.assistant.backbone, self.assistant.options)
            first = ResidualPair(first, second, self.embedding_size)
        if self.projected is None:
            return first
        return Projected(first, linear_projector(self.embedding_size, self.projected))

    def _backbone(self, name: str, options: Mapping[str, object]) -> nn.Module:
        return build_backbone(name, embedding_size=self.embedding_size, input_size=self.input_size, options=options)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its backbones."""
        return (self.backbone, *(() if self.assistant is None else (self.assistant.backbone,)))

    def composition(self) -> dict[str, str]:
        """What a file must say beside backbone, embedding size and options, for the model to be built again.

        Example:
            >>> Architecture("resnet_tiny", 8, 32, assistant=Part("mobilefacenet")).composition()
            {'assistant': '{"backbone": "mobilefacenet", "options": {}}'}
            >>> Architecture("resnet_tiny", 8, 32, projected=16).composition()
            {'projected_from': '8'}
        """
        told = {} if self.projected is None else {PROJECTED_FROM: str(self.embedding_size)}
        if self.assistant is None:
            return told
        other = {"backbone": self.assistant.backbone, "options": dict(self.assistant.options)}
        return told | {"assistant": json.dumps(other, sort_keys=True)}

    @staticmethod
    def from_metadata(metadata: Mapping[str, str], input_size: int) -> Architecture:
        """The architecture a file names.

        Args:
            metadata: Of a file that `weights.save_model` wrote.
            input_size: Side of the square input in pixels.

        Raises:
            KeyError: The file does not say.
            ValueError: What it says cannot be read.
        """
        told = json.loads(metadata.get("assistant", "null"))
        width = int(metadata["embedding_size"])
        return Architecture(
            backbone=metadata["backbone"],
            embedding_size=int(metadata.get(PROJECTED_FROM, width)),
            input_size=input_size,
            options=_options(json.loads(metadata.get("options", "{}"))),
            assistant=None if told is None else _part(told),
            projected=width if PROJECTED_FROM in metadata else None,
        )


def _part(told: object) -> Part:
    if not isinstance(told, dict) or not isinstance(told.get("backbone"), str):
        raise ValueError(f"assistant is {told!r}")
    return Part(told["backbone"], _options(told.get("options", {})))


def _options(told: object) -> Mapping[str, object]:
    if not isinstance(told, dict):
        raise ValueError(f"its options are {told!r}")
    return told
