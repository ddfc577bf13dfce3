"""Whose checkpoint a file is: containers, prefixes and keys of every project, and what cannot be told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from published_pocketnet import published
from torch import Tensor

from facekd.errors import CheckpointError, InputError
from facekd.models.backbone import build_backbone
from facekd.models.dialect_structure import structure_of
from facekd.models.dialect_unwrap import unwrap
from facekd.models.dialects import recognise
from facekd.models.embedder import load_embedder
from facekd.models.opening import self_test, self_test_images
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import load_checkpoint, read_state

State = dict[str, Tensor]


def layout(name: str, dim: int = 64, size: int = 112, **options: object) -> State:
    """A backbone's state dict without its values: enough for whatever looks at keys and shapes."""
    with torch.device("meta"):
        return build_backbone(name, embedding_size=dim, input_size=size, options=options).state_dict()


def filled(name: str, dim: int = 16, size: int = 32, **options: object) -> State:
    """The same with values, small."""
    torch.manual_seed(0)
    return build_backbone(name, embedding_size=dim, input_size=size, options=options).state_dict()


def prefixed(prefix: str, state: State) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def matrix(rows: int, columns: int) -> Tensor:
    return torch.arange(rows * columns, dtype=torch.float32).view(rows, columns)


def at_the_top(state: State) -> State:
    return {key.removeprefix("output_layer."): value for key, value in state.items()}


@dataclass(frozen=True)
class Case:
    """One kind of file and what it must be taken for."""

    tree: Callable[[], object]
    source: str
    color: str | None
    normalize: str | None
    title: str
    file: str = "model.pt"
    classes: int | None = None
    classes_first: bool = True
    container: str = ""
    prefixes: tuple[str, ...] = ()


def pfc() -> object:
    return {
        "epoch": 3,
        "global_step": 70_000,
        "state_dict_backbone": prefixed("module.", layout("iresnet50")),
        "state_dict_softmax_fc": {"weight": matrix(10, 64)},
        "state_optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]},
        "state_lr_scheduler": {"base_lrs": [0.1], "last_epoch": 3},
    }


CASES = {
    "arcface_torch r50": Case(
        lambda: layout("iresnet50"), "arcface_torch iresnet", "rgb", "half", "iresnet50", "backbone.pth"
    ),
    "arcface_torch r100, two wrappers": Case(
        lambda: prefixed("module._orig_mod.", layout("iresnet100")),
        *("arcface_torch iresnet", "rgb", "half", "iresnet100"),
        prefixes=("module.", "_orig_mod."),
    ),
    "arcface_torch partial FC": Case(
        pfc,
        *("arcface_torch iresnet", "rgb", "half", "iresnet50"),
        file="checkpoint_gpu_0.pt",
        classes=10,
        container="state_dict_backbone",
        prefixes=("module.",),
    ),
    "arcface_torch mbf": Case(
        lambda: layout("mobilefacenet_insightface"), "arcface_torch mbf", "rgb", "half", "mobilefacenet_insightface"
    ),
    "arcface_torch mbf_large": Case(
        lambda: layout("mobilefacenet_insightface_large"),
        *("arcface_torch mbf", "rgb", "half", "mobilefacenet_insightface_large"),
    ),
    "arcface_torch vit_b": Case(lambda: layout("vit_b"), "arcface_torch vit", "rgb", "half", "vit_b"),
    "MagFace, features inside": Case(
        lambda: {
            "epoch": 25,
            "arch": "iresnet100",
            "state_dict": prefixed("features.module.", layout("iresnet100")) | {"fc.weight": matrix(64, 10)},
        },
        *("MagFace iresnet", "bgr", "unit", "iresnet100"),
        file="00025.pth",
        classes=10,
        classes_first=False,
        container="state_dict",
        prefixes=("features.", "module."),
    ),
    "MagFace, module outside": Case(
        lambda: {"state_dict": prefixed("module.", prefixed("features.", layout("iresnet18")))},
        *("MagFace iresnet", "bgr", "unit", "iresnet18"),
        container="state_dict",
        prefixes=("module.", "features."),
    ),
    "PocketNet teacher": Case(
        lambda: layout("iresnet100"),
        *("PocketNet or AdaDistill iresnet", "rgb", "half", "iresnet100"),
        file="295672backbone.pth",
    ),
    "FaceX-Zoo MobileFaceNet": Case(
        lambda: {
            "state_dict": prefixed("backbone.", at_the_top(layout("mobilefacenet", affine=True)))
            | {"head.weight": matrix(64, 10)},
            "epoch": 17,
            "batch_id": 0,
        },
        *("FaceX-Zoo MobileFaceNet", "bgr", "128", "mobilefacenet"),
        file="Epoch_17.pt",
        classes=10,
        classes_first=False,
        container="state_dict",
        prefixes=("backbone.",),
    ),
    "FaceX-Zoo Resnet": Case(
        lambda: {
            "state_dict": prefixed("backbone.", layout("ir50", se=True, older=True)) | {"head.weight": matrix(64, 10)}
        },
        *("FaceX-Zoo Resnet", "bgr", "128", "IR-SE-50, older form"),
        classes=10,
        classes_first=False,
        container="state_dict",
        prefixes=("backbone.",),
    ),
    "AdaFace": Case(
        lambda: {
            "state_dict": prefixed("model.", layout("ir50"))
            | {"head.kernel": matrix(64, 10), "head.t": torch.zeros(1), "head.batch_mean": torch.ones(1)},
            "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(2)}}}],
            "pytorch-lightning_version": "1.4.4",
        },
        *("AdaFace IR", "bgr", "half", "IR-50"),
        file="adaface_ir50_ms1mv2.ckpt",
        classes=10,
        classes_first=False,
        container="state_dict",
        prefixes=("model.",),
    ),
    "CVLface without its yaml": Case(
        lambda: prefixed("net.", layout("ir101")), "CVLface IR", None, "half", "IR-101", prefixes=("net.",)
    ),
    "TFace by file name": Case(
        lambda: layout("ir101"), "TFace IR", "rgb", "half", "IR-101", "Backbone_Epoch_18_checkpoint.pth"
    ),
    "IR of nobody in particular": Case(
        lambda: layout("ir18"), "TFace, AdaFace or CVLface IR", None, "half", "IR-18", "ir18.pth"
    ),
    "bottlenecks": Case(
        lambda: layout("ir152", se=True), "TFace, AdaFace or CVLface IR", None, "half", "IR-SE-152", "x.pth"
    ),
    "evoLVe": Case(
        lambda: layout("ir50", older=True),
        *("evoLVe or TreB1eN IR", "rgb", "half", "IR-50, older form"),
        file="Backbone_IR_50_Epoch_125_Batch_2_checkpoint.pth",
    ),
    "evoLVe 152 of two convolutions": Case(
        lambda: layout("ir152", se=True, older=True), "evoLVe or TreB1eN IR", "rgb", "half", "IR-SE-152, older form"
    ),
    "TFace or AdaDistill MobileFaceNet": Case(
        lambda: layout("mobilefacenet"), "TFace or AdaDistill MobileFaceNet", "rgb", "half", "mobilefacenet"
    ),
    "MobileFaceNet with its head at the top": Case(
        lambda: at_the_top(layout("mobilefacenet", affine=True)),
        *("FaceX-Zoo, evoLVe or TreB1eN MobileFaceNet", None, None, "mobilefacenet"),
    ),
    "foamliu": Case(
        lambda: layout("mobilefacenet_foamliu"), "foamliu MobileFaceNet", "rgb", "imagenet", "mobilefacenet_foamliu"
    ),
    "PocketNet S": Case(
        lambda: published(channels=16, cells=18, dim=64),
        *("PocketNet", "rgb", "half", "pocketnet_s"),
        file="295672backbone.pth",
    ),
    "PocketNet M, wrapped": Case(
        lambda: prefixed("module.", published(channels=32, cells=9, dim=64)),
        *("PocketNet", "rgb", "half", "pocketnet_m"),
        prefixes=("module.",),
    ),
    "PocketNet of ours without metadata": Case(
        lambda: layout("pocketnet_m"), "facekd PocketNet", None, None, "pocketnet_m"
    ),
    "our own without metadata": Case(
        lambda: layout("resnet_tiny"), "facekd resnet_tiny", None, None, "resnet_tiny", "tiny.pt"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_project_is_known_by_its_files(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    found = recognise(case.tree(), str(tmp_path / case.file))
    assert (found.source, found.color, found.normalize) == (case.source, case.color, case.normalize)
    built = found.structure
    assert (built.title, built.embedding_size, built.input_size) == (case.title, 64, 112)
    assert (found.container, tuple(prefix for prefix, _ in found.prefixes)) == (case.container, case.prefixes)
    own = layout(built.backbone, **built.options)
    assert {key: value.shape for key, value in built.state.items()} == {k: v.shape for k, v in own.items()}
    assert all(count == len(own) for _, count in found.prefixes)
    if case.classes is None:
        assert found.classifier is None
    else:
        stored = matrix(case.classes, 64) if case.classes_first else matrix(64, case.classes).T
        assert torch.equal(found.classifier, stored) and found.classes_first is case.classes_first


@pytest.mark.parametrize(("eps", "wrap"), [(1e-5, "module."), (2e-5, "features.module.")])
def test_magface_adds_twice_as_much_to_its_variances(eps: float, wrap: str, tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed(wrap, filled("iresnet18"))}, tmp_path / "a.pth")
    module = load_embedder(tmp_path / "a.pth").module
    assert {layer.eps for layer in module.modules() if hasattr(layer, "running_var")} == {eps}


@pytest.mark.parametrize(
    ("name", "options", "width", "size"),
    [
        ("ir18", {}, 32, 64),
        ("ir34", {"se": True}, 128, 112),
        ("ir101", {"older": True}, 256, 96),
        ("ir200", {"se": True}, 512, 112),
        ("vit_t", {}, 128, 112),
        ("vit_t", {}, 128, 63),
        ("mobilefacenet_foamliu", {}, 256, 64),
        ("mobilefacenet_insightface_large", {}, 32, 96),
    ],
)
def test_width_and_size_are_read_off(name: str, options: dict[str, object], width: int, size: int) -> None:
    found = structure_of(layout(name, width, size, **options))
    assert found is not None
    assert (found.backbone, dict(found.options), found.embedding_size, found.input_size) == (name, options, width, size)


@pytest.mark.parametrize(
    ("text", "color"),
    [("color_space: 'RGB'\nname: 'ir18'\n", "rgb"), ("name: 'ir18'\ncolor_space: 'BGR'\n", "bgr"), ("name: x\n", None)],
)
def test_cvlface_tells_its_colour_beside_the_file(text: str, color: str | None, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(text)
    for tree in (prefixed("net.", layout("ir18")), layout("ir18")):
        assert recognise(tree, str(tmp_path / "model.pt")).color == color
    assert recognise(layout("iresnet18"), str(tmp_path / "model.pt")).color == "rgb"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("color_space: GRB\n", "model.yaml: color_space is 'GRB' .write RGB or BGR"),
        ("color_space: [RGB\n", "model.yaml:1: "),
        ("a: 1\n" * 30_000, "model.yaml: 150,000 bytes are no model description"),
    ],
)
def test_a_broken_description_beside_the_file_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        recognise(prefixed("net.", layout("ir18")), str(tmp_path / "model.pt"))


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (
            lambda: {"model": layout("iresnet18"), "model_ema": layout("iresnet18")},
            r"holds several networks: model \(iresnet18\), model_ema \(iresnet18\)",
        ),
        (
            lambda: prefixed("student.", layout("mobilefacenet")) | prefixed("teacher.", layout("ir50", se=True)),
            r"holds several networks: student \(mobilefacenet\), teacher \(IR-SE-50\)",
        ),
        (
            lambda: {"state_dict": layout("iresnet18") | prefixed("module.", layout("iresnet18"))},
            r"holds several networks: state_dict \(iresnet18\), state_dict.module \(iresnet18\)",
        ),
        (
            lambda: prefixed("encoder.", layout("iresnet18")) | {"decoder.weight": torch.ones(2)},
            r"its tensors under encoder. are those of iresnet18, and others stand beside them",
        ),
    ],
    ids=["two containers", "student and teacher", "with and without a prefix", "one among others"],
)
def test_one_network_is_meant_or_none(tree: Callable[[], object], message: str) -> None:
    with pytest.raises(CheckpointError, match=f"^a.pt: {message}") as caught:
        recognise(tree(), "a.pt")
    assert "save the one you mean alone" in str(caught.value)


def test_item_087_a_prefix_on_some_keys_is_ambiguous() -> None:
    state = layout("iresnet18")
    keys = list(state)
    mixed = {f"module.{key}" if key in keys[:100] else key: state[key] for key in keys}
    with pytest.raises(CheckpointError, match="a.pt: 100 of its 187 keys begin with module., the others do not"):
        unwrap(mixed, "a.pt")


def test_item_087_prefixes_come_off_with_their_count_told(tmp_path: Path) -> None:
    torch.save(prefixed("module._orig_mod.", filled("iresnet18")), tmp_path / "a.pt")
    embedder = load_embedder(tmp_path / "a.pt")
    assert f"{tmp_path / 'a.pt'}: took module. off 187, _orig_mod. off 187 keys" in embedder.warnings


@pytest.mark.parametrize(
    ("options", "source", "expected"),
    [
        ({}, "dialect arcface_torch iresnet", ("rgb", "half")),
        ({"color": "bgr"}, "user", ("bgr", "half")),
        ({"color": "rgb", "normalize": "128"}, "user", ("rgb", "128")),
    ],
)
def test_the_convention_holds_where_the_user_is_silent(
    options: dict[str, str], source: str, expected: tuple[str, str], tmp_path: Path
) -> None:
    torch.save(filled("iresnet18"), tmp_path / "a.pt")
    embedder = load_embedder(tmp_path / "a.pt", **options)
    assert embedder.metadata["preprocessing_source"] == source
    assert embedder.preprocessing == Preprocessing.named(expected[1], expected[0], (32, 32))
    told = [line for line in embedder.warnings if "looks like arcface_torch iresnet, hence " in line]
    assert len(told) == (len(options) < 2)


def test_colour_alone_is_asked_for_where_only_it_is_open(tmp_path: Path) -> None:
    torch.save(filled("ir18"), tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: does not say its colour order .add --color rgb.bgr.$"):
        load_embedder(tmp_path / "a.pt")
    embedder = load_embedder(tmp_path / "a.pt", color="bgr")
    assert embedder.preprocessing == Preprocessing.named("half", "bgr", (32, 32))


def test_item_090_an_ir_se_is_not_read_as_an_ir(tmp_path: Path) -> None:
    from facekd.models.weights import load_weights, save_model

    plain = build_backbone("ir18", embedding_size=16, input_size=32)
    with pytest.raises(
        CheckpointError, match=r"16 unexpected tensors: .*; its tensors are those of IR-SE-18, not IR-18"
    ):
        load_weights(plain, filled("ir18", se=True), "a.pt")
    module = build_backbone("ir18", embedding_size=16, input_size=32, options={"se": True})
    said = Preprocessing.named("half", size=(32, 32))
    save_model(
        tmp_path / "a.safetensors",
        module,
        backbone="ir18",
        embedding_size=16,
        options={},
        preprocessing=said,
        extra={},
    )
    with pytest.raises(CheckpointError, match="its tensors are those of IR-SE-18, not IR-18"):
        load_embedder(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.weight": torch.tensor(1.0)}, "belongs to no backbone known here"),
        ({"fc.weight": torch.zeros(0, 0)}, "cannot be built: embedding_size: 0 is not a positive width"),
        ({"fc.bias": torch.tensor(1.0)}, r"1 misshapen tensors: fc.bias is \(\), not \(16,\)"),
        ({"bn1.weight": torch.zeros(0)}, r"1 misshapen tensors: bn1.weight is \(0,\), not \(64,\)"),
    ],
)
def test_item_091_tensors_without_axes_or_values(change: State, message: str, tmp_path: Path) -> None:
    torch.save(filled("iresnet18") | change, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        load_embedder(tmp_path / "a.pt")


def test_a_net_of_another_depth_says_its_blocks() -> None:
    state = {key: value for key, value in layout("ir34").items() if not key.startswith("body.15.")}
    with pytest.raises(CheckpointError, match=r"an IR of blocks \(3, 4, 6, 2\)"):
        recognise(state, "a.pt")


def test_a_file_that_claims_much_costs_little(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = build_backbone("resnet_tiny", embedding_size=16, input_size=32).state_dict()
    state["stages.0.conv1.0.weight"] = torch.zeros(500_000, 1, 1, 1)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="misshapen tensors"):
        load_embedder(tmp_path / "a.pt", color="rgb", normalize="half")


def test_a_net_that_sees_no_difference_is_refused(tmp_path: Path) -> None:
    state = filled("iresnet18")
    state["fc.weight"].zero_()
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: gives the same embedding for two different images"):
        load_embedder(tmp_path / "a.pt")
    state["fc.weight"].fill_(3e38)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(InputError, match="a.pt: gives NaN or infinity for an ordinary image"):
        load_embedder(tmp_path / "a.pt")


def test_the_pictures_of_the_self_test_differ_in_every_size() -> None:
    for size in ((112, 112), (32, 32), (48, 64)):
        first, second = self_test_images(size)
        assert first.shape == second.shape == (3, *size) and first.dtype == torch.uint8
        assert (first != second).float().mean() > 0.9
        self_test(lambda images: images.flatten(1).float(), size, "pixels")


def test_an_untrained_net_is_told(tmp_path: Path) -> None:
    torch.save(filled("iresnet18"), tmp_path / "a.pt")
    told = "every BatchNorm has a running mean of 0, as in a network that was never trained"
    assert any(told in line for line in load_embedder(tmp_path / "a.pt").warnings)
    state = filled("iresnet18")
    state["layer2.0.bn1.running_mean"][3] = 0.1
    torch.save(state, tmp_path / "a.pt")
    assert not any(told in line for line in load_embedder(tmp_path / "a.pt").warnings)


def test_optimizer_states_do_not_stand_in_the_way(tmp_path: Path) -> None:
    state = filled("iresnet18")
    tree = {"state_dict_backbone": state, "state_optimizer": {"state": {0: {"m": torch.ones(2)}}}, "epoch": 1}
    torch.save(tree, tmp_path / "checkpoint_gpu_0.pt")
    assert list(read_state(tmp_path / "checkpoint_gpu_0.pt")[0]) == list(state)
    raw = load_checkpoint(tmp_path / "checkpoint_gpu_0.pt")
    assert isinstance(raw, dict) and raw["epoch"] == 1 and raw["state_optimizer"]["state"][0]["m"].sum() == 2


def test_foamliu_s_file_opens_as_it_is(shared_data: Path) -> None:
    embedder = load_embedder(shared_data / "models" / "foamliu" / "mobilefacenet.pt")
    assert embedder.metadata["dialect"] == "foamliu MobileFaceNet"
    assert embedder.preprocessing == Preprocessing.named("imagenet")
    assert (embedder.embedding_size, embedder.parameters) == (128, 999_936)
    assert len(embedder.warnings) == 1
