"""Models by name: files of the hub out of a made-up local cache, and timm's models, without a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from facekd.errors import InputError
from facekd.model_names import is_model_name
from facekd.models.backbone import build_backbone
from facekd.models.embedder import load_embedder
from facekd.models.preprocessing import Preprocessing
from facekd.models.weights import file_digest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one file of one repository, with no way to a network."""
    from huggingface_hub import constants

    folder = tmp_path / "hub" / "models--someone--faces"
    snapshot = folder / "snapshots" / COMMIT / "weights"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    torch.manual_seed(0)
    torch.save(build_backbone("iresnet18", embedding_size=16, input_size=32).state_dict(), snapshot / "r18.pt")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return snapshot / "r18.pt"


@pytest.mark.slow
def test_a_cached_file_of_the_hub_opens_offline(cache: Path) -> None:
    embedder = load_embedder("hf:someone/faces/weights/r18.pt")
    assert (embedder.name, embedder.digest) == ("hf:someone/faces/weights/r18.pt", file_digest(cache))
    assert embedder.metadata["preprocessing_source"] == "dialect arcface_torch iresnet"
    assert load_embedder(Path("hf:someone/faces/weights/r18.pt")).digest == embedder.digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hf:someone/faces/weights/r50.pt", "neither in the local cache nor within reach: "),
        ("hf:nobody/faces/r18.pt", "neither in the local cache nor within reach: "),
        ("hf:a b/faces/r18.pt", "neither in the local cache nor within reach: "),
        ("hf:someone/faces", r"names no file on the hub .write hf:owner/name/file."),
        ("hf:someone/faces/", "names no file on the hub"),
        ("hf:someone/faces/../../../r18.pt", "names no file on the hub"),
        ("hf:", "names no file on the hub"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(cache: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{name}: {message}") as caught:
        load_embedder(name)
    assert len(caught.value.lines) == 1


def test_a_path_that_is_there_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_model_name("timm/net") and is_model_name("hf:a/b/c.pt")
    (tmp_path / "timm").mkdir()
    (tmp_path / "timm" / "net").touch()
    assert not is_model_name("timm/net")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """timm without its downloads; tells what was asked of it."""
    import timm

    create = timm.create_model
    asked = []

    def without_weights(name: str, pretrained: bool = False, num_classes: int = 0) -> torch.nn.Module:
        asked.append(pretrained)
        torch.manual_seed(0)
        return create(name, pretrained=False, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", without_weights)
    return asked


@pytest.mark.slow
def test_a_timm_model_comes_with_its_own_preprocessing(untrained: list[bool]) -> None:
    embedder = load_embedder("timm/mobilenetv3_small_050")
    assert untrained == [True]
    assert (embedder.name, embedder.embedding_size) == ("timm/mobilenetv3_small_050", 1024)
    expected = Preprocessing.named("imagenet", size=(224, 224))
    assert embedder.preprocessing.size == expected.size
    for found, named in ((embedder.preprocessing.mean, expected.mean), (embedder.preprocessing.std, expected.std)):
        assert found == pytest.approx(named, abs=1e-6)
    assert embedder.metadata["preprocessing_source"] == "file"
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    assert embedder.embed(images).shape == (2, 1024)
    assert len(embedder.digest) == 64 and load_embedder("timm/mobilenetv3_small_050").digest == embedder.digest
    with pytest.raises(InputError, match="says its colour order is rgb, not bgr"):
        load_embedder("timm/mobilenetv3_small_050", color="bgr")


@pytest.mark.slow
def test_timm_s_refusals_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    with pytest.raises(InputError, match="timm/mobilenetv3_smal_050: timm knows no such model .did you mean"):
        load_embedder("timm/mobilenetv3_smal_050")

    def offline(*arguments: object, **options: object) -> None:
        raise OSError("no network\nat all")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match="its pretrained weights cannot be had: no network at all .check the name"):
        load_embedder("timm/mobilenetv3_small_050")
