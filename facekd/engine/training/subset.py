"""A teacher of some of the identities of a run."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from facekd.data.subset import SubsetSource
from facekd.engine.training.inheritance import Classifier
from facekd.engine.training.outputs import SubsetSizes
from facekd.models.embedder import Embedder
from facekd.recipe.subset_sections import SubsetTeacher


@dataclass(frozen=True)
class Subset:
    """A teacher with the images it is asked about.

    Attributes:
        section: What the recipe says of it.
        teacher: The model.
        source: The training images of its identities.
        cached: Its embeddings ``(images, views, dim)`` of what the steps show, where they were computed before.
        classifier: Its class weights in the order of the names of ``source``, and their proof, where a loss needs them.
    """

    section: SubsetTeacher
    teacher: Embedder
    source: SubsetSource
    cached: np.ndarray | None = None
    classifier: Classifier | None = None

    def sizes(self) -> SubsetSizes:
        """What a loss is built from."""
        return SubsetSizes(
            name=self.section.name,
            teacher_size=self.teacher.embedding_size,
            images=len(self.source),
            columns=torch.from_numpy(self.source.columns),
            share=self.section.share,
            class_weights=None if self.classifier is None else self.classifier.class_weights,
        )

    def facts(self) -> dict[str, object]:
        """What a student file says of it."""
        told: dict[str, object] = {
            "name": self.section.name,
            "digest": self.teacher.digest,
            "licence": self.section.licence,
            "identities": len(self.source.names),
            "images": len(self.source),
            "data_digest": self.source.digest,
        }
        if self.classifier is not None:
            told |= {"classifier": self.classifier.source, "agreement": round(self.classifier.agreement, 4)}
        return told
