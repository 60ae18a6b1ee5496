"""Reads the documents as a reader sees them: links, headings, code."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts),
    ]
)


@dataclass(frozen=True)
class CodeBlock:
    """A block of code: its language (empty where it is only indented) and its text."""

    language: str
    text: str


def name_of(document: Path) -> str:
    """Return the path of a document as it is shown in the names of tests."""
    return str(document.relative_to(ROOT))


@cache
def _tokens(document: Path) -> list[Token]:
    return MarkdownIt("commonmark").enable("table").parse(document.read_text(encoding="utf-8"))


def _inline(document: Path) -> Iterator[Token]:
    for token in _tokens(document):
        yield from token.children or []


def links(document: Path) -> list[str]:
    """Return the targets of all links and images."""
    attributes = ((token.attrs.get("href"), token.attrs.get("src")) for token in _inline(document))
    return [str(target) for pair in attributes for target in pair if target]


def inline_code(document: Path) -> list[str]:
    """Return everything that is set as code within a line."""
    return [token.content for token in _inline(document) if token.type == "code_inline"]


def code_blocks(document: Path) -> list[CodeBlock]:
    """Return all blocks of code in their order."""
    return [
        CodeBlock(token.info.strip(), token.content)
        for token in _tokens(document)
        if token.type in ("fence", "code_block")
    ]


def anchors(document: Path) -> set[str]:
    """Return the anchors of all headings, as code hosts and MyST make them."""
    tokens = _tokens(document)
    return {
        re.sub(r"[^\w\- ]", "", text.content.lower()).replace(" ", "-")
        for heading, text in pairwise(tokens)
        if heading.type == "heading_open"
    }


def commands(document: Path) -> list[list[str]]:
    """Return the words of every `hpc-lpm` command in a block of code, continued lines joined.

    What a shell would not hand to the command (comments, output of the command) is left out.
    """
    found = []
    for block in code_blocks(document):
        if block.language not in ("", "sh", "console"):
            continue
        for line in re.sub(r"\\\n", " ", block.text).splitlines():
            words = line.split("#")[0].removeprefix("$ ").split()
            if words[:1] == ["hpc-lpm"]:
                found.append(words[1:])
            elif words[:1] == ["mpirun"] and "hpc_lpm" in words:
                found.append(words[words.index("hpc_lpm") + 1 :])
    return found
