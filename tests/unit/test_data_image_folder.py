"""Folders of images: every common kind of image, every layout, broken files named, fixed order."""

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hpc_lpm.data import image_folder, image_listing
from hpc_lpm.data.dataset import Split
from hpc_lpm.data.image_files import ImageFiles, ImageForm, decode
from hpc_lpm.data.registry import dataset_files, dataset_shape, load_dataset
from hpc_lpm.errors import InputError

RED, SIDE = (200, 10, 30), 8


def save(path: Path, colour: Any = RED, mode: str = "RGB", size: tuple[int, int] = (9, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, "PNG")


def everything(samples: Any) -> tuple[torch.Tensor, torch.Tensor]:
    indices = torch.arange(len(samples))
    return samples.inputs(indices), samples.targets(indices)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Two classes of five images each, of different greys."""
    folder = tmp_path / "my shapes"
    for number in range(5):
        save(folder / "round" / f"{number}.png", (number, number, number))
        save(folder / "angular" / f"{number}.PNG", (50 + number,) * 3)
    return folder


def test_class_folders_are_split_by_a_share_of_every_class(shapes: Path) -> None:
    identifier = f"images:{shapes},size={SIDE}"
    dataset = load_dataset(identifier)
    assert dataset.shape == dataset_shape(identifier)
    assert (dataset.shape.input_shape, dataset.class_names) == ((3, 8, 8), ("angular", "round"))
    assert everything(dataset.test)[1].sort().values.tolist() == [0, 1]
    assert everything(dataset.train)[1].sort().values.tolist() == [0] * 4 + [1] * 4
    images = everything(dataset.train)[0].double()
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert len(load_dataset(f"{identifier},test=0.6").test) == 6


@pytest.mark.parametrize(
    ("folders", "sizes"),
    [
        ({"train": 3, "test": 2}, {"training": 3, "test": 2}),
        ({"Training": 3, "Testing": 2}, {"training": 3, "test": 2}),
        ({"train": 3, "val": 2}, {"training": 3, "test": 2}),
        ({"train": 3, "valid": 2, "test": 1}, {"training": 3, "validation": 2, "test": 1}),
        ({"train": 5}, {"training": 8, "test": 2}),
    ],
)
def test_parts_have_folders_of_their_own(
    tmp_path: Path, folders: dict[str, int], sizes: dict[str, int]
) -> None:
    for part, count in folders.items():
        for number in range(count):
            save(tmp_path / part / "a" / f"{number}.png", (0, 0, number))
            save(tmp_path / part / "b" / f"{number}.png", (0, 9, number))
    dataset = load_dataset(f"images:{tmp_path},size=4")
    assert dataset.class_names == ("a", "b")
    whole = {name: 2 * count for name, count in sizes.items()} if len(folders) > 1 else sizes
    assert {name: len(part) for name, part in dataset.parts.items()} == whole


def test_classes_may_have_the_word_of_a_part_in_their_names(tmp_path: Path) -> None:
    for name in ("toy train", "test tube", "val d'isere"):
        save(tmp_path / name / "1.png")
        save(tmp_path / name / "2.png", (1, 2, 3))
    assert load_dataset(f"images:{tmp_path},size=4").class_names == (
        "test tube",
        "toy train",
        "val d'isere",
    )


def test_a_test_folder_may_lie_elsewhere(shapes: Path, tmp_path: Path) -> None:
    save(tmp_path / "held out" / "round" / "x.png")
    dataset = load_dataset(f"images:{shapes},size=4,test={tmp_path / 'held out'}")
    assert (len(dataset.train), everything(dataset.test)[1].tolist()) == (10, [1])
    save(tmp_path / "held out" / "oval" / "x.png")
    with pytest.raises(InputError, match=r"test part of .* has the class 'oval', which has no im"):
        load_dataset(f"images:{shapes},size=4,test={tmp_path / 'held out'}")


KINDS: dict[str, tuple[Callable[[], Image.Image], list[int]]] = {
    "rgb.png": (lambda: Image.new("RGB", (9, 8), RED), [200, 10, 30]),
    "grey.png": (lambda: Image.new("L", (9, 8), 70), [70, 70, 70]),
    "bit.png": (lambda: Image.new("1", (9, 8), 1), [255, 255, 255]),
    "palette.gif": (lambda: Image.new("RGB", (9, 8), RED).quantize(2), [200, 10, 30]),
    "clear.png": (lambda: Image.new("RGBA", (9, 8), (*RED, 0)), [255, 255, 255]),
    "solid.webp": (lambda: Image.new("RGBA", (9, 8), (255, 0, 0, 255)), [254, 0, 0]),
    "greyclear.png": (lambda: Image.new("LA", (9, 8), (70, 0)), [255, 255, 255]),
    "deep.png": (lambda: Image.fromarray(np.full((8, 9), 44 * 256, np.uint16)), [44, 44, 44]),
    "deep.tif": (lambda: Image.fromarray(np.full((8, 9), 200 * 256, np.uint16)), [200, 200, 200]),
    "print.jpg": (lambda: Image.new("CMYK", (16, 16), (0, 255, 255, 0)), [254, 0, 0]),
    "old.bmp": (lambda: Image.new("RGB", (9, 8), RED), [200, 10, 30]),
    "net.ppm": (lambda: Image.new("RGB", (9, 8), RED), [200, 10, 30]),
}


@pytest.mark.parametrize("name", KINDS)
def test_images_of_every_kind_become_three_channels_of_bytes(tmp_path: Path, name: str) -> None:
    make, expected = KINDS[name]
    make().save(tmp_path / name)
    pixels = decode(tmp_path / name, ImageForm(3, SIDE, "crop"))
    assert (pixels.shape, pixels.dtype) == ((3, SIDE, SIDE), torch.uint8)
    found = pixels.float().mean((1, 2))
    torch.testing.assert_close(found, torch.tensor(expected).float(), atol=2, rtol=0)


def test_channels_follow_the_images_unless_they_are_given(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(tmp_path / "grey" / name / "1.png", 9, "L")
        save(tmp_path / "grey" / name / "2.png", 8, "L")
        save(tmp_path / "mixed" / name / "1.png", 9, "L")
        save(tmp_path / "mixed" / name / "2.png", (*RED, 100), "RGBA")
    for folder, options, channels in (
        ("grey", "", 1),
        ("mixed", "", 3),
        ("mixed", ",channels=4", 4),
        ("mixed", ",channels=1", 1),
    ):
        identifier = f"images:{tmp_path / folder},size=4{options}"
        dataset = load_dataset(identifier)
        assert dataset.shape == dataset_shape(identifier)
        assert dataset.shape.input_shape == (channels, 4, 4)
        assert dataset.train.inputs(torch.tensor([0])).shape == (1, channels, 4, 4)
    with pytest.raises(InputError, match=r"'channels' .* is '2', accepted is 1 or 3 or 4"):
        load_dataset(f"images:{tmp_path / 'grey'},channels=2")


def test_images_are_cropped_padded_or_stretched(tmp_path: Path) -> None:
    wide = np.zeros((4, 8, 3), np.uint8)
    wide[:, 2:6] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    padded, stretched = torch.zeros(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    padded[1:3, 1:3] = stretched[:, 1:3] = True
    cropped = torch.ones(4, 4, dtype=torch.bool)
    for fit, bright in (("crop", cropped), ("pad", padded), ("stretch", stretched)):
        found = decode(tmp_path / "wide.png", ImageForm(3, 4, fit))[0]  # type: ignore[arg-type]
        assert torch.equal(found > 128, bright), fit


def test_images_are_turned_as_their_exif_data_say(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 255
    everywhere, left, right = slice(None), slice(0, 4), slice(4, 8)
    for orientation, bright in (
        (1, (left, everywhere)),
        (3, (right, everywhere)),
        (6, (everywhere, right)),
    ):
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
        found = decode(tmp_path / "turned.png", ImageForm(1, 8, "crop"))[0]
        assert found[bright].min() == 255, orientation
        assert found.float().mean() == 127.5


def broken_files(folder: Path) -> dict[str, str]:
    """Put files into a class folder that are no images; return what is said of each."""
    chances = np.random.default_rng(0)
    Image.fromarray(chances.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        folder / "whole.png"
    )
    Image.fromarray(chances.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
        folder / "whole.jpg"
    )
    for ending in ("png", "jpg"):
        content = (folder / f"whole.{ending}").read_bytes()
        (folder / f"cut.{ending}").write_bytes(content[: len(content) // 2])
        (folder / f"whole.{ending}").unlink()
    (folder / "empty.png").touch()
    (folder / "text.jpeg").write_text("no image")
    (folder / "lost.png").symlink_to("nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "notes.txt").write_text("no image either")
    (folder / ".hidden.png").touch()
    (folder / "Thumbs.db").touch()
    return {
        "cut.jpg": "truncated",
        "cut.png": "truncated",
        "empty.png": "is empty",
        "lost.png": "No such file",
        "pipe.png": "is no regular file",
        "text.jpeg": "is no image",
    }


@pytest.mark.parametrize("kept", [True, False], ids=["in memory", "on demand"])
def test_broken_files_are_named_and_left_out_or_refused(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    if not kept:
        monkeypatch.setattr(image_folder, "KEPT_BYTES", 0)
    expected = broken_files(shapes / "round")
    (shapes / "vacant").mkdir()
    dataset = load_dataset(f"images:{shapes},size=4")
    assert isinstance(dataset.train, Split if kept else ImageFiles)
    assert len(dataset.train) + len(dataset.test) == 10
    empty, *broken = dataset.skipped
    assert empty == f"{shapes / 'vacant'} (a class folder without images)"
    assert [Path(text.partition(" (")[0]).name for text in broken] == list(expected)
    for text, reason in zip(broken, expected.values(), strict=True):
        assert reason in text
    with pytest.raises(InputError, match=r"has 6 broken files, such as .*cut\.jpg \(.*broken=skip"):
        load_dataset(f"images:{shapes},size=4,broken=refuse")


def test_images_on_demand_are_those_in_memory(
    shapes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = load_dataset(f"images:{shapes},size=4")
    monkeypatch.setattr(image_folder, "KEPT_BYTES", 0)
    decoded = load_dataset(f"images:{shapes},size=4")
    for one, other in ((kept.train, decoded.train), (kept.test, decoded.test)):
        assert all(map(torch.equal, everything(one), everything(other)))
    assert kept.train.channel_statistics() == decoded.train.channel_statistics()
    normalized = [
        everything(part.normalized([0.1, 0.2, 0.3], [0.5, 0.0, 1.0]))[0]
        for part in (kept.test, decoded.test)
    ]
    assert torch.equal(*normalized)
    (shapes / "round" / "3.png").write_text("changed")
    with pytest.raises(InputError, match=r"round/3\.png cannot be decoded \(is no image\): mend"):
        everything(decoded.train)
        everything(decoded.test)


def test_order_is_that_of_names_on_every_file_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in ("b/9", "b/10", "b/sub/1", "a/2", "B/1"):
        save(tmp_path / "train" / f"{place}.png")
        save(tmp_path / "test" / f"{place}.png")
    (tmp_path / "test" / "a" / "again").symlink_to(tmp_path / "test" / "a")
    (tmp_path / "test" / "c").symlink_to(tmp_path / "test" / "a")
    (tmp_path / "train" / "c").symlink_to(tmp_path / "train" / "a", target_is_directory=True)
    expected = ["B/1", "a/2", "b/10", "b/9", "b/sub/1", "c/2"]
    scandir, chances = os.scandir, random.Random(0)

    class Shuffled:
        def __init__(self, path: str) -> None:
            self._entries = list(scandir(path))
            chances.shuffle(self._entries)

        def __enter__(self) -> Any:
            return iter(self._entries)

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(image_listing.os, "scandir", Shuffled)
    for _ in range(3):
        files = dataset_files(f"images:{tmp_path}")
        assert [str(path) for path in files or []] == [
            str(tmp_path / part / f"{place}.png")
            for part in ("train", "test")
            for place in expected
        ]
    assert load_dataset(f"images:{tmp_path},size=2").class_names == ("B", "a", "b", "c")


def one_of_each(*places: str) -> Callable[[Path], None]:
    return lambda folder: [save(folder / place) for place in places] and None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (one_of_each("1.png"), "has 1 images and no class folders in"),
        (one_of_each("a/1.png"), "images in 1 class folders .* at least two"),
        (one_of_each("a/1.txt", "b/.1.png"), "images in 0 class folders"),
        (
            one_of_each("train/a/1.png", "train/b/1.png", "test/1.png"),
            "has 1 images and no class folders in .*test: .* with ,test=0.2",
        ),
        (
            one_of_each("train/a/1.png", "train/b/1.png", "Train/b/1.png"),
            "two folders for its training part, Train and train",
        ),
        (
            one_of_each("train2017/a/1.png", "val2017/a/1.png", "notes/1.txt"),
            "folders named train2017 and val2017, .* write images:.*train2017,test=.*val2017",
        ),
        (one_of_each("seg_train/a/1.png", "seg_test/a/1.png"), "seg_train and seg_test, which"),
        (one_of_each("Training set/1.png", "test/1.png"), "Training set and test, which are"),
    ],
)
def test_other_layouts_are_refused_with_what_was_found(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path)
    for ask in (load_dataset, dataset_shape, dataset_files):
        with pytest.raises(InputError, match=message):
            ask(f"images:{tmp_path}")


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    with pytest.raises(InputError, match=r"1\.png is a file, accepted is a folder"):
        load_dataset(f"images:{tmp_path / '1.png'}")
    with pytest.raises(InputError, match=r"nowhere cannot be read \(No such file"):
        load_dataset(f"images:{tmp_path / 'nowhere'}")
