"""What an ONNX file of an embedding network is, without torch: its graph, its input, a session to run it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from facekd.errors import InputError
from facekd.models.onnx_seal import SEAL, check_seal
from facekd.models.preprocessing import METADATA_KEYS, Preprocessing

METADATA_PREFIX = "facekd."
_NEWER_OPSET = re.compile(r"Opset (\d+) is under development.* is till opset (\d+)", re.DOTALL)
_NEWER_FORMAT = re.compile(r"Unsupported model IR version: (\d+), max supported IR version: (\d+)")
ANOTHER = "export one image input and one embedding output"


@dataclass(frozen=True)
class ImageInput:
    """The one input of a graph.

    Attributes:
        name: What it is called.
        batch: The one batch size it takes, or None for any.
        size: Its fixed (height, width), or None for any.
        bytes: It takes uint8 pictures (batch, height, width, 3) in the order blue, green, red, not float
            (batch, 3, height, width).
    """

    name: str
    batch: int | None
    size: tuple[int, int] | None
    bytes: bool


def parse(data: bytes, where: str) -> Any:
    """The ModelProto in a file's bytes.

    Raises:
        InputError: Truncated, no ONNX file, no graph, not as facekd wrote it, or weights that lie in another file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError):
        raise InputError(where, "truncated, damaged or no ONNX file", "copy or export it again") from None
    check_seal(data, model.producer_name, where)
    if not model.graph.node:
        raise InputError(where, "holds no graph", "copy or export it again")
    outside = [t.name for t in tensors(model) if t.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        what = f"keeps {len(outside)} tensors in another file, {outside[0]} for one"
        raise InputError(where, what, "save it as one file: onnx.save(model, path, save_as_external_data=False)")
    return model


def tensors(model: Any) -> list[Any]:
    """Every tensor stored in a model: of its graph, functions and training, their nodes, and graphs inside nodes."""
    graphs = [model.graph, *(graph for part in model.training_info for graph in (part.initialization, part.algorithm))]
    found = [tensor for graph in graphs for tensor in _of_graph(graph)]
    for function in model.functions:
        found += _of_attributes(function.attribute_proto)
        found += _of_nodes(function.node)
    return found


def _of_graph(graph: Any) -> list[Any]:
    return [*graph.initializer, *_of_sparse(graph.sparse_initializer), *_of_nodes(graph.node)]


def _of_nodes(nodes: Any) -> list[Any]:
    return [tensor for node in nodes for tensor in _of_attributes(node.attribute)]


def _of_attributes(attributes: Any) -> list[Any]:
    found = []
    for attribute in attributes:
        found += [attribute.t, *attribute.tensors]
        found += _of_sparse([attribute.sparse_tensor, *attribute.sparse_tensors])
        for inner in (attribute.g, *attribute.graphs):
            found += _of_graph(inner)
    return found


def _of_sparse(sparse_tensors: Any) -> list[Any]:
    return [tensor for sparse in sparse_tensors for tensor in (sparse.values, sparse.indices)]


def image_input(model: Any, where: str) -> ImageInput:
    """The input of a graph that takes pictures and gives one embedding.

    Raises:
        InputError: More than one input or output, or another shape or type.
    """
    import onnx

    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for kind, values in (("inputs", inputs), ("outputs", model.graph.output)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values[:5])
            raise InputError(where, f"{len(values)} {kind}: {names}", ANOTHER)
    name, tensor = inputs[0].name, inputs[0].type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]
    shown = "x".join("?" if d is None else str(d) for d in shape)
    if len(shape) != 4:
        raise InputError(where, f"input {name} is {shown or 'a scalar'}, not batch x 3 x height x width", ANOTHER)
    as_bytes = tensor.elem_type == onnx.TensorProto.UINT8 and shape[3] == 3
    if shape[1] != 3 and not as_bytes:
        fix = "export it with channels first" if shape[3] == 3 else "export it with three channels"
        raise InputError(where, f"input {name} is {shown}, not batch x 3 x height x width", fix)
    if tensor.elem_type != onnx.TensorProto.FLOAT and not as_bytes:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InputError(where, f"input {name} is {kind}, not float", "export it with a float32 input")
    sides = shape[1:3] if as_bytes else shape[2:]
    size = None if sides[0] is None or sides[1] is None else (sides[0], sides[1])
    return ImageInput(name, shape[0], size, as_bytes)


def metadata_of(model: Any) -> dict[str, str]:
    """What a file says of itself, without the digest that seals it: that is of this file alone."""
    return {entry.key: entry.value for entry in model.metadata_props if entry.key != SEAL}


def stored_preprocessing(metadata: dict[str, str], size: tuple[int, int] | None, where: str) -> Preprocessing | None:
    """What a file's metadata says of its images, or None where it says nothing.

    Raises:
        InputError: It cannot be read, or names another size than the file's input has.
    """
    said = {key: metadata[METADATA_PREFIX + key] for key in METADATA_KEYS if METADATA_PREFIX + key in metadata}
    stored = Preprocessing.from_metadata(said, where) if said else None
    if stored is not None and size is not None and stored.size != size:
        raise InputError(where, f"its metadata says {stored.size} pixels, its input is {size}", "export it again")
    return stored


def open_session(data: bytes, where: str, *, threads: int, cuda: bool = False) -> Any:
    """onnxruntime's InferenceSession of a file's bytes.

    Raises:
        InputError: onnxruntime refuses it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    wanted = ["CUDAExecutionProvider"] if cuda else []
    available = onnxruntime.get_available_providers()
    providers = [p for p in (*wanted, "CPUExecutionProvider") if p in available]
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:
        raise _refusal(str(error), where) from None


def _refusal(message: str, where: str) -> InputError:
    """onnxruntime's message in short: it begins with a place in its source longer than what it says."""
    newer = _NEWER_OPSET.search(message) or _NEWER_FORMAT.search(message)
    if newer:
        what = f"is of {'opset' if newer.re is _NEWER_OPSET else 'IR version'} {newer[1]}, newer than the {newer[2]}"
        return InputError(where, f"{what} this onnxruntime knows", "export it again at that, or update onnxruntime")
    short = " ".join(message.split())[:200]
    return InputError(where, f"onnxruntime refuses it: {short}", "export it again, with a lower opset perhaps")
