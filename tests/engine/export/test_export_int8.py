"""Eight bits where they do no harm: against plain arithmetic, and against what careless quantisation does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from facekd.data.open_source import open_identities
from facekd.engine.export import build, exporter
from facekd.engine.export import int8 as export_int8
from facekd.engine.export.build import Built
from facekd.engine.export.checks import check_mean, held_out
from facekd.engine.export.exporter import Evidence, export_onnx
from facekd.engine.export.form import Form
from facekd.engine.export.half import to_half
from facekd.engine.export.int8 import left_in_float, to_int8
from facekd.engine.export.judge import some_faces
from facekd.engine.export.qdq import operations, quantise, quantised_tensors, weight_steps
from facekd.engine.export.ranges import activation_ranges, run_graph, run_in_opencv
from facekd.engine.parity import Parity, compare, probe_images
from facekd.errors import ExportError, InputError, RequirementError
from facekd.models.embedder import TorchEmbedder, load_embedder
from facekd.models.preprocessing import Preprocessing


def graph() -> onnx.ModelProto:
    """Convolution and ReLU, a second one, their sum, flatten, product."""
    draw = np.random.default_rng(1)
    arrays = {
        "w1": draw.normal(size=(4, 3, 3, 3)),
        "b1": draw.normal(size=4),
        "w2": draw.normal(size=(4, 4, 1, 1)),
        "head": draw.normal(size=(16, 5)),
    }
    nodes = [
        helper.make_node("Conv", ["data", "w1", "b1"], ["c1"], name="first"),
        helper.make_node("Relu", ["c1"], ["r1"], name="relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], name="second"),
        helper.make_node("Add", ["r1", "c2"], ["sum"], name="residual"),
        helper.make_node("Flatten", ["sum"], ["flat"], name="flatten"),
        helper.make_node("MatMul", ["flat", "head"], ["fc1"], name="head"),
    ]
    weights = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in arrays.items()]
    taken = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["batch", 3, 4, 4])
    given = helper.make_tensor_value_info("fc1", TensorProto.FLOAT, ["batch", 5])
    made = helper.make_graph(nodes, "g", [taken], [given], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, 3, 4, 4)).astype(np.float32)


def test_operations_are_found_with_the_relu_behind_them() -> None:
    found = {op.name: (op.inputs, op.output, op.weight, op.axis, op.bound) for op in operations(graph())}
    assert found == {
        "first": (("data",), "r1", "w1", 0, "relu"),
        "second": (("r1",), "c2", "w2", 0, ""),
        "residual": (("r1", "c2"), "sum", "", 1, ""),
        "head": (("flat",), "fc1", "head", 1, ""),
    }
    assert quantised_tensors(graph(), {"first", "head"}) == ["data", "r1", "flat"]


def test_ranges_are_those_of_the_values() -> None:
    data = pixels(40)
    found = activation_ranges(graph(), ["data", "r1"], data)
    low, high = found["data"]
    assert low == pytest.approx(data.min(), rel=0.01) and high == pytest.approx(data.max(), rel=0.01)
    assert found["r1"][0] == 0


def test_ranges_leave_out_the_rarest_values() -> None:
    data = pixels(21_000)
    data[7, 0, 1, 2], data[9, 1, 1, 1] = 1000, -1000
    low, high = activation_ranges(graph(), ["data", "r1"], data)["data"]
    assert -6 < low < -3 and 3 < high < 6


def test_each_channel_of_a_weight_has_a_step_of_its_own() -> None:
    model, data = graph(), pixels(40)
    sizes = np.array([1, 10, 100, 1000], np.float32)
    weight = numpy_helper.to_array(model.graph.initializer[0]) * sizes[:, None, None, None]
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    ranges = activation_ranges(model, quantised_tensors(model, {"first"}), data)
    made = quantise(model, ranges, {"first"})
    (node,) = [node for node in made.graph.node if node.output[0] == "first_w"]
    held = {value.name: numpy_helper.to_array(value) for value in made.graph.initializer}
    steps = held[node.input[1]]
    assert steps.shape == (4,) and [attribute.i for attribute in node.attribute] == [0]
    apart = steps[:, None, None, None] * held[node.input[0]] - weight
    assert (np.abs(apart).max(axis=(1, 2, 3)) <= 0.501 * steps).all()
    assert 300 < steps[3] / steps[0] < 3000


@pytest.mark.parametrize("batch", [3, 40, 64])
def test_a_graph_of_a_fixed_batch_sees_every_face_once(batch: int) -> None:
    """40 faces fill no batch of 64, and leave one of three not full; neither drops or repeats what a face gives."""
    model, data = graph(), pixels(40)
    fixed = type(model).FromString(model.SerializeToString())
    for value in (fixed.graph.input[0], fixed.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    np.testing.assert_allclose(run_graph(fixed, data), run_graph(model, data), rtol=1e-5, atol=1e-5)
    tensors = quantised_tensors(model, {"first", "head"})
    assert activation_ranges(fixed, tensors, data) == activation_ranges(model, tensors, data)


def test_no_face_of_the_checks_is_one_of_the_ranges(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[str, np.ndarray] = {}

    def quantised(model: onnx.ModelProto, pixels: np.ndarray, *rest: object, **more: object) -> tuple:
        seen["ranges"] = pixels
        return to_int8(model, pixels, *rest, **more)

    def checked(embedder: TorchEmbedder, exported: object, images: torch.Tensor, *rest: object, **more: object) -> list:
        seen["checks"] = embedder.preprocessing.apply(images).numpy()
        return []

    monkeypatch.setattr(build, "to_int8", quantised)
    monkeypatch.setattr(exporter, "check_batch", checked)
    faces = Evidence(probe_images(40 + 64, (16, 16), seed=8))
    form = Form(precision="int8", batch=64)
    assert export_onnx(tiny(), tmp_path / "a.onnx", form, evidence=faces).quantised.faces == 40
    assert len(seen["checks"]) == held_out(form) == 64
    assert not {face.tobytes() for face in seen["checks"]} & {face.tobytes() for face in seen["ranges"]}
    with pytest.raises(InputError, match="39 faces are too few .*as many as a fixed --batch"):
        export_onnx(tiny(), tmp_path / "b.onnx", form, evidence=replace(faces, faces=faces.faces[1:]))


def test_one_convolution_in_integers_is_plain_integer_arithmetic() -> None:
    """The file's result is, to one step of its output, what numpy makes of rounded weights and inputs."""
    model, data = graph(), pixels(8)
    ranges = activation_ranges(model, quantised_tensors(model, {"second"}), data)
    quantised = quantise(model, ranges, {"second"})
    weights = {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}

    def rounded(value: np.ndarray, span: tuple[float, float]) -> np.ndarray:
        step = (span[1] - span[0]) / 255
        zero = round(-span[0] / step)
        return (np.clip(np.rint(value / step) + zero, 0, 255) - zero) * step

    first = nn.functional.conv2d(*(torch.from_numpy(value.copy()) for value in (data, weights["w1"], weights["b1"])))
    r1 = rounded(first.relu().numpy(), ranges["r1"])
    steps = weight_steps(weights["w2"], 0).reshape(-1, 1, 1, 1)
    whole = np.rint(weights["w2"] / steps)
    assert 64 < np.abs(whole).max() <= 127
    c2 = rounded(np.einsum("oi,bihw->bohw", (whole * steps)[:, :, 0, 0], r1), ranges["c2"])
    expected = (r1 + c2).reshape(8, -1) @ weights["head"]
    step = (ranges["c2"][1] - ranges["c2"][0]) / 255
    allowed = step * np.abs(weights["head"]).sum(axis=0).max()
    assert np.abs(run_graph(quantised, data) - expected).max() <= allowed


def test_onnxruntime_sees_integer_kernels_and_no_relu_is_left(tmp_path: Path) -> None:
    model = graph()
    everything = {op.name for op in operations(model)}
    ranges = activation_ranges(model, quantised_tensors(model, everything), pixels(40))
    quantised = quantise(model, ranges, everything)
    assert "Relu" not in [node.op_type for node in quantised.graph.node]
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "seen.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(quantised.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "seen.onnx").graph.node]
    assert kinds.count("QLinearConv") == 2 and kinds.count("QLinearAdd") == 1
    assert not {"Conv", "MatMul"} & set(kinds)


def test_no_two_neighbours_overflow_sixteen_bits() -> None:
    """What processors without VNNI cut off: products of 255 with two neighbouring weights of one sign."""
    weight = np.random.default_rng(0).normal(size=(64, 32, 3, 3)).astype(np.float32)
    steps = weight_steps(weight, 0)
    whole = np.rint(weight / steps.reshape(-1, 1, 1, 1)).transpose(0, 2, 3, 1).reshape(64, -1)
    pairs = 255 * (whole[:, :-1] + whole[:, 1:])
    plain = np.rint(weight / (np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127)).transpose(0, 2, 3, 1)
    plain = plain.reshape(64, -1)
    assert np.abs(255 * (plain[:, :-1] + plain[:, 1:])).max() > 2**15 - 1
    assert pairs.min() >= -(2**15) and pairs.max() <= 2**15 - 1
    assert np.abs(whole).max() > 100


def test_weights_alone_in_eight_bits_change_little_and_weigh_a_quarter() -> None:
    model, data = graph(), pixels(8)
    stored = quantise(model, {}, set(), {"first", "second", "head"})
    kinds = {weight.name: weight.data_type for weight in stored.graph.initializer}
    assert "w1" not in kinds and TensorProto.INT8 in kinds.values()
    assert compare("x", run_graph(model, data), run_graph(stored, data)).min_cosine > 0.999


def test_the_operations_that_hurt_are_left_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum of a huge and a small map: its one scale loses the small one, which is all that the head reads."""
    model, data = graph(), pixels(64)
    for weight in model.graph.initializer:
        if weight.name == "head":
            head = numpy_helper.to_array(weight).copy()
            head[:4] = 0  # the channel that drowns the others is not read
            weight.CopyFrom(numpy_helper.from_array(head, "head"))
        if weight.name == "b1":
            weight.CopyFrom(numpy_helper.from_array(np.array([3e3, 0, 0, 0], np.float32), "b1"))
        if weight.name == "w2":
            mixed = numpy_helper.to_array(weight).copy()
            mixed[1:, 0] = 0
            weight.CopyFrom(numpy_helper.from_array(mixed, "w2"))
    careless, _ = to_int8_with(model, data, monkeypatch, most=9.0)
    careful, told = to_int8_with(model, data, monkeypatch, most=0.004)
    true = run_graph(model, data)
    cosines = [compare("x", true, run_graph(made, data)).min_cosine for made in (careless, careful)]
    assert cosines[0] < 0.9 < 0.98 < cosines[1]
    assert {"first", "residual"} <= told.left.keys() and list(told.left.values())[0] == max(told.left.values())


def to_int8_with(model: onnx.ModelProto, data: np.ndarray, monkeypatch: pytest.MonkeyPatch, most: float) -> tuple:
    monkeypatch.setattr(export_int8, "left_in_float", lambda harm: left_in_float(harm, most))
    return to_int8(model, data, "a.onnx")


def in_integers(model: onnx.ModelProto, name: str) -> bool:
    node = next(node for node in model.graph.node if node.name == name)
    writers = {output: other.op_type for other in model.graph.node for output in other.output}
    return writers.get(node.input[1]) == "DequantizeLinear"


def test_what_opencv_computes_otherwise_is_left_in_float(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = graph(), pixels(64)

    def turned(made: onnx.ModelProto, few: np.ndarray) -> np.ndarray:
        return run_graph(made, few) * (-1 if in_integers(made, "second") else 1)

    monkeypatch.setattr(export_int8, "run_in_opencv", turned)
    plain, _ = to_int8(model, data, "a.onnx")
    made, told = to_int8(model, data, "a.onnx", opencv=True)
    assert in_integers(plain, "second") and not in_integers(made, "second")
    assert next(iter(told.left)) == "second" and 1.9 < told.left["second"] < 2.1


def test_what_opencv_cannot_run_is_not_held_against_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(made: onnx.ModelProto, few: np.ndarray) -> np.ndarray:
        raise InputError("graph", "OpenCV cannot run it: no such operation")

    monkeypatch.setattr(export_int8, "run_in_opencv", refuse)
    model, data = graph(), pixels(64)
    assert to_int8(model, data, "a.onnx", opencv=True) == to_int8(model, data, "a.onnx")


def test_opencv_gives_what_onnxruntime_gives_batch_by_batch() -> None:
    model, data = graph(), pixels(20)
    np.testing.assert_allclose(run_in_opencv(model, data), run_graph(model, data), rtol=1e-4, atol=1e-4)


def test_the_mean_shift_is_taken_back() -> None:
    model, data = graph(), pixels(128)
    made, told = to_int8(model, data, "a.onnx")
    assert told.faces == 128 and told.integer + len(told.left) == 4
    shift = (run_graph(made, data) - run_graph(model, data)).mean(axis=0)
    assert np.abs(shift).max() < 1e-4 * np.abs(run_graph(model, data)).max()


def test_too_few_faces_and_nothing_to_do_are_refused() -> None:
    with pytest.raises(InputError, match="39 faces are too few"):
        to_int8(graph(), pixels(39), "a.onnx")
    model = graph()
    kept = [type(node).FromString(node.SerializeToString()) for node in model.graph.node if node.name == "flatten"]
    kept[0].input[0], kept[0].output[0] = "data", "fc1"
    del model.graph.node[:]
    model.graph.node.extend(kept)
    with pytest.raises(InputError, match="nothing that could run in integers"):
        to_int8(model, pixels(64), "a.onnx")


def test_half_the_size_in_float16_with_float32_at_both_ends() -> None:
    model, data = graph(), pixels(8)
    half = to_half(model, "a.onnx")
    onnx.checker.check_model(half, full_check=True)
    assert {weight.data_type for weight in half.graph.initializer} == {TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in (*half.graph.input, *half.graph.output)] == [
        TensorProto.FLOAT
    ] * 2
    found = compare("x", run_graph(model, data), run_graph(half, data))
    assert 0 < found.max_relative < 5e-3
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.PReLU(8), nn.Conv2d(8, 8, 3, 2), nn.Flatten())
        self.linear = nn.Linear(8 * 9, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.layers(x))


def tiny() -> TorchEmbedder:
    expects = Preprocessing.named("half", size=(16, 16))
    return TorchEmbedder("tiny", "0" * 64, 16, expects, {"calibration": "{}"}, Tiny().eval(), torch.device("cpu"))


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_file_of_fewer_bits_is_written_checked_and_says_so(precision: str, tmp_path: Path) -> None:
    faces = probe_images(72, (16, 16), seed=8)
    report = export_onnx(tiny(), tmp_path / "a.onnx", Form("baked", precision=precision), evidence=Evidence(faces))
    assert report.precision == precision and {check.batch for check in report.parity} == {1, 2, 5}
    exported = load_embedder(tmp_path / "a.onnx")
    assert exported.metadata["facekd.precision"] == precision
    assert ("facekd.calibration" in exported.metadata) == (precision == "fp16")
    images = torch.from_numpy(probe_images(4, (16, 16), seed=9))
    found = compare("x", tiny().embed(images).numpy(), exported.embed(images).numpy())
    assert found.min_cosine > (0.9999 if precision == "fp16" else 0.98)
    assert (report.quantised is not None) == (precision == "int8")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_file_of_half_precision_is_no_source(precision: str, tmp_path: Path) -> None:
    export_onnx(tiny(), tmp_path / "half.onnx", Form(precision="fp16"), opencv=False)
    faces = Evidence(probe_images(48, (16, 16), seed=8))
    with pytest.raises(InputError, match=r"half.onnx: .* is float16: .*give the float32 file"):
        export_onnx(
            load_embedder(tmp_path / "half.onnx"), tmp_path / "a.onnx", Form(precision=precision), evidence=faces
        )
    assert [path.name for path in tmp_path.iterdir()] == ["half.onnx"]


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_embeddings_of_length_one_keep_it_in_every_precision(precision: str, tmp_path: Path) -> None:
    export_onnx(tiny(), tmp_path / "unit.onnx", Form(unit=True), opencv=False)
    source = load_embedder(tmp_path / "unit.onnx")
    faces = Evidence(probe_images(72, (16, 16), seed=8))
    report = export_onnx(source, tmp_path / "a.onnx", Form(precision=precision), evidence=faces, opencv=False)
    exported = load_embedder(tmp_path / "a.onnx")
    assert report.unit and exported.metadata["facekd.unit"] == report.metadata["facekd.unit"] == "true"
    found = exported.embed(torch.from_numpy(probe_images(8, (16, 16), seed=9))).double().norm(dim=1)
    assert (found - 1).abs().max() < 1e-6
    kinds = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    assert kinds.count("Sqrt") == 1


@pytest.mark.parametrize(("mean", "kept"), [(0.86, False), (0.89, False), (0.967, False), (0.995, True)])
def test_the_mean_cosine_parts_careless_files_from_good_ones(mean: float, kept: bool) -> None:
    """Those of naive, entropy and percentile settings on a real MobileFaceNet, and of the tail left in float."""
    parity = [Parity("onnxruntime", batch, 0.1, 0.1, 0.95, mean) for batch in (1, 2, 5)]
    if kept:
        check_mean(parity, "int8")
    else:
        with pytest.raises(ExportError, match=f"onnxruntime: the mean cosine .* is {mean:.4f} on 8 faces, not 0.98 "):
            check_mean([*parity, Parity("opencv", 8, 0.0, 0.0, 1.0, 1.0)], "int8")


def test_the_mean_is_over_faces_and_not_batches() -> None:
    one, seven = Parity("here", 1, 0.1, 0.1, 0.9, 0.9), Parity("here", 7, 0.1, 0.1, 0.99, 0.995)
    check_mean([one, seven], "int8")
    with pytest.raises(ExportError, match="0.9475 on 2 faces"):
        check_mean([one, replace(seven, batch=1)], "int8")


def test_a_file_turned_too_far_on_the_whole_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Turned by a constant that every single face would be allowed."""

    def turned(model: onnx.ModelProto, pixels: np.ndarray, *rest: object, **more: object) -> tuple:
        made, told = to_int8(model, pixels, *rest, **more)
        mean = run_graph(model, pixels).mean(axis=0)
        aside = np.roll(mean, 1) - np.roll(mean, 1) @ mean / (mean @ mean) * mean
        weight = next(weight for weight in made.graph.initializer if weight.name == "fc1_shift")
        shift = numpy_helper.to_array(weight) + 0.33 * aside / np.linalg.norm(aside) * np.linalg.norm(mean)
        weight.CopyFrom(numpy_helper.from_array(shift.astype(np.float32), weight.name))
        return made, told

    faces = Evidence(probe_images(72, (16, 16), seed=8))
    form = Form(precision="int8")
    export_onnx(tiny(), tmp_path / "a.onnx", form, evidence=faces, opencv=False)
    monkeypatch.setattr(build, "to_int8", turned)
    with pytest.raises(ExportError, match="b.onnx: onnxruntime: the mean cosine .* is 0.9[345]"):
        export_onnx(tiny(), tmp_path / "b.onnx", form, evidence=faces, opencv=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


def test_what_a_judge_refuses_is_not_left_behind(tmp_path: Path) -> None:
    def judge(exported: object) -> list[dict]:
        raise RequirementError("pairs.txt", "TPR falls")

    with pytest.raises(RequirementError, match="TPR falls"):
        export_onnx(tiny(), tmp_path / "a.onnx", evidence=Evidence(judge=judge))
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_weight_is_found_in_fewer_bits_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = exporter.build_model

    def spoiled(*arguments: object, **named: object) -> Built:
        built = made(*arguments, **named)
        for weight in built.model.graph.initializer:
            if weight.data_type in (TensorProto.FLOAT16, TensorProto.INT8) and len(weight.dims) == 4:
                weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
        return built

    monkeypatch.setattr(exporter, "build_model", spoiled)
    faces = probe_images(72, (16, 16), seed=8)
    for precision in ("fp16", "int8"):
        with pytest.raises(ExportError, match="onnxruntime at batch 1 does not give"):
            export_onnx(tiny(), tmp_path / "a.onnx", Form(precision=precision), evidence=Evidence(faces))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_real_network_keeps_its_embeddings_in_a_third_of_its_size(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_int8, "TRIED", 8)
    model = load_embedder(shared_data / "models" / "foamliu" / "mobilefacenet.pt")
    people = open_identities(shared_data / "lfw_train.csv", shared_data / "lfw112")
    faces = some_faces(people, model.preprocessing.size, 40 + held_out(Form()), "lfw_train.csv")
    report = export_onnx(model, tmp_path / "small.onnx", Form(precision="int8"), evidence=Evidence(faces))
    assert report.bytes <= 0.35 * report.float_bytes
    assert {check.runtime for check in report.parity} == {"onnxruntime", "opencv"}
    assert min(check.min_cosine for check in report.parity) > 0.98
    assert report.quantised is not None and report.quantised.integer > 50
