"""Opening models: what we saved, what others saved, run folders, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from facekd.errors import CheckpointError, DeviceError, InputError, NonFiniteError
from facekd.models import safetensors_file, weights
from facekd.models.backbone import build_backbone
from facekd.models.embedder import load_embedder
from facekd.models.preprocessing import Preprocessing

OPTIONS = {"channels": "8,16", "blocks": "1,1"}
FOREIGN = {"color": "rgb", "normalize": "half"}


def tiny() -> nn.Module:
    module = build_backbone("resnet_tiny", embedding_size=16, input_size=32, options=OPTIONS)
    with torch.no_grad():
        module.train()(torch.randn(16, 3, 32, 32))
    return module.eval()


def save(path: Path, module: nn.Module, preprocessing: Preprocessing | None = None) -> str:
    return weights.save_model(
        path,
        module,
        backbone="resnet_tiny",
        embedding_size=16,
        options=OPTIONS,
        preprocessing=preprocessing or Preprocessing.named("128", "bgr", (32, 32)),
        extra={"teacher_digest": "abc"},
    )


def pixels(count: int, size: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_a_saved_model_opens_as_it_was(tmp_path: Path) -> None:
    module = tiny()
    digest = save(tmp_path / "student.safetensors", module)
    embedder = load_embedder(tmp_path / "student.safetensors")
    assert all(torch.equal(value, module.state_dict()[key]) for key, value in embedder.module.state_dict().items())
    assert (embedder.digest, embedder.embedding_size) == (digest, 16)
    assert embedder.preprocessing == Preprocessing.named("128", "bgr", (32, 32))
    assert embedder.metadata["teacher_digest"] == "abc"
    assert embedder.parameters == sum(p.numel() for p in module.parameters())
    assert not embedder.module.training


def test_embeddings_are_those_of_the_module_on_its_own_preprocessing(tmp_path: Path) -> None:
    module = tiny()
    save(tmp_path / "a.safetensors", module)
    images = pixels(3, 32)
    found = load_embedder(tmp_path / "a.safetensors").embed(images)
    with torch.no_grad():
        expected = module((images.flip(1).float() - 127.5) / 128)
    assert found.dtype == torch.float32 and not found.requires_grad and not found.is_inference()
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_run_folder_opens_its_student(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    with pytest.raises(CheckpointError, match="a folder without student.safetensors"):
        load_embedder(run)
    save(run / "student.safetensors", tiny())
    embedder = load_embedder(run)
    assert embedder.name == "runs/first"
    assert embedder.digest == weights.file_digest(run / "student.safetensors")


def test_opening_leaves_the_random_state_alone(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", tiny())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_embedder(tmp_path / "a.safetensors")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("name", "options", "embedding_size", "size"),
    [
        ("iresnet18", {}, 128, 112),
        ("iresnet34", {}, 64, 64),
        ("mobilefacenet", {}, 512, 112),
        ("mobilefacenet", {"width": 0.5, "activation": "relu"}, 64, 64),
        ("mobilefacenet", {"width": 0.3, "affine": True}, 64, 64),
        ("mobilefacenet_insightface", {}, 256, 112),
        ("resnet_tiny", {"channels": "8,16,24", "blocks": "1,2,1", "activation": "prelu"}, 16, 64),
    ],
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_bare_state_dicts_are_recognised(
    tmp_path: Path, name: str, options: dict[str, object], embedding_size: int, size: int, suffix: str
) -> None:
    module = build_backbone(name, embedding_size=embedding_size, input_size=size, options=options).eval()
    path = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        torch.save(module.state_dict(), path)
    else:
        save_file(module.state_dict(), path)
    embedder = load_embedder(path, **FOREIGN)
    assert embedder.metadata["backbone"] == name
    assert (embedder.embedding_size, embedder.preprocessing.size) == (embedding_size, (size, size))
    assert embedder.embed(pixels(1, size)).shape == (1, embedding_size)
    assert all(torch.equal(embedder.module.state_dict()[key], value) for key, value in module.state_dict().items())


def test_facex_zoo_keys_are_read_as_mobilefacenet(tmp_path: Path) -> None:
    module = build_backbone("mobilefacenet", embedding_size=32, input_size=64, options={"affine": True}).eval()
    state = {f"backbone.{key.removeprefix('output_layer.')}": value for key, value in module.state_dict().items()}
    torch.save({"state_dict": state | {"head.weight": torch.zeros(32, 5)}}, tmp_path / "Epoch_17.pt")
    embedder = load_embedder(tmp_path / "Epoch_17.pt", color="bgr", normalize="128")
    with torch.no_grad():
        expected = module((pixels(2, 64).flip(1).float() - 127.5) / 128)
    assert torch.allclose(embedder.embed(pixels(2, 64)), expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


def test_a_file_that_could_be_anybody_s_asks_for_colour_and_scaling(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    torch.save(tiny().state_dict(), path)
    with pytest.raises(InputError, match="tiny.pt: does not say its colour order and scaling .add --color rgb.bgr and"):
        load_embedder(path)
    with pytest.raises(InputError, match="tiny.pt: does not say its scaling .add --normalize half.128.imagenet.unit"):
        load_embedder(path, color="rgb")


def test_a_contradiction_of_the_metadata_is_an_error(tmp_path: Path) -> None:
    save(tmp_path / "a.safetensors", tiny())
    load_embedder(tmp_path / "a.safetensors", color="bgr", normalize="128")
    with pytest.raises(InputError, match="colour order is bgr, not rgb"):
        load_embedder(tmp_path / "a.safetensors", color="rgb")


def test_unknown_keys_are_listed(tmp_path: Path) -> None:
    torch.save({f"body.{i}.weight": torch.ones(1) for i in range(9)}, tmp_path / "a.pt")
    with pytest.raises(
        CheckpointError, match=r"9 tensors: body.0.weight, body.1.weight, body.2.weight ... body.8.weight"
    ):
        load_embedder(tmp_path / "a.pt", **FOREIGN)


def test_an_iresnet_of_another_depth_says_its_blocks(tmp_path: Path) -> None:
    state = build_backbone("iresnet18", embedding_size=8, input_size=32).state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("layer3.1.")}
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"an iresnet of blocks \(2, 2, 1, 2\)"):
        load_embedder(tmp_path / "a.pt", **FOREIGN)


def test_a_lost_tensor_is_named(tmp_path: Path) -> None:
    state = build_backbone("iresnet18", embedding_size=8, input_size=32).state_dict()
    del state["layer2.1.prelu.weight"]
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="a.pt: 1 missing tensors: layer2.1.prelu.weight"):
        load_embedder(tmp_path / "a.pt", **FOREIGN)


def test_non_finite_weights_are_named(tmp_path: Path) -> None:
    state = build_backbone("iresnet18", embedding_size=8, input_size=32).state_dict()
    state["layer2.1.prelu.weight"][:7] = float("nan")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(NonFiniteError, match="a.pt: layer2.1.prelu.weight: 7 non-finite values"):
        load_embedder(tmp_path / "a.pt", **FOREIGN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "facekd-model-9"}, "format is facekd-model-9, not facekd-model-1"),
        ({"backbone": "resnet_tony"}, "cannot be built: resnet_tony: unknown backbone .did you mean resnet_tiny"),
        ({"options": '{"depth": 1}'}, "unknown option depth"),
        ({"options": "[]"}, r"its options are \[\]"),
        ({"options": "{"}, "its metadata cannot be read"),
        ({"embedding_size": "many"}, "its metadata cannot be read"),
        ({"embedding_size": "17"}, "1 missing|misshapen tensors: linear.weight"),
        ({"size": "64x64"}, "misshapen tensors: pool.0.weight"),
        ({"std": "0,1,1"}, "is not three positive numbers"),
    ],
)
def test_metadata_that_lies_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = tmp_path / "a.safetensors"
    save(path, tiny())
    state, metadata = weights.read_state(path)
    safetensors_file.write(path, state, metadata | change)
    with pytest.raises(InputError, match=message) as caught:
        load_embedder(path)
    assert str(caught.value).startswith(str(path))


def test_other_files_and_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.h5").touch()
    with pytest.raises(InputError, match="a.h5: .h5 is no model file .known: .safetensors .pt .pth .ckpt .onnx"):
        load_embedder(tmp_path / "a.h5")
    with pytest.raises(InputError, match="none.pt: no such file or folder .looked from"):
        load_embedder(tmp_path / "none.pt")
    save(tmp_path / "a.safetensors", tiny())
    with pytest.raises(DeviceError, match="xpu:7: no such device here"):
        load_embedder(tmp_path / "a.safetensors", device="xpu:7")
