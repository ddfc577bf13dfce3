"""An ONNX file as an embedder, run by onnxruntime."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facekd.errors import InputError
from facekd.models.preprocessing import METADATA_KEYS, Preprocessing, settle
from facekd.models.weights import read_bytes

METADATA_PREFIX = "facekd."
DEFAULT_SIZE = 112
_ANOTHER = "export one image input and one embedding output"


@dataclass(frozen=True)
class OnnxEmbedder:
    """An ONNX model with its preprocessing; embeddings come out on the CPU. The attributes are those of `Embedder`.

    Args:
        session: onnxruntime's InferenceSession.
        batch: The one batch size the graph takes, or None for any.
    """

    name: str
    digest: str
    embedding_size: int
    preprocessing: Preprocessing
    metadata: dict[str, str]
    parameters: int
    session: Any
    batch: int | None
    warnings: tuple[str, ...] = ()

    def embed(self, images: Tensor) -> Tensor:
        """uint8 RGB (batch, 3, height, width) at ``preprocessing.size`` to float32 raw embeddings (batch, dim).

        A graph with a fixed batch is run as often as needed, the last time with repeated images whose embeddings are
        dropped.
        """
        pixels = self.preprocessing.apply(images.cpu()).contiguous().numpy()
        if self.batch is None:
            return torch.from_numpy(self._run(pixels))
        found = [np.zeros((0, self.embedding_size), np.float32)]
        for start in range(0, len(pixels), self.batch):
            part = pixels[start : start + self.batch]
            padded = part[np.arange(self.batch) % len(part)]
            found.append(self._run(padded)[: len(part)])
        return torch.from_numpy(np.concatenate(found))

    def _run(self, pixels: np.ndarray) -> np.ndarray:
        name = self.session.get_inputs()[0].name
        (embedding,) = self.session.run(None, {name: pixels})
        return np.asarray(embedding, dtype=np.float32)


def load_onnx(
    path: Path, name: str, *, color: str | None = None, normalize: str | None = None, cuda: bool = False
) -> OnnxEmbedder:
    """Open a self-contained ONNX file with one image input and one embedding output.

    Args:
        path: The file.
        name: What the model is called in reports.
        color: Colour order, for a file that does not say.
        normalize: Scaling, for a file that does not say.
        cuda: Run on CUDA where onnxruntime has it.

    Raises:
        InputError: Truncated, refers to other files, another shape than (batch, 3, height, width), more than one
            input or output, or says nothing of its preprocessing.
    """
    where, data = str(path), read_bytes(path)
    model = _parse(data, where)
    batch, size = _input_shape(model, where)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    stored = _stored(metadata, where)
    if stored is not None and size is not None and stored.size != size:
        raise InputError(where, f"its metadata says {stored.size} pixels, its input is {size}", "export it again")
    preprocessing = settle(stored, color, normalize, size=size or (DEFAULT_SIZE, DEFAULT_SIZE), where=where)
    session = _session(data, where, cuda)
    parameters = sum(int(np.prod(weight.dims)) for weight in model.graph.initializer)
    embedder = OnnxEmbedder(
        name, hashlib.sha256(data).hexdigest(), 0, preprocessing, metadata, parameters, session, batch
    )
    return _measured(embedder, where)


def _parse(data: bytes, where: str) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(data)
    except (DecodeError, ValueError):
        raise InputError(where, "truncated, damaged or no ONNX file", "copy or export it again") from None
    if not model.graph.node:
        raise InputError(where, "holds no graph", "copy or export it again")
    outside = [t.name for t in _tensors(model.graph) if t.data_location == onnx.TensorProto.EXTERNAL]
    if outside:
        what = f"keeps {len(outside)} tensors in another file, {outside[0]} for one"
        raise InputError(where, what, "save it as one file: onnx.save(model, path, save_as_external_data=False)")
    return model


def _tensors(graph: Any) -> list[Any]:
    """Every tensor stored in a graph, those of nodes and of graphs inside nodes too."""
    found = list(graph.initializer)
    for sparse in graph.sparse_initializer:
        found += [sparse.values, sparse.indices]
    for node in graph.node:
        for attribute in node.attribute:
            found += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                found += _tensors(inner)
    return found


def _input_shape(model: Any, where: str) -> tuple[int | None, tuple[int, int] | None]:
    """The fixed batch or None, and the fixed (height, width) or None."""
    import onnx

    weights = {weight.name for weight in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    for kind, values in (("inputs", inputs), ("outputs", model.graph.output)):
        if len(values) != 1:
            names = ", ".join(value.name for value in values[:5])
            raise InputError(where, f"{len(values)} {kind}: {names}", _ANOTHER)
    tensor = inputs[0].type.tensor_type
    shape = [d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim]
    shown = "x".join("?" if d is None else str(d) for d in shape)
    if len(shape) != 4:
        raise InputError(
            where, f"input {inputs[0].name} is {shown or 'a scalar'}, not batch x 3 x height x width", _ANOTHER
        )
    if shape[1] != 3:
        fix = "export it with channels first" if shape[3] == 3 else "export it with three channels"
        raise InputError(where, f"input {inputs[0].name} is {shown}, not batch x 3 x height x width", fix)
    if tensor.elem_type != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type).lower()
        raise InputError(where, f"input {inputs[0].name} is {kind}, not float", "export it with a float32 input")
    size = None if shape[2] is None or shape[3] is None else (shape[2], shape[3])
    return shape[0], size


def _stored(metadata: dict[str, str], where: str) -> Preprocessing | None:
    said = {key: metadata[METADATA_PREFIX + key] for key in METADATA_KEYS if METADATA_PREFIX + key in metadata}
    return Preprocessing.from_metadata(said, where) if said else None


def _session(data: bytes, where: str, cuda: bool) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ["CUDAExecutionProvider"] if cuda else []
    available = onnxruntime.get_available_providers()
    providers = [p for p in (*wanted, "CPUExecutionProvider") if p in available]
    try:
        return onnxruntime.InferenceSession(data, options, providers=providers)
    except Exception as error:
        short = " ".join(str(error).split())[:200]
        raise InputError(
            where, f"onnxruntime refuses it: {short}", "export it again, with a lower opset perhaps"
        ) from None


def _measured(embedder: OnnxEmbedder, where: str) -> OnnxEmbedder:
    """The embedder with its true width, after one run that must give a finite vector."""
    height, width = embedder.preprocessing.size
    image = torch.arange(3 * height * width).remainder(251).to(torch.uint8).view(1, 3, height, width)
    try:
        probe = replace(embedder, batch=None)._run(
            embedder.preprocessing.apply(image).expand(embedder.batch or 1, 3, height, width).contiguous().numpy()
        )
    except Exception as error:
        raise InputError(where, f"does not run at {height}x{width}: {' '.join(str(error).split())[:160]}") from None
    if probe.ndim != 2 or len(probe) != (embedder.batch or 1):
        raise InputError(where, f"gives {probe.shape} for one image, not one embedding", _ANOTHER)
    if not np.isfinite(probe).all():
        raise InputError(where, "gives NaN or infinity for an ordinary image", "export it again from sound weights")
    return replace(embedder, embedding_size=probe.shape[1])
