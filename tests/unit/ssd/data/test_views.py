"""Views: per-image randomness, from the given generator only, with torchvision's colour operations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ssd.data.views.colour import adjust_brightness, adjust_contrast, adjust_hue, adjust_saturation, greyscale
from ssd.data.views.geometry import affine_maps, draw_crops, snapped, warp
from ssd.data.views.views import PRESETS, ViewOptions, Views
from ssd.torch_support.torchvision_compat import torchvision


def images(count: int = 6, channels: int = 3, size: int = 12, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", ["official", "fedu2", "digits"])
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_images_of_one_batch_get_different_views(name: str, channels: int) -> None:
    same = images(1, channels).repeat(8, 1, 1, 1)
    views = Views(PRESETS[name]).pair(same, seeded())
    assert views.shape == (16, channels, 12, 12)
    assert views.dtype == torch.float32
    for i in range(16):
        for j in range(i):
            assert not torch.equal(views[i], views[j])


def test_crops_alone_differ_between_equal_images() -> None:
    options = ViewOptions(jitter=0.0, grey=0.0, flip=0.0)
    views = Views(options).one(images(1).repeat(5, 1, 1, 1), seeded())
    assert len({tuple(view.flatten().tolist()) for view in views}) == 5


def test_snapped_crops_are_whole_pixels_with_torchvisions_distribution() -> None:
    """Every corner within the room that is left is as likely as any other; nothing leaves the image."""
    size, count = 8, 40_000
    boxes = draw_crops(count, scale=(0.5, 1.0), ratio=(1.0, 1.0), generator=seeded())
    whole = snapped(boxes, size)
    corners, widths = (whole[:, :2] - whole[:, 2:] + 1.0) * size / 2.0, whole[:, 2:] * size
    for pixels in (corners, widths):
        assert torch.allclose(pixels, pixels.round(), atol=1e-4)
    assert float(corners.min()) > -1e-4
    assert float((corners + widths).max()) < size + 1e-4
    six = corners[widths[:, 0].round() == 6, 0].round().to(torch.int64)
    shares = torch.bincount(six) / len(six)
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.02)
    ends = torch.tensor([[0.0, 0.0, 1.0, 1.0], [-0.5, 0.5, 0.5, 0.5]])
    assert torch.equal(snapped(ends, size), ends)


def test_a_whole_pixel_crop_of_its_own_size_is_those_pixels() -> None:
    options = ViewOptions(scale=(0.25, 0.25), ratio=(1.0, 1.0), jitter=0.0, grey=0.0, flip=0.0, snap=True)
    given = images(1, 1)
    views = Views(options, 6).one(given.repeat(30, 1, 1, 1), seeded())
    pixels = given[0, 0].to(torch.float32) / 255.0
    places = [(top, left) for top in range(7) for left in range(7)]
    for view in views[:, 0]:
        assert any(
            torch.allclose(view, pixels[top : top + 6, left : left + 6], atol=1e-5) for top, left in places
        )


def test_the_same_generator_seed_repeats_the_bits_and_another_does_not() -> None:
    views = Views(PRESETS["official"])
    first, again, other = (views.pair(images(), seeded(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_the_global_generator_is_neither_read_nor_moved() -> None:
    before = torch.get_rng_state()
    first = Views(PRESETS["official"]).pair(images(), seeded())
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(Views(PRESETS["official"]).pair(images(), seeded()), first)


def test_values_stay_between_zero_and_one() -> None:
    views = Views(ViewOptions(jitter=1.0, brightness=2.0, contrast=2.0, saturation=2.0, hue=0.5)).pair(
        images(64), seeded()
    )
    assert float(views.min()) >= 0.0
    assert float(views.max()) <= 1.0


@pytest.mark.parametrize("channels", [1, 3])
def test_without_any_randomness_a_view_is_the_image(channels: int) -> None:
    view = Views(PRESETS["none"]).one(images(channels=channels), seeded())
    assert torch.allclose(view, images(channels=channels) / 255.0, atol=1e-6)


def test_colour_vanishes_for_one_channel() -> None:
    options = ViewOptions(
        scale=(1.0, 1.0),
        ratio=(1.0, 1.0),
        flip=0.0,
        jitter=1.0,
        brightness=0.0,
        contrast=0.0,
        hue=0.5,
        grey=1.0,
    )
    grey, coloured = images(channels=1), images(channels=3)
    assert torch.allclose(Views(options).one(grey, seeded()), grey / 255.0, atol=1e-6)
    assert not torch.allclose(Views(options).one(coloured, seeded()), coloured / 255.0, atol=1e-2)


def test_flip_mirrors_left_and_right() -> None:
    options = ViewOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=1.0, jitter=0.0, grey=0.0)
    view = Views(options).one(images(), seeded())
    assert torch.allclose(view, images().flip(3) / 255.0, atol=1e-6)


def test_about_as_many_images_are_chosen_as_the_probabilities_say() -> None:
    options = ViewOptions(scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.5, jitter=0.0, grey=0.2)
    originals = images(2000, size=4)
    views = Views(options).one(originals, seeded())
    grey = (views - views.mean(dim=1, keepdim=True)).abs().amax(dim=(1, 2, 3)) < 1e-6
    mirrored = greyscale(originals.flip(3) / 255.0)
    flipped = (greyscale(views) - mirrored).abs().amax(dim=(1, 2, 3)) < 1e-3
    assert float(grey.float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float(flipped.float().mean()) == pytest.approx(0.5, abs=0.04)


def test_crop_boxes_lie_inside_the_image_and_follow_their_distribution() -> None:
    boxes = draw_crops(4000, scale=(0.2, 0.6), ratio=(3 / 4, 4 / 3), generator=seeded())
    x, y, width, height = boxes.unbind(dim=1)
    for centre, half in ((x, width), (y, height)):
        assert float((centre.abs() + half).max()) <= 1.0 + 1e-6
    areas, ratios = width * height, width / height
    assert float(areas.min()) >= 0.2 - 1e-5
    assert float(areas.max()) <= 0.6 + 1e-5
    assert float(areas.mean()) == pytest.approx(0.4, abs=0.01)
    assert float(ratios.log().mean()) == pytest.approx(0.0, abs=0.01)
    assert float(ratios.log().abs().max()) <= math.log(4 / 3) + 1e-5


def test_an_impossible_crop_falls_back_to_the_largest_centred_one() -> None:
    boxes = draw_crops(3, scale=(1.0, 1.0), ratio=(0.5, 0.5000001 * 2), generator=seeded())
    assert bool((boxes[:, 2:] <= 1.0).all())


def test_a_crop_is_the_bilinear_resize_of_its_box() -> None:
    """A box on whole pixels equals torchvision's crop and resize, away from the box's own border."""
    functional = torchvision("torchvision.transforms.functional")
    picture = images(1, size=16)[0] / 255.0
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5]])
    ours = warp(picture[None], affine_maps(boxes, torch.tensor([False]), torch.zeros(1)))[0]
    theirs = functional.resized_crop(picture, 4, 4, 8, 8, [16, 16], antialias=False)
    assert torch.allclose(ours[:, 1:-1, 1:-1], theirs[:, 1:-1, 1:-1], atol=1e-5)


@pytest.mark.parametrize(
    ("ours", "name", "factor"),
    [
        (adjust_brightness, "adjust_brightness", 1.7),
        (adjust_brightness, "adjust_brightness", 0.3),
        (adjust_contrast, "adjust_contrast", 1.6),
        (adjust_contrast, "adjust_contrast", 0.2),
        (adjust_saturation, "adjust_saturation", 1.8),
        (adjust_saturation, "adjust_saturation", 0.0),
        (adjust_hue, "adjust_hue", 0.2),
        (adjust_hue, "adjust_hue", -0.37),
    ],
)
def test_colour_operations_are_torchvisions(ours: object, name: str, factor: float) -> None:
    functional = torchvision("torchvision.transforms.functional")
    batch = torch.cat([images(4) / 255.0, torch.full((1, 3, 12, 12), 0.4), torch.zeros(1, 3, 12, 12)])
    theirs = torch.stack([getattr(functional, name)(picture, factor) for picture in batch])
    assert callable(ours)
    assert torch.allclose(ours(batch, torch.full((6,), factor)), theirs, atol=2e-5)


def test_greyscale_is_torchvisions() -> None:
    functional = torchvision("torchvision.transforms.functional")
    picture = images(1)[0] / 255.0
    assert torch.allclose(greyscale(picture[None])[0], functional.rgb_to_grayscale(picture), atol=1e-6)


def test_a_factor_applies_to_its_own_image_only() -> None:
    batch = images(3) / 255.0
    changed = adjust_brightness(batch, torch.tensor([1.0, 0.5, 1.0]))
    assert torch.equal(changed[0], batch[0])
    assert torch.equal(changed[2], batch[2])
    assert torch.allclose(changed[1], batch[1] * 0.5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"scale": (0.0, 1.0)},
        {"scale": (0.9, 0.5)},
        {"ratio": (2.0, 3.0)},
        {"flip": 1.5},
        {"hue": 0.6},
        {"brightness": -0.1},
    ],
)
def test_impossible_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ViewOptions(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_views_have_the_size_they_were_made_for_whatever_they_are_drawn_from() -> None:
    large = images().repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    side = images().shape[-1]
    views = Views(PRESETS["none"], side).pair(large, seeded())
    assert views.shape[-2:] == (side, side)
    assert torch.allclose(views[: len(large)], images().to(torch.float32) / 255.0, atol=1e-6)
