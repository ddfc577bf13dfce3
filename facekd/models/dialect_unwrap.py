"""A backbone's tensors out of a checkpoint: out of its container, without the prefixes of wrappers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from facekd.errors import CheckpointError
from facekd.models.dialect_structure import structure_of

CONTAINERS = ("state_dict_backbone", "state_dict", "model", "backbone", "net")
_WRAPPERS = ("module.", "_orig_mod.")
_PREFIXES = (*_WRAPPERS, "backbone.", "model.", "net.", "features.")
_CLASSIFIER_KEYS = ("head.", "header.", "fc.", "classifier.", "partial_fc.", "kernel")
_SAVE_ONE = "save the one you mean alone: torch.save(model.state_dict(), FILE)"
_DEEPEST = 4


@dataclass(frozen=True)
class Unwrapped:
    """The tensors of one network and what they came out of.

    Attributes:
        state: Tensors by key.
        container: Keys that lead to them, joined by points; empty for a plain state dict.
        prefixes: What was taken off the keys, in that order, each with the number of keys it was taken off.
    """

    state: dict[str, Tensor]
    container: str = ""
    prefixes: tuple[tuple[str, int], ...] = ()


def unwrap(loaded: object, where: str) -> Unwrapped:
    """The one network of a loaded checkpoint.

    A container is any dict on the way to a state dict; the states of optimizers and numbers beside it do not matter.
    The prefixes of wrappers (``module.``, ``_orig_mod.``, ``backbone.``, ``model.``, ``net.``, ``features.``) go, in
    any order and number, where all keys have them or those without are a classifier's, which is left out.

    Raises:
        CheckpointError: No state dict in it, several networks, or prefixes that only some keys have.

    Example:
        >>> import torch
        >>> unwrap({"state_dict": {"module.a": torch.ones(1)}, "epoch": 3}, "x.pt")
        Unwrapped(state={'a': tensor([1.])}, container='state_dict', prefixes=(('module.', 1),))
    """
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(where, f"holds {_describe(loaded)}, not a state dict", "save model.state_dict()")
    groups = dict(_state_dicts(loaded))
    found = [network for path, group in groups.items() for network in _networks(group, path)]
    if len(found) > 1:
        names = ", ".join(f"{name or 'the top'} ({title})" for name, title, _ in found)
        raise CheckpointError(where, f"holds several networks: {names}", _SAVE_ONE)
    if found and found[0][2] is not None:
        return found[0][2]
    if found and found[0][0] not in groups:
        what = f"its tensors under {found[0][0]}. are those of {found[0][1]}, and others stand beside them"
        raise CheckpointError(where, what, _SAVE_ONE)
    path = next((key for key in CONTAINERS if isinstance(loaded.get(key), Mapping)), "")
    if not path and len(groups) == 1:
        (path,) = groups
    inner: Mapping = groups[path] if path in groups else loaded[path] if path else loaded
    odd = [str(key) for key, value in inner.items() if not isinstance(value, Tensor)]
    if odd or not inner:
        what = f"{odd[0]} is no tensor ({len(odd)} such entries, {len(inner)} in all)" if odd else "holds nothing"
        raise CheckpointError(where, what, "save model.state_dict() alone")
    state, prefixes = _strip({str(key): value for key, value in inner.items()})
    _refuse_partial_prefix(state, where)
    return Unwrapped(state, path, prefixes)


def _describe(loaded: object) -> str:
    return "nothing" if isinstance(loaded, Mapping) else f"a {type(loaded).__name__}"


def _state_dicts(tree: Mapping[object, object], path: str = "", depth: int = 0) -> Iterator[tuple[str, dict]]:
    """Every mapping that holds tensors and nothing else, by the keys that lead to it."""
    if tree and all(isinstance(value, Tensor) for value in tree.values()):
        yield path, {str(key): value for key, value in tree.items()}
    elif depth < _DEEPEST:
        for key, value in tree.items():
            if isinstance(value, Mapping):
                yield from _state_dicts(value, f"{path}.{key}" if path else str(key), depth + 1)


def _networks(group: dict[str, Tensor], path: str) -> Iterator[tuple[str, str, Unwrapped | None]]:
    """Name and title of every backbone among the tensors of a state dict; only a lone one comes unwrapped."""
    state, prefixes = _strip(group)
    structure = structure_of(state)
    if structure is not None:
        whole = not any(key.startswith(_WRAPPERS) for key in state)
        yield path, structure.title, Unwrapped(state, path, prefixes) if whole else None
    branches: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        first, _, rest = key.partition(".")
        branches.setdefault(first, {})[rest] = tensor
    for first, inner in branches.items():
        within = structure_of(_strip(inner)[0])
        if within is not None:
            yield f"{path}.{first}" if path else first, within.title, None


def _strip(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[tuple[str, int], ...]]:
    taken: list[tuple[str, int]] = []
    stripped = True
    while stripped:
        stripped = False
        for prefix in _PREFIXES:
            rest = [key for key in state if not key.startswith(prefix)]
            if len(rest) < len(state) and all(key.startswith(_CLASSIFIER_KEYS) for key in rest):
                state = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
                taken.append((prefix, len(state)))
                stripped = True
    return state, tuple(taken)


def _refuse_partial_prefix(state: Mapping[str, Tensor], where: str) -> None:
    for prefix in _WRAPPERS:
        count = sum(key.startswith(prefix) for key in state)
        if count:
            what = f"{count} of its {len(state)} keys begin with {prefix}, the others do not: which network is meant?"
            raise CheckpointError(where, what, _SAVE_ONE)
