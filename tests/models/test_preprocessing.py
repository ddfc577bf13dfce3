"""Preprocessing: closed forms of every scaling, colour order, and the round trip through metadata."""

from __future__ import annotations

import pytest
import torch

from facekd.errors import InputError, UsageError
from facekd.models.preprocessing import NORMALIZATIONS, Preprocessing, settle


def pixel(red: int, green: int, blue: int) -> torch.Tensor:
    return torch.tensor([red, green, blue], dtype=torch.uint8).view(1, 3, 1, 1)


def test_half_maps_black_to_minus_one_and_white_to_one() -> None:
    half = Preprocessing.named("half", size=(1, 1))
    assert half.apply(pixel(0, 255, 0)).flatten().tolist() == [-1.0, 1.0, -1.0]


def test_128_divides_by_128() -> None:
    found = Preprocessing.named("128", size=(1, 1)).apply(pixel(0, 255, 127)).flatten().tolist()
    assert found == [-127.5 / 128, 127.5 / 128, -0.5 / 128]


def test_none_passes_0_to_255() -> None:
    assert Preprocessing.named("none", size=(1, 1)).apply(pixel(3, 4, 5)).flatten().tolist() == [3.0, 4.0, 5.0]


def test_bgr_turns_the_channels() -> None:
    assert Preprocessing.named("none", "bgr", (1, 1)).apply(pixel(3, 4, 5)).flatten().tolist() == [5.0, 4.0, 3.0]


def test_imagenet_statistics_follow_the_colours() -> None:
    rgb = Preprocessing.named("imagenet", "rgb", (1, 1)).apply(pixel(10, 20, 30)).flatten()
    bgr = Preprocessing.named("imagenet", "bgr", (1, 1)).apply(pixel(10, 20, 30)).flatten()
    assert torch.equal(rgb.flip(0), bgr)
    assert rgb[0].item() == pytest.approx((10 / 255 - 0.485) / 0.229, abs=1e-6)
    assert rgb[2].item() == pytest.approx((30 / 255 - 0.406) / 0.225, abs=1e-6)


def test_the_input_is_left_alone() -> None:
    images = pixel(1, 2, 3)
    Preprocessing.named("half", size=(1, 1)).apply(images)
    assert images.flatten().tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    "images",
    [torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 3, dtype=torch.uint8), torch.zeros(3, 2, 2, dtype=torch.uint8)],
)
def test_other_types_and_shapes_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected uint8"):
        Preprocessing.named("half", size=(2, 2)).apply(images)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_metadata_reads_back_equal(normalize: str, color: str) -> None:
    stored = Preprocessing.named(normalize, color, (64, 48))
    assert Preprocessing.from_metadata(stored.to_metadata()) == stored


def test_metadata_keeps_every_bit_of_a_float() -> None:
    odd = Preprocessing("rgb", (0.1, 1 / 3, 2e-17), (0.30000000000000004, 1.0, 2.0), (112, 112))
    assert Preprocessing.from_metadata(odd.to_metadata()) == odd


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"color": "rbg"}, "rbg is no channel order"),
        ({"mean": "1,2"}, "is not three finite numbers"),
        ({"std": "1,0,1"}, "is not three positive numbers"),
        ({"std": "1,nan,1"}, "is not three positive numbers"),
        ({"mean": "a,b,c"}, "could not convert"),
        ({"size": "112"}, "is not a height and a width"),
    ],
)
def test_bad_metadata_names_the_file(change: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Preprocessing.from_metadata(Preprocessing.named("half").to_metadata() | change, "a.onnx")
    assert str(caught.value).startswith("a.onnx: ")


def test_missing_metadata_is_named() -> None:
    with pytest.raises(InputError, match="x.onnx: says nothing of mean, std"):
        Preprocessing.from_metadata({"color": "rgb", "size": "1x1"}, "x.onnx")


def test_unknown_normalisation_gets_a_near_name() -> None:
    with pytest.raises(UsageError, match="did you mean imagenet"):
        Preprocessing.named("imagnet")


@pytest.mark.parametrize(
    ("color", "normalize", "message"),
    [
        (
            None,
            None,
            r"does not say its colour order and scaling "
            r"\(add --color rgb\|bgr and --normalize half\|128\|imagenet\|unit\|none\)",
        ),
        ("rgb", None, r"does not say its scaling \(add --normalize half\|128\|imagenet\|unit\|none\)"),
        (None, "half", r"does not say its colour order \(add --color rgb\|bgr\)"),
    ],
)
def test_a_silent_file_needs_both_words(color: str | None, normalize: str | None, message: str) -> None:
    with pytest.raises(InputError, match=f"r50.pt: {message}"):
        settle(None, color, normalize, size=(112, 112), where="r50.pt")


def test_unit_is_the_share_of_white() -> None:
    white = torch.full((1, 3, 2, 2), 255, dtype=torch.uint8)
    assert Preprocessing.named("unit", size=(2, 2)).apply(white).eq(1).all()


def test_a_contradiction_is_an_error_and_agreement_is_not() -> None:
    stored = Preprocessing.named("half", "bgr")
    assert settle(stored, "bgr", "half", size=(1, 1), where="a") == stored
    with pytest.raises(InputError, match="colour order is bgr, not rgb"):
        settle(stored, "rgb", None, size=(1, 1), where="a")
    with pytest.raises(InputError, match="which is not 128"):
        settle(stored, None, "128", size=(1, 1), where="a")
