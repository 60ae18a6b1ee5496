"""`make zoo`: examines every architecture and writes the table of docs/reference/models.md."""

import argparse
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from tests.models.zoo import SPECIMENS
from tests.models.zoo.compare import STAGES, Outcome, examine

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "models.md"
TEXT = """# Models that train as they stand

<!-- made by `make zoo`; do not edit -->

Each of these {count} architectures, as a small instance, was captured from its module, cut into
{stages} stages of about equal size and compared with the uncut original: outputs, loss, every
gradient and the buffers afterwards in training (dropout and batch statistics on, two batch sizes),
outputs in evaluation, and the names and values of the `state_dict`. Each stage ran backward on its
own, from nothing but the gradients of what crosses to the next. *Equal* means equal to the last
bit: {equal} are; refused before anything is trained: {refused}{different}.

In evaluation, torch's fused kernels for `nn.TransformerEncoder` were switched off: they have other
last bits than the operations that they stand for, and a captured module does not use them.

*Layers* is the number of layers that the toolkit finds, between any two of which a network may be
cut; *crossing* is the largest number of tensors that cross one of the {cuts} cuts. The code of the
architectures is in `tests/models/zoo`; those named after transformers are that package's own.

{table}
"""

_OUR_FOLDERS = re.compile(r"/[^ ]*/site-packages/")
"""The part of a path that is another one on every machine."""


def page(outcomes: Sequence[Outcome]) -> str:
    """Return the text of the page."""
    rows = ["| architecture | kind | parameters | layers | crossing | result |"]
    rows.append("|---|---|---|---|---|---|")
    for outcome in outcomes:
        cells = [outcome.name, outcome.family, f"{outcome.parameters:,}"]
        cells += [str(outcome.layers or ""), str(outcome.crossing or "")]
        result = _OUR_FOLDERS.sub("", outcome.result).replace("|", r"\|")
        rows.append(f"| {' | '.join([*cells, result])} |")
    equal = sum(outcome.equal for outcome in outcomes)
    refused = sum(outcome.refused for outcome in outcomes)
    different = len(outcomes) - equal - refused
    return TEXT.format(
        count=len(outcomes),
        stages=STAGES,
        cuts=STAGES - 1,
        equal=equal,
        refused=refused,
        different=f"; different: {different}" if different else "",
        table="\n".join(rows),
    )


def main() -> int:
    """Examine the architectures whose names contain the given words, or all and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="examine only these, and write nothing")
    words = parser.parse_args().words
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    outcomes = []
    for specimen in SPECIMENS:
        if words and not any(word.lower() in specimen.name.lower() for word in words):
            continue
        outcome = examine(specimen)
        outcomes.append(outcome)
        say(
            f"{outcome.name:34} {outcome.layers:4} layers {outcome.crossing:3} crossing  "
            f"{outcome.result}"
        )
    if not words:
        PAGE.write_text(page(outcomes), encoding="utf-8")
    equal = sum(outcome.equal for outcome in outcomes)
    say(f"{equal} of {len(outcomes)} are equal")
    return 0 if all(outcome.equal or outcome.refused for outcome in outcomes) else 1


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
