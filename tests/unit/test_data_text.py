"""Text of any file or folder: every byte in order, the next byte as target."""

import json
import os
import socket
from pathlib import Path

import pytest
import torch

from hpc_lpm.data.registry import dataset_files, dataset_shape, load_dataset
from hpc_lpm.errors import InputError


def test_samples_are_the_bytes_and_targets_the_next_ones(tmp_path: Path) -> None:
    content = bytes(range(256)) * 2
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    dataset = load_dataset(f"text:{path},sequence=10")
    train_bytes = 512 - 51
    assert len(dataset.train) == (train_bytes - 1) // 10
    assert len(dataset.test) == (51 - 1) // 10
    indices = torch.arange(len(dataset.train))
    inputs, targets = dataset.train.inputs(indices), dataset.train.targets(indices)
    assert inputs.dtype == targets.dtype == torch.int64
    assert bytes(inputs.flatten().tolist()) == content[: inputs.numel()]
    assert bytes(targets.flatten().tolist()) == content[1 : inputs.numel() + 1]
    first_test = dataset.test.inputs(torch.tensor([0]))
    assert bytes(first_test[0].tolist()) == content[train_bytes : train_bytes + 10]


def test_shape_is_known_without_loading(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 400)
    identifier = f"text:{path},sequence=20"
    assert dataset_shape(identifier) == load_dataset(identifier).shape
    assert dataset_shape(identifier).input_shape == (20,)
    assert dataset_shape(identifier).classes == 256


def test_folder_is_its_regular_files_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("c", "a", "b"):
        (tmp_path / name).write_bytes(name.encode() * 100)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "inner").write_bytes(b"z" * 1000)
    dataset = load_dataset(f"text:{tmp_path},sequence=9")
    indices = torch.arange(len(dataset.train))
    read = bytes(dataset.train.inputs(indices).flatten().tolist())
    assert read == (b"a" * 100 + b"b" * 100 + b"c" * 100)[: len(read)]


def test_paths_may_hold_commas(tmp_path: Path) -> None:
    path = tmp_path / "a,b.txt"
    path.write_bytes(b"x" * 400)
    assert load_dataset(f"text:{path},sequence=8").shape.input_shape == (8,)


def test_too_small_a_text_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 1289)
    with pytest.raises(
        InputError, match=r"holds 1289 bytes, .* test part 128, accepted are at least 129"
    ):
        load_dataset(f"text:{path}")
    path.write_bytes(b"x" * 1290)
    assert len(load_dataset(f"text:{path}").test) == 1


def test_missing_path_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing cannot be read \(No such file"):
        load_dataset(f"text:{tmp_path / 'nothing'}")


def test_sequence_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'sequence' of text is 0"):
        load_dataset(f"text:{tmp_path},sequence=0")


def content_of(identifier: str) -> bytes:
    """The bytes of the training part's inputs."""
    train = load_dataset(identifier).train
    return bytes(train.inputs(torch.arange(len(train))).flatten().tolist())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A folder as a programmer's is."""
    folder = tmp_path / "my code"
    for name in (
        *("a.py", "b.txt", "deep/er/c.py", "deep/d.PY", ".git/e.py", "deep/.f.py"),
        *("g.py~", "#h.py#", ".#i.py", "j.py.bak", ".k.py.swp", "node#1.py"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(Path(name.strip("~#.")).name[:1].encode() * 60)
    (folder / "broken.py").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.py")
    return folder


@pytest.mark.parametrize(
    ("options", "letters"),
    [
        ("", "abn"),
        (",pattern=**/*.py", "acn"),
        (",pattern=*.txt+**/*.PY", "bd"),
        (",pattern=*.py,hidden=true", "ian"),
        (",pattern=*/*", "d"),
        (",hidden=true", "hikabgjn"),
    ],
)
def test_folders_are_read_by_pattern_without_hidden_and_backup_files(
    source: Path, options: str, letters: str
) -> None:
    identifier = f"text:{source},sequence=1{options}"
    whole = b"".join(letter.encode() * 60 for letter in letters)
    read = content_of(identifier)
    assert read == whole[: len(read)]
    assert len(read) == len(whole) - len(whole) // 10 - 1
    assert len(dataset_files(identifier) or []) == len(letters)


def test_a_file_that_is_named_is_read_even_if_it_is_hidden(source: Path) -> None:
    assert content_of(f"text:{source / '.git' / 'e.py'},sequence=1")[:2] == b"ee"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (",pattern=*.md", r"no file that matches \*\.md: name"),
        (",pattern=.git/*", r"matches \.git/\*, but 1 hidden or backup files \(,hidden=true\)"),
        (
            ",pattern=/etc/*",
            r"'pattern' .* is '/etc/\*' .* accepted are patterns within the folder",
        ),
        (",pattern=", "has no file|accepted are patterns"),
        (",hidden=maybe", "'hidden' .* accepted is true or false"),
    ],
)
def test_patterns_that_fit_nothing_are_explained(source: Path, options: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_dataset(f"text:{source}{options}")


def test_the_test_part_is_a_share_or_a_text_of_its_own(tmp_path: Path) -> None:
    for name, letter in (("train.txt", b"a"), ("test.txt", b"b")):
        (tmp_path / name).write_bytes(letter * 100)
    for test, sizes in (("0.5", (5, 5)), (tmp_path / "test.txt", (11, 11))):
        dataset = load_dataset(f"text:{tmp_path / 'train.txt'},sequence=9,test={test}")
        assert (len(dataset.train), len(dataset.test)) == sizes


@pytest.mark.parametrize("kind", ["pipe", "device", "socket"])
def test_what_would_block_is_refused(tmp_path: Path, kind: str) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    listener = socket.socket(socket.AF_UNIX)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        listener.bind(str(path))
    with pytest.raises(InputError, match=f"{path} is a {kind}, accepted is a regular file"):
        load_dataset(f"text:{path}")
    listener.close()


def write_tokenizer(path: Path) -> None:
    """Words as tokens, of which the numbers have a gap; it would cut and pad what it encodes."""
    vocabulary = {"?": 0, "low": 1, "high": 2, "[PAD]": 7}
    path.write_text(
        json.dumps(
            {
                "version": "1.0",
                "truncation": {
                    "direction": "Right",
                    "max_length": 4,
                    "strategy": "LongestFirst",
                    "stride": 0,
                },
                "padding": {
                    "strategy": {"Fixed": 6},
                    "direction": "Right",
                    "pad_to_multiple_of": None,
                    "pad_id": 7,
                    "pad_type_id": 0,
                    "pad_token": "[PAD]",
                },
                "added_tokens": [],
                "normalizer": None,
                "pre_tokenizer": {"type": "Whitespace"},
                "post_processor": None,
                "decoder": None,
                "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "?"},
            }
        )
    )


def test_a_tokenizer_gives_tokens_and_vocabulary(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    write_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "a.txt").write_text("low high other " * 20)
    (tmp_path / "b.txt").write_text("high " * 20)
    for tokenizer in (tmp_path, tmp_path / "tokenizer.json"):
        identifier = f"text:{tmp_path},pattern=*.txt,sequence=4,tokenizer={tokenizer}"
        dataset = load_dataset(identifier)
        assert dataset.shape == dataset_shape(identifier)
        assert dataset.shape.vocabulary == 8
        everything = torch.arange(len(dataset.train))
        assert (
            dataset.train.inputs(everything).flatten().tolist() == ([1, 2, 0] * 20 + [2] * 11)[:68]
        )
        assert dataset.test.targets(torch.tensor([0])).tolist() == [[2] * 4]
        assert (dataset_files(identifier) or [])[-1] == tmp_path / "tokenizer.json"


def test_wrong_tokenizers_and_texts_are_explained(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    write_tokenizer(tmp_path / "tokenizer.json")
    (tmp_path / "a.txt").write_bytes(b"low \xff high")
    for options, message in (
        ("tokenizer=nowhere.json", r"tokenizer nowhere\.json cannot be read"),
        (f"tokenizer={tmp_path / 'a.txt'}", r"a\.txt cannot be read \(.*tokenizer\.json of the"),
        (f"tokenizer={tmp_path}", r"a\.txt is not UTF-8 at byte 4"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset(f"text:{tmp_path / 'a.txt'},{options}")
