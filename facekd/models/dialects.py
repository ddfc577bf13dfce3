"""Which backbone a bare state dict belongs to, told by its keys and shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from facekd.errors import CheckpointError
from facekd.models.iresnet import BLOCKS

_PREFIXES = ("module.", "_orig_mod.", "backbone.")
_CONTAINERS = ("state_dict_backbone", "state_dict", "model", "backbone", "net")
_CLASSIFIER_KEYS = ("head.", "header.")


@dataclass(frozen=True)
class Dialect:
    """What a state dict turned out to be.

    Args:
        backbone: Registered name.
        embedding_size: Width of the embedding.
        input_size: Side of the input in pixels; 16 times that of the last feature map.
        state: The tensors under our keys.
        options: Options to build the backbone with.
    """

    backbone: str
    embedding_size: int
    input_size: int
    state: Mapping[str, Tensor]
    options: Mapping[str, object] = field(default_factory=dict)


def unwrap(loaded: object, where: str) -> dict[str, Tensor]:
    """The tensors of a loaded checkpoint: out of a container, without the prefixes of wrappers.

    A container is a dict with the state dict below ``state_dict_backbone``, ``state_dict``, ``model``, ``backbone`` or
    ``net``. The prefixes ``module.``, ``_orig_mod.`` and ``backbone.`` go where every key has them; a classifier
    (``head.``) beside ``backbone.`` is left out.

    Raises:
        CheckpointError: No state dict in it.

    Example:
        >>> import torch
        >>> list(unwrap({"state_dict": {"module.a": torch.ones(1)}}, "x.pt"))
        ['a']
    """
    for key in _CONTAINERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(where, f"holds {_describe(loaded)}, not a state dict", "save model.state_dict()")
    odd = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
    if odd:
        what = f"{odd[0]} is no tensor ({len(odd)} such entries, {len(loaded)} in all)"
        raise CheckpointError(where, what, "save model.state_dict() alone")
    return _strip({str(key): value for key, value in loaded.items()})


def _describe(loaded: object) -> str:
    return "nothing" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"


def _strip(state: dict[str, Tensor]) -> dict[str, Tensor]:
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            rest = [key for key in state if not key.startswith(prefix)]
            beside = prefix == "backbone." and all(key.startswith(_CLASSIFIER_KEYS) for key in rest)
            if len(rest) < len(state) and (not rest or beside):
                state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
                stripped = True
    return state


def recognise(state: Mapping[str, Tensor], where: str) -> Dialect:
    """The backbone a state dict belongs to.

    Args:
        state: Tensors by key, as `unwrap` leaves them.
        where: File named in the refusal.

    Raises:
        CheckpointError: No backbone known here has such keys; says what was seen.
    """
    for attempt in (_iresnet, _mobilefacenet_insightface, _mobilefacenet, _resnet_tiny):
        try:
            found = attempt(state)
        except (KeyError, IndexError):
            continue
        if found is not None:
            return found
    keys = list(state)
    seen = ", ".join(keys[:3]) + (" ... " + keys[-1] if len(keys) > 3 else "")
    what = f"belongs to no backbone known here ({len(keys)} tensors: {seen}{_blocks_seen(state)})"
    fix = (
        "known: iresnet18/34/50/100/200, mobilefacenet, mobilefacenet_insightface, resnet_tiny; or give its ONNX export"
    )
    raise CheckpointError(where, what, fix)


def _iresnet_blocks(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    found = [key for key in state if key.endswith(".conv1.weight")]
    return tuple(sum(key.startswith(f"layer{stage}.") for key in found) for stage in (1, 2, 3, 4))


def _blocks_seen(state: Mapping[str, Tensor]) -> str:
    blocks = _iresnet_blocks(state)
    return f"; an iresnet of blocks {blocks}" if all(blocks) and "layer1.0.bn3.weight" in state else ""


def _iresnet(state: Mapping[str, Tensor]) -> Dialect | None:
    names: dict[tuple[int, ...], str] = {blocks: name for name, blocks in BLOCKS.items()}
    name = names.get(_iresnet_blocks(state))
    if name is None or "layer1.0.bn3.weight" not in state or "features.running_mean" not in state:
        return None
    embedding_size, flat = state["fc.weight"].shape
    return Dialect(name, embedding_size, 16 * round((flat / 512) ** 0.5), state)


def _mobilefacenet_insightface(state: Mapping[str, Tensor]) -> Dialect | None:
    if tuple(state["layers.1.layers.0.weight"].shape) != (128, 2, 3, 3):
        return None
    side = state["features.layers.0.layers.0.weight"].shape[-1]
    return Dialect("mobilefacenet_insightface", state["features.layers.2.weight"].shape[0], 16 * side, state)


def _mobilefacenet(state: Mapping[str, Tensor]) -> Dialect | None:
    if "conv_6_dw.conv.weight" in state:  # FaceX-Zoo leaves the head's modules at the top
        head = ("conv_6_dw.", "linear.", "bn.")
        state = {f"output_layer.{key}" if key.startswith(head) else key: value for key, value in state.items()}
    width = state["conv_6_sep.conv.weight"].shape[0] / 512
    side = state["output_layer.conv_6_dw.conv.weight"].shape[-1]
    activation = "prelu" if "conv1.prelu.weight" in state else "relu"
    options = {"width": width, "activation": activation, "affine": "output_layer.bn.weight" in state}
    return Dialect("mobilefacenet", state["output_layer.linear.weight"].shape[0], 16 * side, state, options)


def _resnet_tiny(state: Mapping[str, Tensor]) -> Dialect | None:
    channels: list[int] = []
    blocks: list[int] = []
    while (key := f"stages.{sum(blocks)}.conv1.0.weight") in state:
        if f"stages.{sum(blocks)}.shortcut.0.weight" in state:
            channels.append(state[key].shape[0])
            blocks.append(0)
        blocks[-1] += 1
    side = state["pool.0.weight"].shape[-1]
    options = {
        "channels": ",".join(map(str, channels)),
        "blocks": ",".join(map(str, blocks)),
        "activation": "prelu" if "stem.2.weight" in state else "relu",
    }
    size = side * 2 ** (1 + len(channels))
    return Dialect("resnet_tiny", state["linear.weight"].shape[0], size, state, options)
