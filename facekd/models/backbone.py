"""Backbones by name: our own, and any timm model behind one adapter."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from facekd.errors import InputError, UsageError
from facekd.model_names import TIMM_PREFIX
from facekd.models import face_vit, ir, iresnet, mobilefacenet, mobilefacenet_foamliu, pocketnet, resnet_tiny
from facekd.registry import Registry, did_you_mean

BACKBONES: Registry[Callable[..., nn.Module]] = Registry("backbone")
for _factory in (
    iresnet.iresnet18,
    iresnet.iresnet34,
    iresnet.iresnet50,
    iresnet.iresnet100,
    iresnet.iresnet200,
    ir.ir18,
    ir.ir34,
    ir.ir50,
    ir.ir101,
    ir.ir152,
    ir.ir200,
    face_vit.vit_t,
    face_vit.vit_s,
    face_vit.vit_b,
    mobilefacenet.mobilefacenet,
    mobilefacenet.mobilefacenet_insightface,
    mobilefacenet.mobilefacenet_insightface_large,
    mobilefacenet_foamliu.mobilefacenet_foamliu,
    resnet_tiny.resnet_tiny,
    pocketnet.pocketnet_s,
    pocketnet.pocketnet_m,
):
    BACKBONES.register(_factory.__name__)(_factory)

_SMALLEST_INPUT = 32


def build_backbone(
    name: str, *, embedding_size: int = 512, input_size: int = 112, options: Mapping[str, object] | None = None
) -> nn.Module:
    """A freshly initialised backbone.

    Args:
        name: A registered name, or ``timm/<name>`` for any model timm knows.
        embedding_size: Width of the embedding.
        input_size: Side of the square input in pixels, at least 32.
        options: The backbone's own options by name, as in a recipe's ``student.options``.

    Returns:
        A module from float (batch, 3, input_size, input_size) to the raw embedding (batch, embedding_size).

    Raises:
        UsageError: An unknown name or option, a size out of range, or a timm model that cannot serve.

    Example:
        >>> net = build_backbone("mobilefacenet", embedding_size=64, input_size=64, options={"width": 0.5}).eval()
        >>> net(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 64])
        >>> build_backbone("iresnet")
        Traceback (most recent call last):
        facekd.errors.UsageError: iresnet: unknown backbone (did you mean iresnet50 or iresnet34 or iresnet18?)
    """
    options = options or {}
    if embedding_size < 1:
        raise UsageError("embedding_size", f"{embedding_size} is not a positive width")
    if input_size < _SMALLEST_INPUT:
        raise UsageError("input_size", f"{input_size} pixels is too small", f"at least {_SMALLEST_INPUT}")
    if name.startswith(TIMM_PREFIX):
        if options:
            raise UsageError(name, f"unknown option {min(options)}", "timm backbones take no options")
        return timm_backbone(name.removeprefix(TIMM_PREFIX), embedding_size, input_size)
    factory = BACKBONES[name]
    _check_options(name, factory, options)
    return factory(embedding_size, input_size, **options)


def _check_options(name: str, factory: Callable[..., nn.Module], options: Mapping[str, object]) -> None:
    known = {p.name: p.default for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY}
    for key, value in options.items():
        if key not in known:
            fix = did_you_mean(key, known) if known else "this backbone takes no options"
            raise UsageError(name, f"unknown option {key}", fix)
        expected = type(known[key])
        accepted = (int, float) if expected is float else (expected,)
        if not isinstance(value, accepted) or (isinstance(value, bool) and expected is not bool):
            raise UsageError(name, f"option {key} is {value!r}", f"expected {expected.__name__}")


class TimmBackbone(nn.Module):
    """A timm model's pooled output, then Linear and BatchNorm to the embedding.

    Args:
        body: Maps float (batch, 3, height, width) to (batch, width).
        width: The width it truly returns.
        embedding_size: Width of the embedding.
    """

    def __init__(self, body: nn.Module, width: int, embedding_size: int) -> None:
        super().__init__()
        self.body = body
        self.linear = nn.Linear(width, embedding_size, bias=False)
        self.bn = nn.BatchNorm1d(embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.linear(self.body(x)))
        return out


def timm_backbone(name: str, embedding_size: int, input_size: int) -> nn.Module:
    """Any timm model as a backbone; weights start as timm initialises them, nothing is downloaded.

    The output width is measured on a dummy input, for ``num_features`` is not always it.

    Raises:
        UsageError: timm knows no such model, or it does not return one vector an image at this input size.
    """
    import timm

    if name not in timm.list_models():
        raise UsageError(f"{TIMM_PREFIX}{name}", "timm knows no such model", did_you_mean_timm(name))
    try:
        body = timm.create_model(name, pretrained=False, num_classes=0, img_size=input_size)
    except (TypeError, AssertionError):
        body = timm.create_model(name, pretrained=False, num_classes=0)
    try:
        with torch.no_grad():
            output = body.eval()(torch.zeros(2, 3, input_size, input_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(f"{TIMM_PREFIX}{name}", f"cannot read {input_size}x{input_size} pixels: {error}") from None
    if not isinstance(output, Tensor) or output.dim() != 2:
        raise UsageError(f"{TIMM_PREFIX}{name}", "does not return one vector an image", "take another timm model")
    return TimmBackbone(body.train(), output.shape[1], embedding_size)


@dataclass(frozen=True)
class TimmFacts:
    """What timm says of a pretrained model.

    Attributes:
        mean: Of the colours red, green and blue, on the 0..1 scale.
        std: Of the colours, on the 0..1 scale.
        size: (height, width) in pixels.
        embedding_size: Width of what it gives, measured.
        licence: Of the weights; empty where timm does not say.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: tuple[int, int]
    embedding_size: int
    licence: str


def pretrained_timm(name: str) -> tuple[nn.Module, TimmFacts]:
    """A timm model with its pretrained weights and without its classifier, in evaluation mode.

    Raises:
        InputError: timm knows no such model, has no weights for it, cannot get them, or it gives no vector an image.
    """
    import timm

    where = f"{TIMM_PREFIX}{name}"
    if not timm.is_model(name):
        raise InputError(where, "timm knows no such model", did_you_mean_timm(name))
    try:
        body: Any = timm.create_model(name, pretrained=True, num_classes=0).eval()
    except (OSError, RuntimeError, ValueError) as error:
        short = " ".join(str(error).split())[:160]
        fix = "check the name, or download it where there is a network"
        raise InputError(where, f"its pretrained weights cannot be had: {short}", fix) from None
    said: Mapping[str, Any] = body.pretrained_cfg
    _, height, width = said["input_size"]
    with torch.no_grad():
        output: object = body(torch.zeros(1, 3, height, width))
    if not isinstance(output, Tensor) or output.dim() != 2:
        raise InputError(where, "does not return one vector an image", "take another timm model")
    licence = str(said.get("license") or "")
    return body, TimmFacts(tuple(said["mean"]), tuple(said["std"]), (height, width), output.shape[1], licence)


def did_you_mean_timm(name: str) -> str:
    """The nearest of timm's thousand names, or where to find them."""
    import timm

    phrase = did_you_mean(name, timm.list_models())
    return phrase if phrase.startswith("did you") else "timm.list_models() lists them"


def synchronised(module: nn.Module) -> nn.Module:
    """The same module and parameters, its BatchNorm taking the statistics of all processes of a run on GPUs.

    Args:
        module: Changed in place where it is not itself a BatchNorm.
    """
    if any(type(part).__module__.startswith("timm.") for part in module.modules()):
        from timm.layers import convert_sync_batchnorm  # its BatchNorm holds an activation, which torch's would drop

        converted: nn.Module = convert_sync_batchnorm(module)
        return converted
    return nn.SyncBatchNorm.convert_sync_batchnorm(module)
