"""Which backbone a state dict belongs to, told by its keys and shapes alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from facekd.models import face_vit, ir, iresnet, pocketnet

_IR_WIDTHS = (64, 128, 256, 512)
_POCKETNET_PARTS = {
    "preproc0.net.": "first.",
    "preproc0.relu.": "first.prelu.",
    "preproc0.bn.": "first.bn.",
    **{f"preproc0.conv{i + 1}{k + 1}.": f"first.branches.{i}.{k}." for i in range(2) for k in range(2)},
    "preproc1.net.": "second.",
    **{f"dag.{i}.{k}.net.": f"edges.{2 * i + k}." for i in range(pocketnet.NODES) for k in range(2)},
    **{f"dag.{i}.{k}.bn.": f"edges.{2 * i + k}.1." for i in range(pocketnet.NODES) for k in range(2)},
}
"""How keys within a cell of a published PocketNet begin -> how ours do."""


@dataclass(frozen=True)
class Structure:
    """A backbone that fits a state dict.

    Attributes:
        backbone: Registered name.
        embedding_size: Width of the embedding.
        input_size: Side of the input in pixels.
        state: The tensors under our keys.
        options: Options to build the backbone with.
        renamed: Whether the keys were others before.
    """

    backbone: str
    embedding_size: int
    input_size: int
    state: Mapping[str, Tensor]
    options: Mapping[str, object] = field(default_factory=dict)
    renamed: bool = False

    @property
    def title(self) -> str:
        """What the field calls it.

        Example:
            >>> Structure("ir50", 512, 112, {}, {"se": True}).title
            'IR-SE-50'
        """
        if not self.backbone.startswith("ir") or self.backbone.startswith("iresnet"):
            return self.backbone
        name = f"IR-{'SE-' if self.options.get('se') else ''}{self.backbone.removeprefix('ir')}"
        return f"{name}, older form" if self.options.get("older") else name


def structure_of(state: Mapping[str, Tensor]) -> Structure | None:
    """The backbone whose keys these are, or None.

    Only what tells backbones apart is looked at; a tensor may still be missing, too many or misshapen.
    """
    for attempt in _ATTEMPTS:
        try:
            found = attempt(state)
        except (KeyError, IndexError, ValueError, ZeroDivisionError):
            continue
        if found is not None:
            return found
    return None


def blocks_seen(state: Mapping[str, Tensor]) -> str:
    """How many blocks an iresnet or IR has, in words; empty where it is neither.

    Example:
        >>> blocks_seen({})
        ''
    """
    blocks = _iresnet_blocks(state)
    if all(blocks) and "layer1.0.bn3.weight" in state:
        return f"an iresnet of blocks {blocks}"
    found = _ir_blocks(state)
    return f"an IR of blocks {tuple(found.values())}" if found else ""


def _iresnet_blocks(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    found = [key for key in state if key.endswith(".conv1.weight")]
    return tuple(sum(key.startswith(f"layer{stage}.") for key in found) for stage in (1, 2, 3, 4))


def _iresnet(state: Mapping[str, Tensor]) -> Structure | None:
    names: dict[tuple[int, ...], str] = {blocks: name for name, blocks in iresnet.BLOCKS.items()}
    name = names.get(_iresnet_blocks(state))
    if name is None or "layer1.0.bn3.weight" not in state or "features.running_mean" not in state:
        return None
    embedding_size, flat = state["fc.weight"].shape
    return Structure(name, embedding_size, 16 * round((flat / 512) ** 0.5), state)


def _ir_blocks(state: Mapping[str, Tensor]) -> dict[int, int]:
    """Blocks by the channels they give, in order."""
    found: Counter[int] = Counter()
    while (prefix := f"body.{sum(found.values())}.res_layer.") + "1.weight" in state:
        last = [key for key in (f"{prefix}{k}.weight" for k in "347") if key in state and state[key].dim() == 4]
        found[state[last[-1]].shape[0] if last else 0] += 1
    return dict(found)


def _ir(state: Mapping[str, Tensor]) -> Structure | None:
    blocks = _ir_blocks(state)
    bottleneck = state["body.0.res_layer.1.weight"].shape[-1] == 1
    widths = tuple(width * (ir.WIDENING if bottleneck else 1) for width in _IR_WIDTHS)
    older = "output_layer.4.weight" in state
    names: dict[tuple[int, ...], str] = {counts: name for name, counts in ir.BLOCKS.items()}
    name = names.get(tuple(blocks.values()))
    if name is None or tuple(blocks) != widths or bottleneck != (name in ir.BOTTLENECKS and not older):
        return None
    if older and name not in ir.OLDER:
        return None
    options = {"se": True} if any(key.endswith(".fc2.weight") for key in state) else {}
    embedding_size, flat = state["output_layer.3.weight"].shape
    size = 16 * round((flat / widths[-1]) ** 0.5)
    return Structure(name, embedding_size, size, state, options | ({"older": True} if older else {}))


def _face_vit(state: Mapping[str, Tensor]) -> Structure | None:
    names = {shape: name for name, shape in face_vit.SHAPES.items()}
    _, tokens, width = state["pos_embed"].shape
    depth = sum(key.endswith(".attn.qkv.weight") for key in state)
    name = names.get((width, depth))
    if name is None or state["patch_embed.proj.weight"].shape[-1] != face_vit.PATCH or "mask_token" not in state:
        return None
    side = face_vit.PATCH * round(tokens**0.5)
    size = 112 if side == 112 // face_vit.PATCH * face_vit.PATCH else side
    return Structure(name, state["feature.2.weight"].shape[0], size, state)


def _mobilefacenet_insightface(state: Mapping[str, Tensor]) -> Structure | None:
    side = state["features.layers.0.layers.0.weight"].shape[-1]
    large = tuple(state["layers.0.layers.0.weight"].shape) == (256, 3, 3, 3)
    if not large and tuple(state["layers.1.layers.0.weight"].shape) != (128, 2, 3, 3):
        return None
    name = "mobilefacenet_insightface_large" if large else "mobilefacenet_insightface"
    return Structure(name, state["features.layers.2.weight"].shape[0], 16 * side, state)


def _mobilefacenet(state: Mapping[str, Tensor]) -> Structure | None:
    renamed = "conv_6_dw.conv.weight" in state  # TreB1eN and FaceX-Zoo leave the head's modules at the top
    if renamed:
        head = ("conv_6_dw.", "linear.", "bn.")
        state = {f"output_layer.{key}" if key.startswith(head) else key: value for key, value in state.items()}
    width = state["conv_6_sep.conv.weight"].shape[0] / 512
    side = state["output_layer.conv_6_dw.conv.weight"].shape[-1]
    activation = "prelu" if "conv1.prelu.weight" in state else "relu"
    options = {"width": width, "activation": activation, "affine": "output_layer.bn.weight" in state}
    embedding_size = state["output_layer.linear.weight"].shape[0]
    return Structure("mobilefacenet", embedding_size, 16 * side, state, options, renamed)


def _mobilefacenet_foamliu(state: Mapping[str, Tensor]) -> Structure | None:
    side = state["gdconv.depthwise.weight"].shape[-1]
    if "dw_conv.pointwise.weight" not in state or "features.0.conv.0.0.weight" not in state:
        return None
    return Structure("mobilefacenet_foamliu", state["conv3.weight"].shape[0], 16 * side, state)


def _pocketnet(state: Mapping[str, Tensor]) -> Structure | None:
    renamed = "cells.0.preproc1.net.1.weight" in state
    if renamed:
        state = {_pocketnet_key(key): value for key, value in state.items()}
    names = {shape: f"pocketnet_{size}" for size, shape in pocketnet.SIZES.items()}
    cells = sum(key.startswith("cells.") and key.endswith(".second.1.weight") for key in state)
    name = names.get((state["stem.0.weight"].shape[0] // pocketnet.NODES, cells))
    if name is None:
        return None
    side = state["tail.4.weight"].shape[-1]
    return Structure(name, state["tail.6.weight"].shape[0], 16 * side, state, renamed=renamed)


def _pocketnet_key(key: str) -> str:
    """A key of the published files in our words.

    Example:
        >>> _pocketnet_key("cells.6.dag.2.1.net.0.weight"), _pocketnet_key("cells.7.preproc0.conv21.weight")
        ('cells.6.edges.5.0.weight', 'cells.7.first.branches.1.0.weight')
    """
    for theirs, ours in _POCKETNET_PARTS.items():
        key = key.replace(f".{theirs}", f".{ours}")
    return key


def _resnet_tiny(state: Mapping[str, Tensor]) -> Structure | None:
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
    return Structure("resnet_tiny", state["linear.weight"].shape[0], size, state, options)


_ATTEMPTS: tuple[Callable[[Mapping[str, Tensor]], Structure | None], ...] = (
    _iresnet,
    _ir,
    _face_vit,
    _mobilefacenet_insightface,
    _mobilefacenet,
    _mobilefacenet_foamliu,
    _pocketnet,
    _resnet_tiny,
)
