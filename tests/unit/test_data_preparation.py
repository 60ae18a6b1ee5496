"""Validation parts, normalisation and augmentation of a data set before training."""

import pytest
import torch

from hpc_lpm.data.augmentation import Augmentation, drawn_numbers
from hpc_lpm.data.dataset import Dataset, DataShape, Split
from hpc_lpm.data.preparation import prepared_dataset
from hpc_lpm.data.registry import load_dataset
from hpc_lpm.data.samples import Draws
from hpc_lpm.errors import InputError

ALL = torch.arange(40)


def images() -> Dataset:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (40, 3, 6, 5), generator=generator, dtype=torch.uint8)
    pixels[:, 2] = 7
    part = Split(pixels, torch.arange(40) % 4)
    return Dataset("images", DataShape("image", (3, 6, 5), 4), part, part)


def test_a_validation_part_is_drawn_by_the_seed_and_leaves_the_training_part() -> None:
    whole = images()
    prepared = prepared_dataset(whole, seed=7, validation=0.25)
    assert prepared.validation is not None
    held = prepared.validation.inputs(torch.arange(10))
    kept = prepared.train.inputs(torch.arange(30))
    together = torch.cat([held, kept])
    assert sorted(map(float, together.sum(dim=(1, 2, 3)))) == sorted(
        map(float, whole.train.inputs(ALL).sum(dim=(1, 2, 3)))
    )
    again = prepared_dataset(whole, seed=7, validation=0.25)
    assert torch.equal(again.validation.inputs(torch.arange(10)), held)
    other = prepared_dataset(whole, seed=8, validation=0.25)
    assert not torch.equal(other.validation.inputs(torch.arange(10)), held)


def test_each_channel_is_normalised_by_the_training_part() -> None:
    prepared = prepared_dataset(images(), seed=0, normalize="channels")
    found = prepared.train.inputs(ALL)
    assert torch.allclose(found[:, :2].mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-6)
    assert torch.allclose(found[:, :2].std(dim=(0, 2, 3), unbiased=False), torch.ones(2))
    assert torch.equal(found[:, 2], torch.zeros(40, 6, 5)), "a channel of one colour"
    plain = prepared_dataset(images(), seed=0, normalize="none").test.inputs(ALL)
    assert 0 <= float(plain.min()) < float(plain.max()) <= 1


def test_augmented_images_are_windows_and_mirrors_of_the_padded_ones() -> None:
    prepared = prepared_dataset(images(), seed=0, normalize="none", augment="crop=2,flip")
    plain = prepared_dataset(images(), seed=0, normalize="none").train.inputs(ALL)
    changed = prepared.train.inputs(ALL, Draws(3, 1))
    padded = torch.nn.functional.pad(plain, [2, 2, 2, 2])
    seen = set()
    for image, source in zip(changed, padded, strict=True):
        windows = {
            (y, x, mirrored): source[:, y : y + 6, x : x + 5].flip(-1)
            if mirrored
            else source[:, y : y + 6, x : x + 5]
            for y in range(5)
            for x in range(5)
            for mirrored in (False, True)
        }
        places = [place for place, window in windows.items() if torch.equal(window, image)]
        assert places
        seen.add(places[0])
    assert len(seen) > 20, "windows differ from sample to sample"
    assert torch.equal(prepared.train.inputs(ALL), plain), "in evaluation nothing is changed"


def test_draws_of_a_sample_do_not_depend_on_its_micro_batch_and_are_uniform() -> None:
    draws = Draws(2**63 - 1, 5)
    alone = drawn_numbers(draws, torch.tensor([17]), 0)
    assert alone[0] == drawn_numbers(draws, ALL, 0)[17]
    many = drawn_numbers(Draws(1, 0), torch.arange(100_000), 0) % 9
    counts = torch.bincount(torch.from_numpy(many.astype("int64")))
    assert counts.min() > 10_700 and counts.max() < 11_500
    assert (drawn_numbers(Draws(1, 1), ALL, 0) != drawn_numbers(Draws(1, 0), ALL, 0)).all()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"validation": 0.0001}, "--validation 0.0001 of the .* training samples are 0, accepted"),
        ({"augment": f"crop={'1' * 5000}"}, "--augment has the part 'crop=1"),
        ({"augment": "crop=4,flop"}, "--augment has the part 'flop', accepted are crop=PIXELS and"),
        ({"augment": "crop=-1"}, "--augment has the part 'crop=-1'"),
        ({"augment": "crop=99"}, "--augment crop=99 is no smaller than the images of digits"),
    ],
)
def test_what_cannot_be_prepared_is_refused(given: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        prepared_dataset(load_dataset("digits"), seed=0, **given)  # type: ignore[arg-type]


def test_text_is_neither_normalised_nor_augmented() -> None:
    dataset = load_dataset(f"text:{__file__},sequence=8")
    for given in ({"normalize": "channels"}, {"augment": "flip"}):
        with pytest.raises(InputError, match=r"--(normalize|augment)"):
            prepared_dataset(dataset, seed=0, **given)  # type: ignore[arg-type]


def test_parts_of_an_augmentation_may_come_in_any_order() -> None:
    assert Augmentation.parse("flip , crop=3") == Augmentation(3, flip=True)
