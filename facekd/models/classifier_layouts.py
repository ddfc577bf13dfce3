"""How margin-softmax class weights lie in the files of the systems that train them: file names, keys, orientation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from re import Pattern

from torch import Tensor

DEEPEST = 6
_WRAPPERS = re.compile(r"(?:(?:state_dict|model|net|head|module|_orig_mod)\.)*?")
_PLAIN_TENSOR = "a plain tensor"


@dataclass(frozen=True)
class Layout:
    """Class weights that are told by the name of their files.

    Attributes:
        source: Who writes them, in words.
        pattern: The whole file name; its groups ``set`` and ``rank`` tell which shard of which whole it is.
        classes_first: Whether a shard is (classes, dim); None where its key tells.
        padded: Whether rows are added at the end so that all shards are equal.
    """

    source: str
    pattern: Pattern[str]
    classes_first: bool | None = None
    padded: bool = False


LAYOUTS = (
    Layout("arcface_torch partial FC v2", re.compile(r"checkpoint_gpu_(?P<rank>\d+)\.pt"), True),
    Layout("arcface_torch partial FC v1", re.compile(r"rank[_:](?P<rank>\d+)_softmax_weight\.pt"), True),
    Layout("CVLface partial FC", re.compile(r"classifier_rank(?P<rank>\d+)\.pt"), True, padded=True),
    Layout("TFace head", re.compile(r"HEAD_Epoch_(?P<set>\d+)(?:_Split_(?P<rank>\d+))?_checkpoint\.pth"), False),
    Layout("AdaDistill or PocketNet header", re.compile(r"(?P<set>\d+)header\.pth"), False),
    Layout("evoLVe head", re.compile(r"(?P<set>Head_.+)\.pth")),
    Layout("facekd", re.compile(r"classifier\.safetensors"), True),
)
MOMENTUM = re.compile(r"rank[_:]\d+_softmax_weight_mom\.pt")
KNOWN_FILES = (
    "checkpoint_gpu_R.pt, rank_R_softmax_weight.pt, classifier_rankR.pt, HEAD_Epoch_E_Split_R_checkpoint.pth, "
    "STEPheader.pth, Head_NAME.pth, classifier.safetensors"
)


@dataclass(frozen=True)
class _Key:
    """A key that holds class weights, where another key stands beside it."""

    key: str
    classes_first: bool
    source: str
    beside: Pattern[str] | None = None


_KEYS = (
    _Key("state_dict_softmax_fc.weight", True, "arcface_torch partial FC v2"),
    _Key("partial_fc.weight", True, "CVLface partial FC"),
    _Key("head.kernel", False, "AdaFace checkpoint"),
    _Key("head.weight", False, "FaceX-Zoo checkpoint", re.compile(r"backbone\..")),
    _Key("fc.weight", False, "MagFace checkpoint", re.compile(r"features\.(?:module\.)?layer1\.")),
    _Key("kernel", False, "header"),
    _Key("weight", True, "head"),
)
_ALONE = ("kernel", "weight")


@dataclass(frozen=True)
class Stored:
    """Class weights as one file holds them.

    Attributes:
        tensor: Two axes, classes and embedding, in some order.
        classes_first: The order its source uses, for where the sizes do not tell.
        source: Who writes such files, in words.
    """

    tensor: Tensor
    classes_first: bool
    source: str


def layout_of(name: str) -> tuple[Layout, str, int] | None:
    """What a file's name says: its layout, which set of files it belongs to, and its rank there.

    Example:
        >>> found = layout_of("HEAD_Epoch_7_Split_2_checkpoint.pth")
        >>> found[0].source, found[1:]
        ('TFace head', ('7', 2))
        >>> layout_of("model.pt") is None
        True
    """
    for layout in LAYOUTS:
        if match := layout.pattern.fullmatch(name):
            groups = match.groupdict()
            return layout, groups.get("set") or "", int(groups.get("rank") or 0)
    return None


def find_stored(tree: object, layout: Layout | None = None) -> Stored | None:
    """The class weights in a loaded checkpoint, of a known layout or told by their key.

    A backbone's own last layer is not mistaken for a classifier: ``head.weight`` counts beside ``backbone.``,
    ``fc.weight`` beside the layers of ``features.``, ``kernel`` and ``weight`` where no other matrix is.

    Args:
        tree: From `weights.load_checkpoint`.
        layout: What the file's name said.

    Returns:
        None where there are none, or several that could be meant.

    Example:
        >>> import torch
        >>> found = find_stored({"state_dict": {"model.conv.weight": torch.ones(2, 3, 1, 1),
        ...                                     "head.kernel": torch.ones(4, 9)}})
        >>> found.source, found.classes_first
        ('AdaFace checkpoint', False)
        >>> find_stored({"conv1.weight": torch.ones(2, 3, 1, 1), "fc.weight": torch.ones(4, 9)}) is None
        True
    """
    tensors = dict(_tensors(tree))
    matrices = {key: tensor for key, tensor in tensors.items() if tensor.dim() == 2}
    found = _by_key(tensors, matrices)
    if found is None and layout is not None and len(matrices) == 1:
        (tensor,) = matrices.values()
        found = Stored(tensor, True, layout.source)
    if found is None or layout is None:
        return found
    first = found.classes_first if layout.classes_first is None else layout.classes_first
    return Stored(found.tensor, first, layout.source)


def holds(tree: object) -> str:
    """What a checkpoint holds, in a few words, for a refusal.

    Example:
        >>> import torch
        >>> holds({"a": {"b": torch.ones(2, 3)}})
        'one tensor: a.b (2, 3)'
    """
    tensors = dict(_tensors(tree))
    shown = ", ".join(f"{key or 'itself'} {tuple(tensor.shape)}" for key, tensor in list(tensors.items())[:3])
    count = "one tensor" if len(tensors) == 1 else f"{len(tensors)} tensors"
    return f"{count}: {shown}{' ...' if len(tensors) > 3 else ''}" if tensors else "no tensors"


def _tensors(tree: object, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under keys of text, by its dotted key; what lies in lists belongs to optimizers and is left."""
    if isinstance(tree, Tensor):
        yield prefix, tree
    elif isinstance(tree, Mapping) and depth < DEEPEST:
        for key, value in tree.items():
            if isinstance(key, str) and key != "state_optimizer":
                yield from _tensors(value, f"{prefix}.{key}" if prefix else key, depth + 1)


def _by_key(tensors: Mapping[str, Tensor], matrices: Mapping[str, Tensor]) -> Stored | None:
    if list(tensors) == [""]:
        return Stored(tensors[""], True, _PLAIN_TENSOR)
    for wanted in _KEYS:
        whole = re.compile(_WRAPPERS.pattern + re.escape(wanted.key))
        hits = [key for key in matrices if whole.fullmatch(key)]
        if wanted.key in _ALONE and len(matrices) > 1:
            continue
        if len(hits) == 1 and (wanted.beside is None or any(wanted.beside.search(key) for key in tensors)):
            return Stored(matrices[hits[0]], wanted.classes_first, wanted.source)
    return None
