"""What a model file is: whose, which backbone, what it expects of its images, and whether it works."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facekd.engine.evaluation.evaluation_sets import open_set
from facekd.engine.nearest import KeyTable, nearest_backbone
from facekd.engine.probe import LEAST_PEOPLE, Probe, people_of_set, probe_preprocessing
from facekd.engine.progress import Progress
from facekd.engine.signals import Poll
from facekd.errors import FacekdError, InputError
from facekd.model_names import HUB_PREFIX, is_model_name
from facekd.models import weights
from facekd.models.dialect_structure import structure_of
from facekd.models.dialect_unwrap import unwrap
from facekd.models.dialects import Dialect, recognise
from facekd.models.embedder import Embedder, load_embedder, model_file
from facekd.models.opening import self_test, self_test_images
from facekd.models.preprocessing import NORMALIZATIONS, Preprocessing
from facekd.models.remote import hub_file

PASSED = "passed"
NOBODY = "nobody"
_FALLBACK = ("rgb", "half")


@dataclass(frozen=True)
class TeacherInspection:
    """Everything a model file tells, as far as it could be read.

    Attributes:
        model: As it was asked for.
        kind: What sort of file it is.
        digest: SHA-256 of the file in hex; of the tensors for a model of timm.
        source: Whose file it is; empty where unknown.
        backbone: Registered name of the backbone; empty where unknown.
        title: What the field calls the backbone.
        embedding_size: Width of the embedding; 0 where unknown.
        size: (height, width) of the input; zeros where unknown.
        tensors: Stored tensors; 0 where they are not counted.
        parameters: Values in the parameters; 0 where unknown.
        container: Keys the tensors lie under.
        prefixes: What was taken off their keys, with the number of keys.
        color: Channel order; None where nobody says it.
        normalize: Name of the scaling, or ``its own``; None where nobody says it.
        preprocessing_source: Who says these: ``file``, ``user``, ``dialect <source>`` or ``nobody``.
        classifier: Class weights beside the backbone: classes, width and stored order; None where there are none.
        metadata: What the file says of itself.
        warnings: What a user should know, a line each.
        self_test: ``passed``, or why not.
        lengths: Of the embeddings of two made-up pictures; both 1 where the model normalises them itself.
        mirrors: Whether an image and its mirror have one embedding, so that the model sees both itself.
        keys: Differences from the backbone it is, or is nearest to; None where there are none.
        problem: Why it cannot be used as a teacher; None where it can.
        embedder: The model, where it works; under a guess where nobody says what it expects.
    """

    model: str
    kind: str
    digest: str = ""
    source: str = ""
    backbone: str = ""
    title: str = ""
    embedding_size: int = 0
    size: tuple[int, int] = (0, 0)
    tensors: int = 0
    parameters: int = 0
    container: str = ""
    prefixes: tuple[tuple[str, int], ...] = ()
    color: str | None = None
    normalize: str | None = None
    preprocessing_source: str = NOBODY
    classifier: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    self_test: str = "not run"
    lengths: tuple[float, ...] = ()
    mirrors: bool = False
    keys: KeyTable | None = None
    problem: FacekdError | None = None
    embedder: Embedder | None = None

    def as_dict(self) -> dict[str, Any]:
        """All of it as JSON takes it."""
        plain = {key: value for key, value in vars(self).items() if key not in ("keys", "problem", "embedder")}
        return {
            **plain,
            "prefixes": [list(pair) for pair in self.prefixes],
            "size": list(self.size),
            "lengths": list(self.lengths),
            "metadata": dict(self.metadata),
            "warnings": list(self.warnings),
            "keys": None if self.keys is None else self.keys.as_dict(),
            "problem": None if self.problem is None else str(self.problem),
        }


def inspect_teacher(model: Path, color: str | None = None, normalize: str | None = None) -> TeacherInspection:
    """Look at a model without needing it to be whole.

    Args:
        model: A path or name, as `load_embedder` takes it.
        color: What the user says of the colour order.
        normalize: What the user says of the scaling.

    Raises:
        InputError: Nothing there, or no file that holds tensors. What is wrong with the tensors is in ``problem``.
    """
    name = str(model)
    if is_model_name(model) and not name.startswith(HUB_PREFIX):
        opened = load_embedder(model, color=color, normalize=normalize)
        return _working(TeacherInspection(name, "timm model", metadata=opened.metadata), opened)
    file = hub_file(name) if is_model_name(model) else model_file(model)
    if file.suffix == ".onnx":
        return _onnx(TeacherInspection(name, "ONNX"), file, color, normalize)
    data = weights.read_bytes(file)
    tree, metadata = weights.decode(data, file)
    kind = "safetensors" if file.suffix == ".safetensors" else "PyTorch checkpoint"
    found = TeacherInspection(name, kind, hashlib.sha256(data).hexdigest(), metadata=metadata)
    if "format" in metadata and isinstance(tree, dict):
        found = replace(found, kind=f"{kind} of facekd", tensors=len(tree))
        try:
            return _working(found, load_embedder(file, color=color, normalize=normalize))
        except FacekdError as problem:
            return replace(found, problem=problem)
    return _foreign(found, tree, file, color, normalize)


def _foreign(
    found: TeacherInspection, tree: object, file: Path, color: str | None, normalize: str | None
) -> TeacherInspection:
    where = str(file)
    try:
        dialect = recognise(tree, where)
    except FacekdError as problem:
        return _unknown(replace(found, problem=problem), tree, where)
    structure = dialect.structure
    found = replace(
        found,
        source=dialect.source,
        backbone=structure.backbone,
        title=structure.title,
        embedding_size=structure.embedding_size,
        size=(structure.input_size, structure.input_size),
        tensors=len(structure.state),
        container=dialect.container,
        prefixes=dialect.prefixes,
        color=color or dialect.color,
        normalize=normalize or dialect.normalize,
        preprocessing_source="user" if color or normalize else f"dialect {dialect.source}",
        classifier=_classifier(dialect),
    )
    try:
        return _settled(found, file, color, normalize)
    except FacekdError as problem:
        return replace(found, problem=problem, keys=nearest_backbone(structure.state))


def _classifier(dialect: Dialect) -> dict[str, Any] | None:
    if dialect.classifier is None:
        return None
    classes, width = dialect.classifier.shape
    return {
        "classes": classes,
        "width": width,
        "stored": "classes x width" if dialect.classes_first else "width x classes",
    }


def _unknown(found: TeacherInspection, tree: object, where: str) -> TeacherInspection:
    """What can be said of tensors that are no backbone known here."""
    try:
        unwrapped = unwrap(tree, where)
    except FacekdError:
        return found
    state: Mapping[str, Tensor] = unwrapped.state
    keys = None if structure_of(state) else nearest_backbone(state)
    return replace(found, tensors=len(state), container=unwrapped.container, prefixes=unwrapped.prefixes, keys=keys)


def _onnx(found: TeacherInspection, file: Path, color: str | None, normalize: str | None) -> TeacherInspection:
    try:
        working = _settled(found, file, color, normalize)
        said = {} if working.embedder is None else dict(working.embedder.metadata)
        said.pop("preprocessing_source", None)
        return replace(working, metadata=said)
    except FacekdError as problem:
        return replace(found, digest=hashlib.sha256(weights.read_bytes(file)).hexdigest(), problem=problem)


def _settled(found: TeacherInspection, file: Path, color: str | None, normalize: str | None) -> TeacherInspection:
    """Opened as it is; where nobody says what it expects, by a guess that is not told as its own."""
    try:
        return _working(found, load_embedder(file, color=color, normalize=normalize))
    except InputError:
        open_color, open_normalize = color or found.color, normalize or found.normalize
        if open_color and open_normalize:
            raise
    guess = (open_color or _FALLBACK[0], open_normalize or _FALLBACK[1])
    working = _working(found, load_embedder(file, color=guess[0], normalize=guess[1]))
    source = found.preprocessing_source if open_color or open_normalize else NOBODY
    return replace(working, color=open_color, normalize=open_normalize, preprocessing_source=source)


def _working(found: TeacherInspection, embedder: Embedder) -> TeacherInspection:
    preprocessing = embedder.preprocessing
    try:
        self_test(embedder.embed, preprocessing.size, found.model)
        tested = PASSED
    except InputError as problem:
        tested = problem.what
    backbone = embedder.metadata.get("backbone", "")
    lengths, mirrors = _habits(embedder)
    return replace(
        found,
        digest=embedder.digest,
        source=found.source or embedder.metadata.get("dialect", ""),
        backbone=backbone,
        title=found.title or backbone,
        embedding_size=embedder.embedding_size,
        size=preprocessing.size,
        parameters=embedder.parameters,
        color=preprocessing.color,
        normalize=scaling_name(preprocessing),
        preprocessing_source=embedder.metadata["preprocessing_source"],
        warnings=embedder.warnings,
        self_test=tested,
        lengths=lengths,
        mirrors=mirrors,
        embedder=embedder,
    )


def _habits(embedder: Embedder) -> tuple[tuple[float, ...], bool]:
    """Lengths of the embeddings of two pictures, and whether their mirrors have the same."""
    pictures = self_test_images(embedder.preprocessing.size)
    seen, mirrored = embedder.embed(pictures).cpu(), embedder.embed(pictures.flip(-1)).cpu()
    lengths = tuple(round(length, 4) for length in seen.norm(dim=1).tolist())
    return lengths, torch.allclose(seen, mirrored, rtol=1e-3, atol=1e-3 * float(seen.abs().max()))


def scaling_name(preprocessing: Preprocessing) -> str:
    """Name of a scaling, or ``its own``.

    Example:
        >>> scaling_name(Preprocessing.named("128", "bgr"))
        '128'
    """
    size, color = preprocessing.size, preprocessing.color
    names = [name for name in NORMALIZATIONS if Preprocessing.named(name, color, size) == preprocessing]
    return names[0] if names else "its own"


def probe_teacher(
    found: TeacherInspection,
    data: Path,
    images: Path | None,
    people: int,
    *,
    progress: Progress | None = None,
    poll: Poll | None = None,
) -> Probe:
    """Try every colour order and scaling of an inspected model on people it must tell apart.

    Args:
        found: A model that works.
        data: Faces with identities, or a verification set.
        images: Root of the paths in a list.
        people: Most people to try.
        progress: Told how many images are done.
        poll: Called between batches; may raise to stop.

    Raises:
        InputError: The set cannot be used, or shows fewer than 20 people twice.
        DataError: An image that cannot be read.
    """
    if found.embedder is None:
        raise ValueError(f"{found.model} does not work")
    opened = open_set(data, images=images)
    pairs = people_of_set(opened, most=people)
    if len(pairs) < LEAST_PEOPLE:
        what = f"shows {len(pairs)} people at least twice, fewer than {LEAST_PEOPLE}"
        raise InputError(str(data), what, "give a set of more people")
    return probe_preprocessing(found.embedder, opened.images.read, pairs, progress=progress, poll=poll)
