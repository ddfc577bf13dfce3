"""ONNX files as embedders: equal to torch, at any batch, and every refusal."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from facekd.errors import InputError
from facekd.models.backbone import build_backbone
from facekd.models.embedder import load_embedder
from facekd.models.onnx_file import tensors
from facekd.models.preprocessing import Preprocessing

FOREIGN = {"color": "rgb", "normalize": "half"}


def pixels(count: int, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    net = build_backbone("resnet_tiny", embedding_size=16, input_size=32, options={"channels": "8,16", "blocks": "1,1"})
    with torch.no_grad():
        net.train()(torch.randn(16, 3, 32, 32))
    return net.eval()


def export(module: nn.Module, path: Path, batch: int | None = None) -> Path:
    axes = None if batch else {"data": {0: "batch"}, "fc1": {0: "batch"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.zeros(batch or 2, 3, 32, 32),),
            str(path),
            dynamo=False,
            input_names=["data"],
            output_names=["fc1"],
            dynamic_axes=axes,
        )
    return path


def expected(module: nn.Module, count: int) -> torch.Tensor:
    with torch.no_grad():
        return module((pixels(count).float() - 127.5) / 127.5)


@pytest.fixture(scope="module")
def dynamic(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(module, tmp_path_factory.mktemp("onnx") / "student.onnx")


@pytest.mark.parametrize("count", [1, 3])
def test_a_dynamic_batch_equals_torch(module: nn.Module, dynamic: Path, count: int) -> None:
    found = load_embedder(dynamic, **FOREIGN).embed(pixels(count))
    assert torch.allclose(found, expected(module, count), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_a_fixed_batch_is_filled_up(module: nn.Module, tmp_path: Path, count: int) -> None:
    embedder = load_embedder(export(module, tmp_path / "a.onnx", batch=2), **FOREIGN)
    found = embedder.embed(pixels(count))
    assert found.shape == (count, 16)
    assert torch.allclose(found, expected(module, count), rtol=1e-4, atol=1e-5)
    assert embedder.embed(pixels(0)).shape == (0, 16)


def test_the_file_tells_size_width_and_digest(dynamic: Path) -> None:
    import hashlib

    embedder = load_embedder(dynamic, **FOREIGN)
    assert (embedder.embedding_size, embedder.preprocessing.size) == (16, (32, 32))
    assert embedder.digest == hashlib.sha256(dynamic.read_bytes()).hexdigest()
    assert embedder.parameters > 0
    assert embedder.name.endswith("/student.onnx")


def with_metadata(source: Path, target: Path, preprocessing: Preprocessing, preprocess: str) -> Path:
    model = onnx.load(source)
    entries = {f"facekd.{key}": value for key, value in preprocessing.to_metadata().items()}
    helper.set_model_props(model, entries | {"facekd.preprocess": preprocess})
    onnx.save(model, target)
    return target


def test_stored_preprocessing_is_used_and_guarded(module: nn.Module, dynamic: Path, tmp_path: Path) -> None:
    stored = Preprocessing.named("imagenet", "bgr", (32, 32))
    embedder = load_embedder(with_metadata(dynamic, tmp_path / "a.onnx", stored, "plain"))
    assert embedder.preprocessing == stored
    assert embedder.metadata["facekd.preprocess"] == "plain"
    with torch.no_grad():
        truth = module(stored.apply(pixels(2)))
    assert torch.allclose(embedder.embed(pixels(2)), truth, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="colour order is bgr, not rgb"):
        load_embedder(tmp_path / "a.onnx", color="rgb")


def test_a_size_that_is_not_the_input_s_is_refused(dynamic: Path, tmp_path: Path) -> None:
    path = with_metadata(dynamic, tmp_path / "a.onnx", Preprocessing.named("half", size=(64, 64)), "plain")
    with pytest.raises(InputError, match=r"its metadata says \(64, 64\) pixels, its input is \(32, 32\)"):
        load_embedder(path)


def test_a_silent_file_asks_for_colour_and_scaling(dynamic: Path) -> None:
    with pytest.raises(InputError, match="student.onnx: does not say its colour order and scaling .add --color"):
        load_embedder(dynamic)


def graph(
    path: Path, shape: list, *, inputs: int = 1, outputs: int = 1, kind: int = TensorProto.FLOAT, value: float = 1.0
) -> Path:
    """A graph that averages each channel (over the last two axes) and multiplies by ``value``."""
    taken = [helper.make_tensor_value_info(f"in{i}", kind, shape) for i in range(inputs)]
    given = [helper.make_tensor_value_info(f"out{i}", kind, None) for i in range(outputs)]
    nodes = [helper.make_node("ReduceMean", ["in0"], ["mean"], axes=[-2, -1], keepdims=0)]
    nodes += [helper.make_node("Mul", ["mean", "value"], [f"out{i}"]) for i in range(outputs)]
    weights = [numpy_helper.from_array(np.array(value, np.float32), "value")]
    made = helper.make_graph(nodes, "g", taken, given, weights)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_dynamic_size_falls_back_to_112(tmp_path: Path) -> None:
    embedder = load_embedder(graph(tmp_path / "a.onnx", ["n", 3, "h", "w"]), color="rgb", normalize="none")
    assert embedder.preprocessing.size == (112, 112)
    images = torch.full((1, 3, 112, 112), 7, dtype=torch.uint8)
    assert embedder.embed(images).tolist() == [[7.0, 7.0, 7.0]]


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ([1, 3, 8, 8], {"inputs": 2}, "2 inputs: in0, in1"),
        ([1, 3, 8, 8], {"outputs": 2}, "2 outputs: out0, out1"),
        ([3, 8, 8], {}, "input in0 is 3x8x8, not batch x 3 x height x width"),
        ([1, 112, 112, 3], {}, "1x112x112x3, not batch x 3 x height x width .export it with channels first"),
        (["n", 1, 8, 8], {}, r"\?x1x8x8, not batch x 3 x height x width .export it with three channels"),
        ([1, 3, 8, 8], {"kind": TensorProto.DOUBLE}, "input in0 is double, not float"),
        ([1, 3, 8, 8], {"value": float("nan")}, "gives NaN or infinity for an ordinary image"),
    ],
)
def test_other_graphs_are_refused(tmp_path: Path, shape: list, options: dict, message: str) -> None:
    path = graph(tmp_path / "a.onnx", shape, **options)
    with pytest.raises(InputError, match=message) as caught:
        load_embedder(path, **FOREIGN)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_a_map_instead_of_a_vector_is_refused(tmp_path: Path) -> None:
    taken = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    given = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", taken, given)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"gives \(1, 3, 8, 8\) for one image, not one embedding"):
        load_embedder(tmp_path / "a.onnx", **FOREIGN)


@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/passwd"])
def test_weights_in_another_file_are_refused(dynamic: Path, tmp_path: Path, location: str) -> None:
    model = onnx.load(dynamic)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=f"keeps 1 tensors in another file, {tensor.name} for one"):
        load_embedder(tmp_path / "a.onnx", **FOREIGN)


INNER = TensorProto(name="inner", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
SPARSE = onnx.SparseTensorProto(values=INNER, dims=[1])


def attributes(name: str) -> list[onnx.AttributeProto]:
    """Each place of an attribute that can hold a tensor."""
    return {
        "t": [helper.make_attribute("a", INNER)],
        "tensors": [helper.make_attribute("a", [INNER, INNER])],
        "sparse_tensor": [helper.make_attribute("a", SPARSE)],
        "sparse_tensors": [helper.make_attribute("a", [SPARSE])],
        "g": [helper.make_attribute("a", onnx.GraphProto(initializer=[INNER]))],
        "graphs": [helper.make_attribute("a", [onnx.GraphProto(sparse_initializer=[SPARSE])])],
        "g in g": [
            helper.make_attribute(
                "a",
                onnx.GraphProto(node=[onnx.NodeProto(attribute=[helper.make_attribute("b", INNER)])]),
            )
        ],
    }[name]


def in_the_graph(model: onnx.ModelProto, held: list[onnx.AttributeProto]) -> None:
    model.graph.node.insert(0, onnx.NodeProto(op_type="Constant", output=["unused"], attribute=held))


def in_a_function(model: onnx.ModelProto, held: list[onnx.AttributeProto]) -> None:
    model.functions.add(name="f", domain="d", node=[onnx.NodeProto(op_type="Constant", attribute=held)])


def as_a_default(model: onnx.ModelProto, held: list[onnx.AttributeProto]) -> None:
    model.functions.add(name="f", domain="d", attribute_proto=held)


def in_training(model: onnx.ModelProto, held: list[onnx.AttributeProto]) -> None:
    model.training_info.add(algorithm=onnx.GraphProto(node=[onnx.NodeProto(attribute=held)]))


def before_training(model: onnx.ModelProto, held: list[onnx.AttributeProto]) -> None:
    model.training_info.add(initialization=onnx.GraphProto(node=[onnx.NodeProto(attribute=held)]))


@pytest.mark.parametrize("name", ["t", "tensors", "sparse_tensor", "sparse_tensors", "g", "graphs", "g in g"])
@pytest.mark.parametrize("put", [in_the_graph, in_a_function, as_a_default, in_training, before_training])
def test_external_data_is_found_wherever_a_model_can_hold_a_tensor(
    tmp_path: Path, put: Callable[[onnx.ModelProto, list[onnx.AttributeProto]], None], name: str
) -> None:
    path = graph(tmp_path / "a.onnx", [1, 3, 8, 8])
    model = onnx.load(path)
    assert not [tensor for tensor in tensors(model) if tensor.data_location == TensorProto.EXTERNAL]
    put(model, attributes(name))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=r"a.onnx: keeps [12] tensors in another file, inner for one"):
        load_embedder(path, **FOREIGN)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            {"opset": 99},
            r"a.onnx: is of opset 99, newer than the \d+ this onnxruntime knows .export it again",
        ),
        ({"ir_version": 99}, r"a.onnx: is of IR version 99, newer than the \d+ this onnxruntime knows .export it"),
    ],
)
def test_item_125_a_file_newer_than_the_runtime_is_told_in_one_line(
    tmp_path: Path, change: dict[str, int], line: str
) -> None:
    path = graph(tmp_path / "a.onnx", [1, 3, 8, 8])
    model = onnx.load(path)
    model.opset_import[0].version = change.get("opset", 13)
    model.ir_version = change.get("ir_version", 8)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match=line) as caught:
        load_embedder(path, **FOREIGN)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize("kept", [0, 10, 1000, -50])
def test_truncated_files_are_refused(dynamic: Path, tmp_path: Path, kept: int) -> None:
    (tmp_path / "a.onnx").write_bytes(dynamic.read_bytes()[:kept])
    with pytest.raises(InputError, match="a.onnx: ") as caught:
        load_embedder(tmp_path / "a.onnx", **FOREIGN)
    assert "\n" not in str(caught.value)


def test_an_unknown_operator_is_refused_in_one_line(tmp_path: Path) -> None:
    path = graph(tmp_path / "a.onnx", [1, 3, 8, 8])
    model = onnx.load(path)
    model.graph.node[0].op_type = "Abracadabra"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="a.onnx: onnxruntime refuses it: .*Abracadabra"):
        load_embedder(path, **FOREIGN)


def test_the_real_teacher_gives_512_dimensions(shared_data: Path) -> None:
    path = shared_data / "models" / "edgeface_xs_raw_rgb.onnx"
    embedder = load_embedder(path, color="rgb", normalize="none")
    assert (embedder.embedding_size, embedder.parameters) == (512, 2_242_620)
    embedding = embedder.embed(pixels(3, 112))
    assert embedding.shape == (3, 512)
    assert torch.allclose(embedder.embed(pixels(3, 112)[:1]), embedding[:1], rtol=1e-3, atol=1e-4)


def test_a_detector_is_refused(shared_data: Path) -> None:
    path = shared_data / "models" / "yunet.onnx"
    with pytest.raises(InputError, match="12 outputs: cls_8"):
        load_embedder(path, **FOREIGN)
