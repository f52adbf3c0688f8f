"""What a labelled image goes through before a classifier sees it."""

from __future__ import annotations

import pytest
import torch

from ssd.data.preparation import Normalisation, Preparation, crop_flip


def pictures(count: int = 200, size: int = 16, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator)


def test_every_cropped_image_is_a_shift_of_the_original_or_of_its_mirror() -> None:
    images = pictures().to(torch.float32)
    cropped = crop_flip(images, torch.Generator().manual_seed(1))
    border, seen = 2, set()
    for image, changed in zip(images, cropped, strict=True):
        found = []
        for flipped in (False, True):
            padded = torch.zeros(3, 20, 20)
            padded[:, border:-border, border:-border] = image
            for y in range(2 * border + 1):
                for x in range(2 * border + 1):
                    window = padded[:, y : y + 16, x : x + 16]
                    if torch.equal(window.flip(2) if flipped else window, changed):
                        found.append((flipped, y, x))
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 45  # of 50 there are


def test_augmentation_follows_its_generator_and_draws_as_much_for_every_image() -> None:
    preparation = Preparation(size=16, normalisation=Normalisation(), augmentation="crop_flip")
    first = preparation.training(pictures(), torch.Generator().manual_seed(3))
    assert torch.equal(first, preparation.training(pictures(), torch.Generator().manual_seed(3)))
    assert not torch.equal(first, preparation.training(pictures(), torch.Generator().manual_seed(4)))
    assert torch.equal(preparation.plain(pictures()), pictures() / 255.0)


def test_without_augmentation_no_randomness_is_drawn() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    prepared = Preparation(size=16, normalisation=Normalisation()).training(pictures(), generator)
    assert torch.equal(generator.get_state(), before)
    assert torch.equal(prepared, pictures() / 255.0)


@pytest.mark.parametrize("values", [((0.5,), (0.25,)), ((0.1, 0.2, 0.3), (1.0, 2.0, 4.0))])
def test_normalisation_is_per_channel(values: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    mean, std = values
    images = pictures(4) / 255.0
    result = Normalisation(mean=mean, std=std)(images)
    for channel in range(3):
        m, s = mean[min(channel, len(mean) - 1)], std[min(channel, len(std) - 1)]
        assert torch.allclose(result[:, channel], (images[:, channel] - m) / s)


def test_larger_images_are_brought_to_size() -> None:
    preparation = Preparation(size=8, normalisation=Normalisation())
    assert preparation.plain(torch.full((2, 1, 11, 11), 51, dtype=torch.uint8)).shape == (2, 1, 8, 8)
    assert torch.allclose(
        preparation.plain(torch.full((2, 1, 11, 11), 51, dtype=torch.uint8)), torch.tensor(0.2)
    )


@pytest.mark.parametrize(
    "wrong", [{"mean": (), "std": ()}, {"mean": (0.0,), "std": (1.0, 1.0)}, {"std": (0.0,)}]
)
def test_an_impossible_normalisation_is_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match="std"):
        Normalisation(**wrong)
