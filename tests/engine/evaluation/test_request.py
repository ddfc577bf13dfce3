"""What an evaluation was asked to do: kept, read again, and said as the command it was."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from facekd_cli.eval import _request, command

from facekd.engine.evaluation.request import Request, command_words, request_from
from facekd.errors import InputError

PLAIN = Request(
    models=("m.onnx",),
    sets=("a b.bin",),
    images=None,
    protocol="auto",
    fprs=(1e-2, 1e-5),
    flip=True,
    resolutions=(),
    gallery="full",
    color=None,
    normalize=None,
    allow_resize=False,
    drop_same=False,
    bootstrap=1000,
    batch=128,
    device="auto",
)
CHANGES = [
    {},
    {"models": ("a.onnx", "b c"), "sets": ("x", "y"), "cross": True},
    {"images": "faces", "protocol": "lfw", "flip": False, "color": "bgr", "normalize": "none"},
    {"resolutions": (28, 14), "gallery": "both", "allow_resize": True, "drop_same": True},
    {"bootstrap": 0, "batch": 7, "device": "cpu"},
    {"norm": "unit", "det": False, "all_modes": True, "count_failures": True},
    {"by": "race", "uncertainty": True, "fprs": (1e-3,), "precision": "bf16"},
]


@pytest.mark.parametrize("changes", CHANGES)
def test_a_request_survives_json_and_the_command_line(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = replace(PLAIN, **changes)  # type: ignore[arg-type]
    assert request_from(json.loads(json.dumps(request.as_dict())), "r.json") == request
    for name in (*request.models, *request.sets, request.images or "unused"):
        Path(name).touch()
    words = command_words(request)
    assert words[:2] == ["facekd", "eval"]
    assert _request(command.make_context("eval", words[2:]).params, []) == request


def test_every_argument_but_the_seed_is_tried_on_the_command_line() -> None:
    assert {name for changes in CHANGES for name in changes} == {field.name for field in fields(Request)} - {"seed"}


@pytest.mark.parametrize("name", [field.name for field in fields(Request)])
def test_every_argument_is_checked(name: str) -> None:
    for wrong in (object(), {}, -1, [None]):
        told = {**PLAIN.as_dict(), name: wrong}
        with pytest.raises(InputError, match=rf"r.json: arguments: {name} is "):
            request_from(told, "r.json")
