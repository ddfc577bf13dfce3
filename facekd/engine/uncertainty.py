"""How sure a student is of each image: its variance head beside it, in runs and in stored embeddings."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facekd.data.identities import IdentitySource
from facekd.engine.embed import Passes, StoredEmbeddings, embed_images, save_embeddings
from facekd.engine.embed_file import embed_rows, partial_folder
from facekd.engine.evaluation.uncertain_pairs import Seen
from facekd.engine.resumable import Watched
from facekd.engine.training.session import Session
from facekd.errors import NonFiniteError, UsageError
from facekd.files import value_digest
from facekd.metrics.uncertainty import harmonic_mean_variance, uncertainty_spread
from facekd.models.embedder import Embedder, TorchEmbedder, model_file, precision_of
from facekd.models.heads import VarianceHead
from facekd.models.preprocessing import Preprocessing
from facekd.models.uncertainty_file import UNCERTAINTY_FILE, load_head, save_head

LEAST_SPREAD = 0.01
"""Standard deviation of the log uncertainty of images below which they are called equal: one per cent."""
LOOKED_AT = 128
"""Training images the spread is measured on."""


@dataclass(frozen=True)
class WithVariance:
    """A model whose rows are its embedding and, after it, the log variance read off it; else that of `Embedder`.

    Args:
        model: The model.
        head: Reads its embeddings, on the device they come out on.
    """

    model: Embedder
    head: VarianceHead

    @property
    def name(self) -> str:
        """That of the model."""
        return self.model.name

    @property
    def digest(self) -> str:
        """Of the model and the head."""
        held = {key: value_digest(value.tolist()) for key, value in self.head.state_dict().items()}
        return value_digest({"model": self.model.digest, "head": held})

    @property
    def embedding_size(self) -> int:
        """Width of a row."""
        return self.model.embedding_size + self.head.outputs

    @property
    def preprocessing(self) -> Preprocessing:
        """That of the model."""
        return self.model.preprocessing

    @property
    def metadata(self) -> dict[str, str]:
        """That of the model."""
        return self.model.metadata

    @property
    def warnings(self) -> tuple[str, ...]:
        """Those of the model."""
        return self.model.warnings

    @property
    def parameters(self) -> int:
        """Those of the model."""
        return self.model.parameters

    @property
    def precision(self) -> str:
        """That of the model."""
        return precision_of(self.model)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        """uint8 RGB (batch, 3, height, width) to float32 (batch, dim + outputs)."""
        embeddings = self.model.embed(images)
        return torch.cat([embeddings, self.head(embeddings)], dim=1)


def bare(model: Embedder) -> Embedder:
    """The model without its head: what it is called, its digest, and as many columns of a row as are the embedding.

    Args:
        model: A model, or a model with its head.
    """
    return model.model if isinstance(model, WithVariance) else model


def with_variance(model: Embedder, path: Path) -> WithVariance:
    """A model with the head that its run trained beside it.

    Args:
        model: The model, opened.
        path: Where it lies: a run folder, or the student's file in one.

    Raises:
        UsageError: No head lies beside it, or a model that is no PyTorch student.
        CheckpointError: The head is damaged, or of another student.
    """
    place = model_file(path).parent / UNCERTAINTY_FILE if path.exists() else path
    if not isinstance(model, TorchEmbedder) or not place.is_file() or not path.exists():
        what = f"has no {UNCERTAINTY_FILE} beside it, so it cannot say how sure it is"
        raise UsageError(str(path), what, "give a run trained with dul, dul_regression, pfe or pad")
    return WithVariance(model, load_head(place, model.digest).to(model.device))


def embed_with_uncertainty(
    model: WithVariance, source: IdentitySource, output: Path, *, passes: Passes, watched: Watched
) -> None:
    """`embed_to_file` with the arrays ``log_variance`` and ``uncertainty`` beside the embeddings.

    With ``flip`` the log variance is the mean of those of the image and its mirror.

    Args:
        model: The model with its head.
        source: The data set.
        output: The ``.npz`` file.
        passes: How.
        watched: Progress and stopping.

    Raises:
        FacekdError: As `embed_to_file`; a variance that is not finite is refused as an embedding is.
    """
    width = model.model.embedding_size
    rows = embed_rows(model, source, output, width, passes=passes, watched=watched)
    seen = parted(model, rows, source.sample_name, flip=passes.flip)
    names = [source.sample_name(index) for index in range(len(source))]
    stored = StoredEmbeddings(
        seen.embeddings,
        source.labels,
        names,
        source.names,
        model.name,
        model.model.digest,
        passes.flip,
        seen.log_variance,
        precision=precision_of(model),
    )
    save_embeddings(output, stored)
    shutil.rmtree(partial_folder(output), ignore_errors=True)


def parted(model: WithVariance, rows: np.ndarray, name: Callable[[int], str], *, flip: bool) -> Seen:
    """Embeddings and log variances out of the rows a model gave.

    Args:
        model: The model with its head.
        rows: (n, dim + outputs), those of the mirrored images added where ``flip``.
        name: Of image i, for messages.
        flip: Whether they were; the log variance is then the mean of both.

    Raises:
        NonFiniteError: A variance is not finite.
    """
    width = model.model.embedding_size
    log_variance = rows[:, width:] * np.float32(0.5 if flip else 1.0)
    bad = np.flatnonzero(~np.isfinite(log_variance).all(axis=1))
    if len(bad):
        what = f"the variance of {name(int(bad[0]))} is not finite, {len(bad)} of {len(rows)}"
        raise NonFiniteError(model.name, what, "check the weights")
    return Seen(rows[:, :width], log_variance)


def save_uncertainty(session: Session, path: Path, student_digest: str) -> None:
    """Write the head of a run, where it trains one: the average of its weights where the student's average is kept.

    Raises:
        NonFiniteError: A value is NaN or infinite.
        DeviceError: The disk refused.
    """
    if session.deployed_head is not None:
        loss = next(loss.name for loss in session.recipe.losses if "variance_head" in loss.needs())
        save_head(path, session.deployed_head, student_digest=student_digest, loss=loss)


def spread_lines(session: Session) -> list[str]:
    """What a user should know of the uncertainty a run learned: nothing where it learned none.

    Looks at a few training images as they are; all of them equally sure is a warning.
    """
    if session.deployed_head is None:
        return []
    student = TorchEmbedder(
        module=session.deployed.eval(),
        name=session.recipe.name,
        digest="",
        embedding_size=session.architecture.width,
        preprocessing=session.preprocessing,
        metadata={},
        device=session.device,
    )
    model = WithVariance(student, session.deployed_head.eval())
    count = min(LOOKED_AT, len(session.source))
    chosen = np.linspace(0, len(session.source) - 1, count).astype(int).tolist()
    rows = embed_images(model, lambda index: session.source.read(chosen[index]), count, flip=False)
    log_variance = rows[:, student.embedding_size :]
    if not np.isfinite(log_variance).all():
        return ["warning: the learned variance is not finite on training images; lower optimizer.learning_rate"]
    spread, middle = uncertainty_spread(log_variance), float(harmonic_mean_variance(log_variance).log().mean())
    line = f"uncertainty: mean log variance {middle:.3f}, spread {spread:.3f} over {count} training images"
    if spread >= LEAST_SPREAD:
        return [line]
    why = f"below {LEAST_SPREAD:g}: every image is called equally sure, so the variances tell nothing"
    return [f"warning: {line}; {why} (train longer, write head: mlp, or add data.augment.blur and downscale)"]
