"""Bad inputs 74 to 103 and 125: teachers, checkpoints, classifiers and ONNX files that lie, break or attack."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import chdir
from pathlib import Path

import pytest
import torch
from bad_inputs import Case, answer, recipe, write_faces, write_model
from bad_weights import FILES, packed, state
from click.testing import CliRunner
from facekd_cli.main import cli
from lock_holder import held
from onnx import TensorProto, helper

from facekd.files import file_digest
from facekd.models.weights import save_classifier

FOREIGN = ["--color", "rgb", "--normalize", "half"]
Make = Callable[[Path], Sequence[str]]


def foreign(make: Callable[[], bytes]) -> Make:
    """Looking at a file of these bytes."""

    def write(here: Path) -> Sequence[str]:
        (here / "a.pt").write_bytes(make())
        return ["teacher", "inspect", "a.pt", *FOREIGN]

    return write


def halted(change: Callable[[Path], object]) -> Make:
    """A run of two steps with a checkpoint after each, changed, then resumed."""

    def make(here: Path) -> Sequence[str]:
        write_faces(here / "faces")
        words = recipe(here, ("epochs: 1", "epochs: 1, checkpoint_every: 0.5"))
        result = CliRunner().invoke(cli, words)
        assert result.exit_code == 0, result.output
        change(here / "out" / "checkpoints")
        return [*words, "--resume"]

    return make


def rot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def newest(folder: Path) -> Path:
    return sorted(folder.glob("step-*"))[-1]


def every(folder: Path) -> None:
    for path in folder.glob("step-*"):
        rot(path)


def claimed(name: str, value: object) -> Callable[[Path], None]:
    """The newest checkpoint says something else of itself, and is recorded so."""

    def change(folder: Path) -> None:
        from facekd.models import safetensors_file

        path = newest(folder)
        tensors, metadata = safetensors_file.decode(path.read_bytes(), path.name)
        facts = json.loads(metadata["facts"]) | {name: value}
        safetensors_file.write(path, tensors, {"facts": json.dumps(facts)})
        line = {"step": 2, "file": path.name, "bytes": path.stat().st_size, "sha256": file_digest(path)}
        with open(folder / "checkpoints.jsonl", "a") as stream:
            stream.write(json.dumps(line) + "\n")

    return change


def stale(folder: Path) -> None:
    (folder / "step-000000003.safetensors.tmp.1").write_bytes(b"half")


def empty_run(here: Path) -> Sequence[str]:
    write_faces(here / "faces")
    (here / "out").mkdir()
    return recipe(here)


def classifier(rows: torch.Tensor) -> Make:
    def make(here: Path) -> Sequence[str]:
        write_faces(here / "faces")
        write_model(here / "t.safetensors")
        save_classifier(here / "c.safetensors", rows, ["p0", "p1", "p2"], "trained")
        teacher = "teacher: {weights: t.safetensors, class_weights: c.safetensors}\nlosses:"
        return recipe(here, ("losses:", teacher), ("margin: 0.2", "margin: 0.2, class_weights: teacher"))

    return make


def graph(shape: list, inputs: int = 1, external: str | None = None) -> bytes:
    taken = [helper.make_tensor_value_info(f"in{i}", TensorProto.FLOAT, shape) for i in range(inputs)]
    given = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    nodes = [helper.make_node("ReduceMean", ["in0"], ["mean"], axes=[-2, -1], keepdims=0)]
    nodes += [helper.make_node("Mul", ["mean", "value"], ["out"])]
    value = helper.make_tensor("value", TensorProto.FLOAT, [], [1.0])
    if external is not None:
        value.ClearField("float_data")
        value.data_location = TensorProto.EXTERNAL
        value.external_data.add(key="location", value=external)
        value.external_data.add(key="offset", value="-1")
        value.external_data.add(key="length", value=str(10**15))
    made = helper.make_graph(nodes, "g", taken, given, [value])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()


def network(data: bytes) -> Make:
    def make(here: Path) -> Sequence[str]:
        (here / "a.onnx").write_bytes(data)
        return ["teacher", "inspect", "a.onnx", *FOREIGN]

    return make


CODES = {"085-nan": 4}
TOLD = "written by +│ facekd resnet_tiny"
SHOWN = {
    **dict.fromkeys(("085-nan", "086-int64", "086-float64", "086-complex", "088-misshapen", "089-partial"), TOLD),
    **dict.fromkeys(("091-no-axes", "091-no-values"), "a.pt"),
}
"""What `teacher inspect` tells of a file before it comes to what it refuses."""
BEGUN = "warning: the images are 32x32 pixels"
NET = graph(["n", 3, 32, 32])

CASES = [
    *(
        Case(number, foreign(make), f"a.pt: {line}", CODES.get(number, 2), shown=SHOWN.get(number, ""))
        for number, (make, line) in FILES.items()
    ),
    Case("87-prefix", foreign(lambda: packed({f"module.{k}": v for k, v in state().items()})), "module", 0),
    Case(
        "93-newer-format",
        halted(claimed("format", "facekd-checkpoint-9")),
        "in format facekd-checkpoint-9; this is .*, of facekd-checkpoint-1",
        shown=BEGUN,
    ),
    Case(
        "92-other-recipe",
        halted(claimed("recipe", "0" * 64)),
        "checkpoint of step 2: the recipe changed since it was written",
        shown=BEGUN,
    ),
    Case(
        "94-threads", halted(claimed("threads", 99)), "resume is not bit-exact: saved with threads 99, running with", 0
    ),
    Case("94-torch", halted(claimed("torch", "1.0")), "resume is not bit-exact: saved with torch 1.0, running with", 0),
    Case(
        "95-newest-rotten",
        halted(lambda folder: rot(newest(folder))),
        "passed over step-000000002.safetensors: digest differs",
        0,
    ),
    Case(
        "96-all-rotten",
        halted(every),
        "out/checkpoints: step-000000002.safetensors: digest .*; step-000000001.safetensors: digest",
        shown=BEGUN,
    ),
    Case("98-stale", halted(stale), "resumed at step 2 of 2", 0),
    Case(
        "102-width",
        classifier(torch.randn(3, 4)),
        "c.safetensors: its class weights have 4 columns, the teacher's embedding 8",
    ),
    Case(
        "102-zero-row",
        classifier(torch.eye(3, 8) * torch.tensor([[1.0], [0.0], [1.0]])),
        "c.safetensors: class 1 of 3 is all zeros",
    ),
    Case("125-cut", network(NET[:-20]), "a.onnx: truncated, damaged or no ONNX file", shown="a.onnx"),
    Case(
        "125-outside",
        network(graph(["n", 3, 32, 32], external="../weights.bin")),
        "a.onnx: keeps 1 tensors in another file, value",
        shown="a.onnx",
    ),
    Case(
        "125-absolute",
        network(graph(["n", 3, 32, 32], external="/etc/passwd")),
        "a.onnx: keeps 1 tensors in another file, value",
        shown="a.onnx",
    ),
    Case("125-two-inputs", network(graph(["n", 3, 32, 32], inputs=2)), "a.onnx: 2 inputs: in0, in1", shown="a.onnx"),
    Case("125-channels-last", network(graph([1, 112, 112, 3])), "a.onnx: .*1x112x112x3", shown="a.onnx"),
]


@pytest.mark.filterwarnings("ignore::UserWarning:bad_weights", "ignore:Duplicate name")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.number)
def test_a_bad_model_is_told(case: Case, tmp_path: Path) -> None:
    assert answer(case, tmp_path).exit_code == case.code


def test_item_097_a_second_process_on_a_run_is_refused_and_touches_nothing(tmp_path: Path) -> None:
    with chdir(tmp_path):
        words = list(empty_run(Path()))
    with held(tmp_path / "out") as other, chdir(tmp_path):
        refused = CliRunner().invoke(cli, words)
        told = f"facekd: error: out: process {other.pid} is training here (wait for it, or write to another place)\n"
        assert (refused.exit_code, refused.stderr) == (2, told)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    with chdir(tmp_path):
        assert CliRunner().invoke(cli, words).exit_code == 0
