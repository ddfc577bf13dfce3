"""Weight files: bit-equal round trips, equal bytes for equal models, atomic writes, and every refusal."""

from __future__ import annotations

import os
import pickle
import resource
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import nn

from facekd.errors import CheckpointError, DeviceError, NonFiniteError
from facekd.models import weights
from facekd.models.backbone import build_backbone
from facekd.models.preprocessing import Preprocessing

OPTIONS = {"channels": "8,16", "blocks": "1,1"}


def tiny() -> nn.Module:
    return build_backbone("resnet_tiny", embedding_size=16, input_size=32, options=OPTIONS)


def save(path: Path, module: nn.Module, **extra: str) -> str:
    return weights.save_model(
        path,
        module,
        backbone="resnet_tiny",
        embedding_size=16,
        options=OPTIONS,
        preprocessing=Preprocessing.named("half", size=(32, 32)),
        extra=extra,
    )


def refusal(path: Path, kind: type[Exception] = CheckpointError) -> str:
    with pytest.raises(kind) as caught:
        weights.read_state(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    return message


def test_tensors_and_metadata_come_back(tmp_path: Path) -> None:
    module, path = tiny(), tmp_path / "student.safetensors"
    digest = save(path, module, recipe_digest="abc")
    state, metadata = weights.read_state(path)
    assert digest == weights.file_digest(path)
    assert set(state) == set(module.state_dict())
    assert all(torch.equal(state[key], value) for key, value in module.state_dict().items())
    assert metadata["format"] == "facekd-model-1"
    assert (metadata["backbone"], metadata["embedding_size"], metadata["size"]) == ("resnet_tiny", "16", "32x32")
    assert metadata["recipe_digest"] == "abc"


def test_equal_models_give_equal_bytes(tmp_path: Path) -> None:
    module = tiny()
    assert save(tmp_path / "a.safetensors", module) == save(tmp_path / "b.safetensors", module)
    last = module.to(memory_format=torch.channels_last)
    assert save(tmp_path / "c.safetensors", last) == weights.file_digest(tmp_path / "a.safetensors")


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    from safetensors import safe_open

    save(tmp_path / "a.safetensors", tiny())
    with safe_open(tmp_path / "a.safetensors", "pt") as stream:
        assert stream.metadata()["backbone"] == "resnet_tiny"
        assert stream.get_tensor("linear.weight").shape == (16, 16)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    before = save(path, tiny())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(DeviceError, match="student.safetensors: cannot be written: File too large"):
            save(path, tiny())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == ["student.safetensors"]
    assert weights.file_digest(path) == before


def test_the_file_has_the_mode_of_the_umask(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", tiny())
    umask = os.umask(0)
    os.umask(umask)
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask


def test_non_finite_weights_are_named_and_not_written(tmp_path: Path) -> None:
    module = tiny()
    module.get_parameter("linear.weight").data[0, :3] = float("nan")
    with pytest.raises(NonFiniteError, match=r"linear.weight: 3 non-finite values"):
        save(tmp_path / "a.safetensors", module)
    assert os.listdir(tmp_path) == []


def test_empty_and_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    assert "cannot be read: No such file" in refusal(path)
    path.touch()
    assert "empty file" in refusal(path)


def test_truncated_safetensors_says_how_much_is_there(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, tiny())
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    assert f"truncated: {len(data) - 100} of {len(data)} bytes" in refusal(path)
    path.write_bytes(data[:500])
    assert "truncated: the header alone needs" in refusal(path)


@pytest.mark.parametrize("data", [b"<html>not found</html>", b"\x10" + b"\0" * 7 + b"[1,2,3]         ", b"abc"])
def test_what_is_no_safetensors_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(data)
    assert "safetensors file" in refusal(path)


def test_truncated_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(tiny().state_dict(), path)
    path.write_bytes(path.read_bytes()[:-2000])
    assert "truncated" in refusal(path)


@pytest.mark.parametrize("cut", [3, 40, 200, -100])
def test_truncated_old_style_torch_file(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.pth"
    torch.save(tiny().state_dict(), path, _use_new_zipfile_serialization=False)
    assert set(weights.read_state(path)[0]) == set(tiny().state_dict())
    path.write_bytes(path.read_bytes()[:cut])
    assert "truncated, damaged or no checkpoint" in refusal(path)


def test_text_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_text("<html>404</html>")
    assert "not a checkpoint (it begins with b'<html>404" in refusal(path)


class _Payload:
    def __reduce__(self) -> tuple:
        return (os.mkdir, ("owned",))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_named_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zipped: bool) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.pt"
    torch.save({"a": _Payload()}, path, _use_new_zipfile_serialization=zipped)
    message = refusal(path)
    assert f"pickled code: asks for {os.mkdir.__module__}.mkdir; nothing was run" in message
    assert not (tmp_path / "owned").exists()


def test_plain_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(_Payload(), protocol=2))
    assert "a.pt: " in refusal(path)
    assert not Path("owned").exists()


def test_a_whole_module_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(nn.Linear(2, 2), path)
    assert "a whole nn.Module (torch.nn.modules.linear.Linear), which is pickled code" in refusal(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_torchscript_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.jit.script(nn.Linear(2, 2)).save(str(path))
    assert "a TorchScript archive, which is a program" in refusal(path)


def test_archives_that_torch_never_writes_are_refused(tmp_path: Path) -> None:
    path, plain = tmp_path / "a.pt", tmp_path / "plain.pt"
    torch.save({"a": torch.zeros(1000)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert "compressed" in refusal(path)
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("readme.txt", "hello")
    assert "a zip archive but no checkpoint" in refusal(path)
    with zipfile.ZipFile(path, "w") as target, pytest.warns(UserWarning, match="Duplicate"):
        target.writestr("a/data.pkl", "1")
        target.writestr("a/data.pkl", "2")
    assert "holds one entry twice" in refusal(path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"state_dict_backbone": state, "state_dict_softmax_fc": {"weight": torch.zeros(2, 2)}},
        lambda state: OrderedDict((f"module.{key}", value) for key, value in state.items()),
        lambda state: {f"module._orig_mod.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"backbone.{k}": v for k, v in state.items()} | {"head.weight": torch.ones(2)}},
    ],
)
def test_containers_and_prefixes_come_off(tmp_path: Path, wrap) -> None:
    state = tiny().state_dict()
    torch.save(wrap(state), tmp_path / "a.pth")
    found, metadata = weights.read_state(tmp_path / "a.pth")
    assert list(found) == list(state) and metadata == {}
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds nothing, not a state dict"),
        ({"a": torch.ones(1), "lr": 0.1}, "lr is no tensor (1 such entries, 2 in all)"),
        (torch.ones(3), "holds a Tensor, not a state dict"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "a.pt")
    assert message in refusal(tmp_path / "a.pt")


def test_mismatches_give_first_three_and_counts() -> None:
    module = tiny()
    state = module.state_dict()
    for key in list(state)[:5]:
        state[f"extra.{key}"] = state.pop(key)
    state["linear.weight"] = torch.zeros(3, 16)
    with pytest.raises(CheckpointError) as caught:
        weights.load_weights(module, state, "a.pt")
    message = str(caught.value)
    assert "5 missing tensors: stem.0.weight, stem.1.weight, stem.1.bias ..." in message
    assert "5 unexpected tensors: extra.stem.0.weight" in message
    assert "1 misshapen tensors: linear.weight is (3, 16), not (16, 16)" in message


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32])
def test_types_that_would_lose_values_are_refused(dtype: torch.dtype) -> None:
    module = tiny()
    state = module.state_dict() | {"linear.weight": torch.zeros(16, 16, dtype=dtype)}
    with pytest.raises(CheckpointError, match=f"linear.weight is {dtype}, not torch.float32"):
        weights.load_weights(module, state, "a.pt")


def test_half_precision_is_widened_exactly() -> None:
    module = tiny()
    half = torch.randn(16, 16).half()
    weights.load_weights(module, module.state_dict() | {"linear.weight": half}, "a.pt")
    assert torch.equal(module.get_parameter("linear.weight"), half.float())


def test_a_repeated_value_posing_as_a_tensor_is_refused() -> None:
    module = tiny()
    state = module.state_dict() | {"linear.weight": torch.zeros(1).expand(16, 16)}
    with pytest.raises(CheckpointError, match="stores fewer values than it claims"):
        weights.load_weights(module, state, "a.pt")


def test_non_finite_weights_are_refused_on_reading() -> None:
    module = tiny()
    state = module.state_dict() | {"bn.running_var": torch.full((16,), float("inf"))}
    with pytest.raises(NonFiniteError, match="a.pt: bn.running_var: 16 non-finite values"):
        weights.load_weights(module, state, "a.pt")


def test_the_classifier_comes_back_with_its_names(tmp_path: Path) -> None:
    path, class_weights = tmp_path / "classifier.safetensors", torch.randn(2, 4)
    weights.save_classifier(path, class_weights, ["Ada", "Brünn, the 2nd"], "trained")
    found, names, source = weights.load_classifier(path)
    assert torch.equal(found, class_weights)
    assert (names, source) == (["Ada", "Brünn, the 2nd"], "trained")
    with pytest.raises(ValueError, match="1 names for 2 class weights"):
        weights.save_classifier(path, class_weights, ["Ada"], "trained")


def test_a_model_is_no_classifier(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", tiny())
    with pytest.raises(CheckpointError, match="format is facekd-model-1, not facekd-classifier-1"):
        weights.load_classifier(tmp_path / "a.safetensors")
