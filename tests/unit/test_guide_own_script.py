"""The guide to scripts of one's own shows the scripts in `examples`, and runs as printed."""

import difflib
import math
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.unit.documents import ROOT, code_blocks
from tests.unit.test_documents_examples import run_as_printed

EXAMPLES = ROOT / "examples"
GUIDE = ROOT / "docs" / "how-to" / "own-script.md"
MOST_CHANGED_LINES = 8


def blocks(language: str) -> list[str]:
    return [block.text for block in code_blocks(GUIDE) if block.language == language]


def commands_with(words: str) -> str:
    (found,) = (text for text in blocks("sh") if words in text)
    return found


def source(name: str) -> str:
    return (EXAMPLES / name).read_text(encoding="utf-8")


def continuation(script: str) -> str:
    """Return a script followed by all blocks of the guide that go on from its end."""
    first, *others = blocks("python")
    assert first == source("plain_loop.py")
    whole = [source("gpt2.py")]
    return "".join([script, *(t for t in others if t not in whole and not t.startswith("# my_"))])


def test_the_guide_shows_the_plain_loop_and_the_gpt2_of_the_examples() -> None:
    shown = blocks("python")
    assert source("plain_loop.py") in shown
    assert source("gpt2.py") in shown


def test_the_diff_of_the_guide_changes_at_most_eight_lines_and_makes_the_second_script() -> None:
    plain, staged = source("plain_loop.py"), source("two_stages.py")
    (shown,) = blocks("diff")
    made = difflib.unified_diff(
        plain.splitlines(keepends=True),
        staged.splitlines(keepends=True),
        "plain_loop.py",
        "two_stages.py",
        n=1,
    )
    assert shown == "".join(made)
    _, _, *body = shown.splitlines()
    for sign in "-+":
        assert 0 < sum(line.startswith(sign) for line in body) <= MOST_CHANGED_LINES


@pytest.mark.mpi
@pytest.mark.parametrize("launch", ["\npython two_stages", "\nmpirun -n 2", "\ntorchrun"])
def test_the_same_script_learns_on_one_device_and_on_two(launch: str, tmp_path: Path) -> None:
    shutil.copy(EXAMPLES / "two_stages.py", tmp_path)
    (commands,) = (text for text in blocks("sh") if launch in text and "two_stages" in text)
    printed = run_as_printed(commands, tmp_path)
    accuracies = [float(found) for found in re.findall(r"epoch 5: accuracy ([\d.]+)", printed)]
    assert len(accuracies) == (1 if "python" in launch else 2)
    assert min(accuracies) > 0.85
    weights = torch.load(tmp_path / "digits.pt")
    assert len(weights) == 12
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.mpi
def test_whatever_the_guide_adds_to_the_script_runs_in_two_stages(tmp_path: Path) -> None:
    script = source("two_stages.py")
    once = re.sub(r"range\(5\)", "range(1)", script)
    network = re.search(r"^import torch\n.*?(?=^def accuracy)", script, re.DOTALL | re.MULTILINE)
    assert once != script
    assert network is not None
    (own_file,) = (text for text in blocks("python") if text.startswith("# my_net.py"))
    (tmp_path / "my_net.py").write_text(network[0] + own_file, encoding="utf-8")
    (tmp_path / "two_stages.py").write_text(continuation(once), encoding="utf-8")
    run_as_printed(commands_with("results/net"), tmp_path)
    printed = run_as_printed(commands_with("mpirun -n 2 --bind-to none python two"), tmp_path)
    assert re.search(r"^step 26: loss \d", printed, re.MULTILINE)
    assert "traceEvents" in (tmp_path / "trace.json").read_text()


@pytest.mark.mpi
def test_gpt2_is_fine_tuned_in_two_stages_and_saved_as_it_was_evaluated(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for name in ("tiny_gpt2.py", "gpt2.py"):
        shutil.copy(EXAMPLES / name, tmp_path)
    printed = run_as_printed(commands_with("tiny_gpt2.py"), tmp_path)
    before, after = (float(found) for found in re.findall(r"perplexity ([\d.]+)", printed))
    assert after < before / 4

    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "tuned")
    first = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tiny")
    tied = model.lm_head.weight, model.transformer.wte.weight
    assert tied[0] is tied[1]
    assert not torch.equal(tied[0], first.lm_head.weight)
    import argparse

    text = Path(argparse.__file__).read_text(encoding="utf-8")
    held_out = tokenizer(text, return_tensors="pt").input_ids[0]
    held_out = held_out[: len(held_out) // 64 * 64].view(-1, 64)[-50:]
    with torch.no_grad():
        loss = model(held_out, labels=held_out).loss
    assert math.exp(loss) == pytest.approx(after, abs=0.01)
