"""Whose checkpoint a file is: the backbone in it, and what its project feeds that backbone with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from facekd.errors import CheckpointError, InputError
from facekd.models.classifier_layouts import find_stored
from facekd.models.dialect_structure import Structure, blocks_seen, structure_of
from facekd.models.dialect_unwrap import Unwrapped, unwrap
from facekd.recipe.strict_yaml import YamlError, read_yaml

MAGFACE_EPSILON = 2e-5
MODEL_YAML = "model.yaml"
_MOST_YAML = 100_000
_STEP_BACKBONE = re.compile(r"\d+backbone\.pth")
_TFACE_BACKBONE = re.compile(r"Backbone_Epoch_\d+_.*")
KNOWN = (
    "known: iresnet18/34/50/100/200, ir18/34/50/101/152/200, vit_t/s/b, mobilefacenet, mobilefacenet_insightface, "
    "mobilefacenet_insightface_large, mobilefacenet_foamliu, pocketnet_s/m, resnet_tiny; or give its ONNX export"
)


@dataclass(frozen=True)
class Dialect:
    """What a checkpoint turned out to be.

    Attributes:
        structure: The backbone, its tensors under our keys, and the options its project builds it with.
        source: The project or projects that write such files.
        color: Channel order its project feeds it, or None where the file does not tell whose it is.
        normalize: Scaling its project feeds it, by its name in `preprocessing.NORMALIZATIONS`, or None.
        classifier: Class weights found beside the backbone, (classes, dim), or None.
        classes_first: Whether they are stored in that order.
        container: Keys the tensors lay under.
        prefixes: What was taken off their keys, each with the number of keys.
    """

    structure: Structure
    source: str
    color: str | None = None
    normalize: str | None = None
    classifier: Tensor | None = None
    classes_first: bool = True
    container: str = ""
    prefixes: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class _Convention:
    """Whose file it is, and what that implies."""

    source: str
    color: str | None = None
    normalize: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)


def recognise(loaded: object, where: str) -> Dialect:
    """The network in a loaded checkpoint.

    Colour and scaling are the convention of the project whose container, prefixes, keys or file name these are. A
    ``model.yaml`` beside an IR, as CVLface writes it, tells its colour.

    Args:
        loaded: The tree, as `weights.load_checkpoint` gives it.
        where: The file it came from.

    Raises:
        CheckpointError: No state dict, several networks, or one that is no backbone known here; says what was seen.
        InputError: A ``model.yaml`` that cannot be read.
    """
    unwrapped = unwrap(loaded, where)
    found = structure_of(unwrapped.state)
    if found is None:
        keys = list(unwrapped.state)
        seen = ", ".join(keys[:3]) + (" ... " + keys[-1] if len(keys) > 3 else "")
        blocks = blocks_seen(unwrapped.state)
        what = f"belongs to no backbone known here ({len(keys)} tensors: {seen}{'; ' + blocks if blocks else ''})"
        raise CheckpointError(where, what, KNOWN)
    convention = _convention(found, unwrapped, Path(where))
    classifier, classes_first = _classifier(loaded, found.embedding_size)
    return Dialect(
        replace(found, options={**found.options, **convention.options}),
        convention.source,
        convention.color,
        convention.normalize,
        classifier,
        classes_first,
        unwrapped.container,
        unwrapped.prefixes,
    )


def _classifier(loaded: object, embedding_size: int) -> tuple[Tensor | None, bool]:
    """Class weights beside a backbone as (classes, dim), and whether they lay in that order."""
    stored = find_stored(loaded)
    if stored is None or stored.tensor.dim() != 2 or embedding_size not in stored.tensor.shape:
        return None, True
    rows, columns = stored.tensor.shape
    classes_first = stored.classes_first if rows == columns else columns == embedding_size
    return (stored.tensor if classes_first else stored.tensor.T), classes_first


def _convention(found: Structure, unwrapped: Unwrapped, path: Path) -> _Convention:
    prefixes = {prefix for prefix, _ in unwrapped.prefixes}
    whole = unwrapped.container == "state_dict"
    if found.backbone.startswith("iresnet"):
        return _iresnet(prefixes, path)
    if found.backbone.startswith("ir"):
        return _older_ir(prefixes, whole) if found.options.get("older") else _ir(prefixes, whole, path)
    if found.backbone == "mobilefacenet":
        return _mobilefacenet(found, prefixes, whole)
    if found.backbone == "mobilefacenet_foamliu":
        return _Convention("foamliu MobileFaceNet", "rgb", "imagenet")
    if found.backbone.startswith("pocketnet"):
        return _Convention("PocketNet", "rgb", "half") if found.renamed else _Convention("facekd PocketNet")
    if found.backbone == "resnet_tiny":
        return _Convention("facekd resnet_tiny")
    return _Convention(f"arcface_torch {'vit' if found.backbone.startswith('vit') else 'mbf'}", "rgb", "half")


def _iresnet(prefixes: set[str], path: Path) -> _Convention:
    if "features." in prefixes:
        return _Convention("MagFace iresnet", "bgr", "unit", {"eps": MAGFACE_EPSILON})
    if "net." in prefixes:
        return _Convention("CVLface iresnet", _yaml_color(path), "half")
    if _STEP_BACKBONE.fullmatch(path.name):
        return _Convention("PocketNet or AdaDistill iresnet", "rgb", "half")
    return _Convention("arcface_torch iresnet", "rgb", "half")


def _ir(prefixes: set[str], whole: bool, path: Path) -> _Convention:
    if whole and "model." in prefixes:
        return _Convention("AdaFace IR", "bgr", "half")
    told = _yaml_color(path)
    if "net." in prefixes or told:
        return _Convention("CVLface IR", told, "half")
    if _TFACE_BACKBONE.fullmatch(path.name):
        return _Convention("TFace IR", "rgb", "half")
    return _Convention("TFace, AdaFace or CVLface IR", None, "half")


def _older_ir(prefixes: set[str], whole: bool) -> _Convention:
    if whole and "backbone." in prefixes:
        return _Convention("FaceX-Zoo Resnet", "bgr", "128")
    return _Convention("evoLVe or TreB1eN IR", "rgb", "half")


def _mobilefacenet(found: Structure, prefixes: set[str], whole: bool) -> _Convention:
    if found.renamed and whole and "backbone." in prefixes:
        return _Convention("FaceX-Zoo MobileFaceNet", "bgr", "128")
    if found.renamed or found.options["affine"]:
        return _Convention("FaceX-Zoo, evoLVe or TreB1eN MobileFaceNet")
    return _Convention("TFace or AdaDistill MobileFaceNet", "rgb", "half")


def _yaml_color(path: Path) -> str | None:
    """The colour order a ``model.yaml`` beside the file tells, in CVLface's words; None where it tells none."""
    file = path.parent / MODEL_YAML
    if not file.is_file():
        return None
    try:
        data = file.read_bytes()
        if len(data) > _MOST_YAML:
            raise InputError(str(file), f"{len(data):,} bytes are no model description", "take it away")
        document = read_yaml(data.decode("utf-8")).value
    except YamlError as error:
        raise InputError(f"{file}:{error.line}", error.what, error.fix) from None
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(str(file), f"cannot be read: {error}", "take it away") from None
    told = document.get("color_space") if isinstance(document, dict) else None
    if told is None:
        return None
    if told not in ("RGB", "BGR"):
        raise InputError(str(file), f"color_space is {told!r}", "write RGB or BGR")
    return str(told).lower()
