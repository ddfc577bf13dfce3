"""Foreign float graphs are brought into one form that computes the same, or refused by what is wrong with them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from facekd.engine.export.fold import fold
from facekd.engine.export.graph import add_to_output, add_unit_length, drop_unit_length, sort_nodes, take_pictures
from facekd.engine.export.source import float_graph
from facekd.errors import InputError, NonFiniteError
from facekd.models.backbone import build_backbone
from facekd.models.embedder import TorchEmbedder, load_embedder
from facekd.models.preprocessing import Preprocessing


def drawn(*shape: int) -> np.ndarray:
    """The same numbers for the same shape, whichever test asks first."""
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


WEIGHTS = {
    "w": drawn(4, 3, 3, 3),
    "gain": np.array([1.0, 2, 3, 0.5]),
    "shift": np.array([0.0, 1, -1, 2]),
    "mean": np.array([0.1, 0.2, 0.3, 0.4]),
    "variance": np.array([1.0, 2, 0.5, 4]),
    "head": drawn(16, 5),
}


def graph(*, opset: int = 17, last: str = "", training: int = 0, input_name: str = "image") -> onnx.ModelProto:
    """Convolution, BatchNorm, flatten, product; the head's matrix is a Constant node."""
    taken = helper.make_tensor_value_info(input_name, TensorProto.FLOAT, [1, 3, 4, 4])
    given = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 5])
    arrays = {name: value.astype(np.float32) for name, value in WEIGHTS.items()}
    nodes = [
        helper.make_node("Constant", [], ["head"], value=numpy_helper.from_array(arrays.pop("head"), "h")),
        helper.make_node("Conv", [input_name, "w"], ["c"]),
        helper.make_node("BatchNormalization", ["c", "gain", "shift", "mean", "variance"], ["n"], epsilon=1e-3),
        helper.make_node("Flatten", ["n"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["raw" if last else "data"]),
    ]
    if training:
        nodes[2].attribute.append(helper.make_attribute("training_mode", 1))
    if last:
        nodes.append(helper.make_node(last, ["raw"], ["data"]))
    weights = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
    made = helper.make_graph(nodes, "g", [taken], [given], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, data: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: data})[0]


@pytest.mark.parametrize("opset", [11, 17])
def test_folding_keeps_the_figures_and_gives_the_house_s_names(opset: int) -> None:
    model = graph(opset=opset)
    data = drawn(1, 3, 4, 4)
    before = run(model, data)
    fold(model, "a.onnx")
    assert [node.op_type for node in model.graph.node] == ["Conv", "Flatten", "MatMul"]
    assert (model.graph.input[0].name, model.graph.output[0].name) == ("data", "fc1")
    assert len({node.name for node in model.graph.node} - {""}) == 3
    assert model.opset_import[0].version >= 13
    np.testing.assert_allclose(run(model, data), before, rtol=1e-5, atol=1e-5)


def test_a_batchnorm_whose_convolution_is_read_elsewhere_stays() -> None:
    model = graph()
    model.graph.node[3].input[0] = "both"
    model.graph.node.insert(3, helper.make_node("Add", ["n", "c"], ["both"]))
    data = drawn(1, 3, 4, 4)
    before = run(model, data)
    fold(model, "a.onnx")
    assert "BatchNormalization" in [node.op_type for node in model.graph.node]
    np.testing.assert_allclose(run(model, data), before, rtol=1e-5, atol=1e-5)


def product(kind: str, *, sides: int = 2, variance: np.ndarray | None = None, epsilon: float = 1e-3) -> onnx.ModelProto:
    """Planes of three, flat or (with three sides) not, times a matrix of 16 by 16, then BatchNorm."""
    rng = np.random.default_rng(8)
    taken = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 4, 4])
    given = helper.make_tensor_value_info("data", TensorProto.FLOAT, ["n", 16] if sides == 2 else ["n", 16, 16])
    arrays = {name: rng.normal(size=16) for name in ("gain", "shift", "mean", "bias")} | {
        "variance": rng.uniform(0.1, 4, 16) if variance is None else variance,
        "scalar": rng.normal(size=1).reshape(()),
        "row": rng.normal(size=(1, 16)),
        "matrix": rng.normal(size=(16, 16)),
        "planes": rng.normal(size=(16, 3, 1, 1)),
        "cut": rng.normal(size=(48, 16)),
    }
    layers = {
        "Gemm": helper.make_node("Gemm", ["flat", "matrix"], ["made"]),
        "Gemm, turned": helper.make_node("Gemm", ["flat", "matrix", "bias"], ["made"], transB=1),
        "Gemm, factors": helper.make_node("Gemm", ["flat", "matrix", "row"], ["made"], alpha=0.5, beta=3.0),
        "Gemm, one number": helper.make_node("Gemm", ["flat", "matrix", "scalar"], ["made"], beta=-2.0),
        "MatMul": helper.make_node("MatMul", ["flat", "matrix"], ["made"]),
    }
    before = [
        helper.make_node("Flatten", ["image"], ["long"]),
        helper.make_node("MatMul", ["long", "cut"], ["flat"]),
    ]
    if sides == 3:
        shape = numpy_helper.from_array(np.array([0, 16, 16], np.int64), "shape")
        before = [
            helper.make_node("Conv", ["image", "planes"], ["wide"]),
            helper.make_node("Constant", [], ["shape"], value=shape),
            helper.make_node("Reshape", ["wide", "shape"], ["flat"]),
        ]
    norm = ["made", "gain", "shift", "mean", "variance"]
    nodes = [*before, layers[kind], helper.make_node("BatchNormalization", norm, ["data"], epsilon=epsilon)]
    weights = [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in arrays.items()]
    made = helper.make_graph(nodes, "g", [taken], [given], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def norms(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "BatchNormalization" for node in model.graph.node)


@pytest.mark.parametrize("kind", ["Gemm", "Gemm, turned", "Gemm, factors", "Gemm, one number", "MatMul"])
def test_a_batchnorm_behind_a_product_becomes_part_of_it(kind: str) -> None:
    model = product(kind)
    data = drawn(3, 3, 4, 4)
    before = run(model, data)
    fold(model, "a.onnx")
    assert [node.op_type for node in model.graph.node] == ["Flatten", "MatMul", "Gemm"]
    found = run(model, data)
    np.testing.assert_allclose(found, before, rtol=1e-4, atol=1e-4)
    assert np.abs(before).max() > 1


def test_channels_without_variance_fold_and_keep_their_figures() -> None:
    """Dead channels are common: a variance of zero leaves the epsilon alone, which is a factor of hundreds."""
    model = product("Gemm", variance=np.where(np.arange(16) % 2, 0.0, 1.0), epsilon=1e-5)
    data = drawn(2, 3, 4, 4)
    before = run(model, data)
    fold(model, "a.onnx")
    assert norms(model) == 0
    np.testing.assert_allclose(run(model, data), before, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("variance", "epsilon"), [(0.0, 0.0), (-1.0, 1e-5), (1e-38, 0.0)])
def test_what_would_be_no_number_or_beyond_float32_is_not_folded(variance: float, epsilon: float) -> None:
    model = product("Gemm", variance=np.where(np.arange(16) == 5, variance, 1.0), epsilon=epsilon)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.full(16, 1e30, np.float32), "gain"))
    fold(model, "a.onnx")
    assert norms(model) == 1
    assert all(np.isfinite(numpy_helper.to_array(weight)).all() for weight in model.graph.initializer)


def test_a_batchnorm_along_another_side_than_the_product_s_stays() -> None:
    """Of (batch, 16, 16) it works along the second side, and the matrix makes the third."""
    model = product("MatMul", sides=3)
    data = drawn(2, 3, 4, 4)
    before = run(model, data)
    fold(model, "a.onnx")
    assert norms(model) == 1
    np.testing.assert_allclose(run(model, data), before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "left"), [("mobilefacenet", 0), ("resnet_tiny", 0), ("pocketnet_s", 3 * 3 + 2), ("iresnet18", 8 + 1)]
)
def test_our_own_networks_keep_only_a_batchnorm_that_no_layer_precedes(backbone: str, left: int) -> None:
    """PocketNet has them behind 9 poolings and 2 pairs of branches, IResNet at the head of 8 blocks and of the tail."""
    module = build_backbone(backbone, embedding_size=32, input_size=32).eval()
    expects = Preprocessing.named("half", size=(32, 32))
    embedder = TorchEmbedder(backbone, "0", 32, expects, {}, module, torch.device("cpu"))
    model = float_graph(embedder, "dynamic")
    assert norms(model) == left
    assert all(node.op_type != "MatMul" for node in model.graph.node)


@pytest.mark.parametrize("last", ["Softmax", "LogSoftmax", "Sigmoid"])
def test_the_head_of_a_classifier_is_refused(last: str) -> None:
    with pytest.raises(InputError, match=f"a.onnx: ends in {last}: the scores of a classifier"):
        fold(graph(last=last), "a.onnx")
    fold(graph(last="Relu"), "a.onnx")


class Head(torch.nn.Module):
    """An embedding of 6 numbers, and what stands behind it in training."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.embedding = torch.nn.Linear(48, 6)
        self.classes = torch.nn.Linear(6, 13, bias=kind == "biased")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raw = self.embedding(x.flatten(1))
        scores = torch.nn.functional
        if self.kind == "projector":
            return self.classes(raw)
        if self.kind == "layer norm":
            return self.classes(scores.layer_norm(raw, (6,)))
        if self.kind == "attention":
            unit = scores.normalize(x.flatten(2), dim=2)
            return self.embedding((unit @ unit.transpose(1, 2) @ x.flatten(2)).flatten(1))
        if self.kind == "unit":
            return scores.normalize(self.classes(raw))
        if self.kind == "weights normalised":
            return 64 * scores.linear(scores.normalize(raw), scores.normalize(self.classes.weight))
        if self.kind == "divided":
            return self.classes(raw / raw.norm(dim=1, keepdim=True))
        if self.kind == "squares":
            return self.classes(raw / (raw * raw).sum(dim=1, keepdim=True).clamp_min(1e-12).sqrt())
        return self.classes(scores.normalize(raw)) * 30 - 0.35


def traced(kind: str) -> onnx.ModelProto:
    torch.manual_seed(0)
    expects = Preprocessing.named("half", size=(4, 4))
    embedder = TorchEmbedder(kind, "0", 13, expects, {}, Head(kind).eval(), torch.device("cpu"))
    return float_graph(embedder, "dynamic")


@pytest.mark.parametrize("kind", ["scaled", "biased", "weights normalised", "divided", "squares"])
def test_cosines_to_class_weights_are_refused(kind: str) -> None:
    with pytest.raises(
        InputError, match=f"^{kind}: ends in products of a normalised embedding .*extract_model"
    ) as told:
        traced(kind)
    assert len(told.value.lines) == 1


@pytest.mark.parametrize("kind", ["projector", "layer norm", "attention", "unit"])
def test_what_is_no_head_of_classes_is_exported(kind: str) -> None:
    assert traced(kind).graph.output[0].name == "fc1"


def test_a_real_network_with_normalised_attention_is_exported(shared_data: Path) -> None:
    teacher = load_embedder(shared_data / "models" / "edgeface_xs_raw_rgb.onnx", color="rgb", normalize="none")
    assert float_graph(teacher, "dynamic").graph.output[0].name == "fc1"


@pytest.mark.parametrize("lp", [True, False])
def test_the_refusal_names_where_to_cut(lp: bool, tmp_path: Path) -> None:
    """A file of others, with the operation for lengths that exporters do not write, cut as the line says."""
    model = graph()
    nodes = [type(node).FromString(node.SerializeToString()) for node in model.graph.node]
    nodes[-1].output[0] = "raw"
    length = [
        helper.make_node("ReduceL2", ["raw"], ["length"], axes=[1], keepdims=1),
        helper.make_node("Div", ["raw", "length"], ["unit"]),
    ]
    nodes += [helper.make_node("LpNormalization", ["raw"], ["unit"], axis=1, p=2)] if lp else length
    nodes.append(helper.make_node("Gemm", ["unit", "classes"], ["data"], transB=1))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(numpy_helper.from_array(drawn(5, 5), "classes"))
    onnx.save(model, tmp_path / "whole.onnx")
    with pytest.raises(InputError) as caught:
        fold(model, "a.onnx")
    names = re.findall(r"\['(\w+)'\]", caught.value.fix)
    assert names == ["image", "raw"]
    onnx.utils.extract_model(tmp_path / "whole.onnx", tmp_path / "cut.onnx", names[:1], names[1:])
    fold(onnx.load(tmp_path / "cut.onnx"), "cut.onnx")


def test_a_layer_in_training_mode_is_refused() -> None:
    with pytest.raises(InputError, match="BatchNormalization .*is in training mode"):
        fold(graph(training=1), "a.onnx")


@pytest.mark.parametrize("training", [True, False])
def test_a_dropout_is_refused_while_it_drops(training: bool) -> None:
    model = graph()
    model.graph.initializer.append(numpy_helper.from_array(np.array(training), "trains"))
    model.graph.node[4].input[0] = "kept"
    model.graph.node.insert(4, helper.make_node("Dropout", ["f", "", "trains"], ["kept"]))
    if training:
        with pytest.raises(InputError, match="Dropout .*is in training mode"):
            fold(model, "a.onnx")
    else:
        fold(model, "a.onnx")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused_by_name(value: float) -> None:
    model = graph()
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, 0, 0, :2] = value
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))
    with pytest.raises(NonFiniteError, match="a.onnx: w: 2 non-finite values") as caught:
        fold(model, "a.onnx")
    assert caught.value.exit_code == 4


def test_a_file_of_integers_is_refused() -> None:
    model = graph()
    model.graph.node[1].op_type = "ConvInteger"
    with pytest.raises(InputError, match="computes in integers already: ConvInteger .*float file"):
        fold(model, "a.onnx")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_weights_of_other_floats_are_refused(kind: int) -> None:
    model = graph()
    weight = model.graph.initializer[0]
    values = numpy_helper.to_array(weight)
    weight.CopyFrom(helper.make_tensor(weight.name, kind, values.shape, values.ravel()))
    name = TensorProto.DataType.Name(kind).lower()
    with pytest.raises(InputError, match=f"a.onnx: w is {name}: only float32 .*give the float32 file") as caught:
        fold(model, "a.onnx")
    assert len(caught.value.lines) == 1
    lone = graph()  # a single number, as exporters leave them, says nothing of the weights
    lone.graph.initializer.append(helper.make_tensor("one", kind, [], [1.0]))
    fold(lone, "a.onnx")


def test_embeddings_of_length_one_and_shifted_ones() -> None:
    model = graph()
    data = drawn(1, 3, 4, 4)
    before = run(model, data)
    fold(model, "a.onnx")
    add_to_output(model, np.arange(5))
    np.testing.assert_allclose(run(model, data), before + np.arange(5), rtol=1e-5, atol=1e-5)
    add_unit_length(model)
    shifted = before + np.arange(5)
    np.testing.assert_allclose(run(model, data), shifted / np.linalg.norm(shifted), rtol=1e-5, atol=1e-6)
    assert model.graph.output[0].name == "fc1"


def test_the_length_added_is_taken_away_and_nothing_else() -> None:
    model = graph()
    fold(model, "a.onnx")
    before = model.SerializeToString()
    drop_unit_length(model)
    assert model.SerializeToString() == before
    add_unit_length(model)
    assert model.SerializeToString() != before
    drop_unit_length(model)
    data = drawn(1, 3, 4, 4)
    np.testing.assert_array_equal(run(model, data), run(onnx.load_model_from_string(before), data))
    assert [node.op_type for node in model.graph.node] == ["Conv", "Flatten", "MatMul"]
    add_unit_length(model)
    model.graph.node[-4].input[1] = "f"  # the sum of other products than the squares is no length
    onnx_before = model.SerializeToString()
    drop_unit_length(model)
    assert model.SerializeToString() == onnx_before


def test_pictures_of_bytes_become_rgb_planes() -> None:
    model = graph()
    fold(model, "a.onnx")
    planes = np.arange(48, dtype=np.float32).reshape(1, 3, 4, 4)
    before = run(model, planes)
    take_pictures(model)
    picture = planes[:, ::-1].transpose(0, 2, 3, 1).astype(np.uint8)
    np.testing.assert_allclose(run(model, np.ascontiguousarray(picture)), before, rtol=1e-5, atol=1e-4)
    assert [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim] == [1, 4, 4, 3]


def test_nodes_are_sorted_behind_what_they_read_and_otherwise_left() -> None:
    model = graph()
    names = [node.op_type for node in model.graph.node]
    moved = [model.graph.node[index] for index in (2, 0, 1, 3, 4)]
    copies = [type(node).FromString(node.SerializeToString()) for node in moved]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    sort_nodes(model)
    assert [node.op_type for node in model.graph.node] == names


def test_more_numbers_than_any_embedding_has_are_the_scores_of_classes() -> None:
    expects = Preprocessing.named("half", size=(4, 4))
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4097)).eval()
    embedder = TorchEmbedder("wide", "0", 4097, expects, {}, module, torch.device("cpu"))
    with pytest.raises(InputError, match="wide: gives 4097 numbers a face: the scores of a classifier"):
        float_graph(embedder, 1)
    assert float_graph(replace(embedder, embedding_size=4096), 1).graph.output[0].name == "fc1"
