"""Spoils valid files: the structure of documents, the fields of lines, and bytes of anything.

A mutation is three numbers, which hypothesis draws and makes small again: what is done, where, and
which of the values of `tests.fuzz.values` is put there. The same numbers give the same file.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tests.fuzz.values import BYTES, KEYS, NUMBERS, RAW, RAW_YAML, TEXTS, Raw

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Mutation:
    """One change: `what` is done, `where`, and `which` value is taken for it."""

    what: int
    where: int
    which: int


class Entries(dict[str, Any]):
    """A section in which keys come again with other values."""

    def __init__(self, entries: MutableMapping[str, Any]) -> None:
        super().__init__(entries)
        self.again: list[tuple[str, Any]] = []


def one_of(entries: list[Entry], number: int) -> Entry:
    return entries[number % len(entries)]


def written(tree: Any) -> str:
    """Return a document as JSON, which is YAML too; a `Raw` text stands as it is."""
    if isinstance(tree, Raw):
        return str(tree)
    if isinstance(tree, dict):
        again = tree.again if isinstance(tree, Entries) else []
        pairs = [*tree.items(), *again]
        return "{" + ", ".join(f"{json.dumps(key)}: {written(each)}" for key, each in pairs) + "}"
    if isinstance(tree, list):
        return "[" + ", ".join(map(written, tree)) + "]"
    return json.dumps(tree)


Slot = tuple[Any, Any]
"""A list or section, and the position or key of a value in it."""


def slots(tree: Any) -> Iterator[Slot]:
    """Yield the places of all values within a document."""
    if isinstance(tree, Raw | str):
        return
    if isinstance(tree, MutableMapping | MutableSequence):
        keys = list(tree) if isinstance(tree, MutableMapping) else range(len(tree))
        for key in keys:
            yield tree, key
            yield from slots(tree[key])


def spoil_document(document: Any, mutations: list[Mutation], *, yaml: bool = False) -> str:
    """Return the text of a document after changes of its structure and values."""
    whole = [json.loads(json.dumps(document))]
    for mutation in mutations:
        places = list(slots(whole))
        if not places:
            return one_of([*TEXTS, *RAW], mutation.which)
        change = one_of(_CHANGES, mutation.what)
        change(one_of(places, mutation.where), mutation, [*RAW, *(RAW_YAML if yaml else [])])
    return written(whole[0]) if whole else ""


def _replace(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    slot[0][slot[1]] = one_of([*TEXTS, *raw], mutation.which)


def _extreme(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    """Put another value of the same type, which passes the first check."""
    found = slot[0][slot[1]]
    if isinstance(found, bool):
        slot[0][slot[1]] = not found
    elif isinstance(found, int | float):
        slot[0][slot[1]] = one_of(NUMBERS, mutation.which)
    elif isinstance(found, str):
        slot[0][slot[1]] = one_of([*TEXTS, found * 2, found[:1], f" {found}"], mutation.which)
    elif isinstance(found, list) and found:
        slot[0][slot[1]] = one_of([found * 50, found[:1], found[::-1], []], mutation.which)
    else:
        _replace(slot, mutation, raw)


def _remove(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    del slot[0][slot[1]]


def _again(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    held, key = slot
    if isinstance(held, list):
        held.insert(key, held[key])
        return
    for other, value in list(held.items()):
        if isinstance(value, dict) and not isinstance(value, Entries):
            held[other] = Entries(value)
            held[other].again.append((next(iter(value), "a"), one_of(raw, mutation.which)))


def _rename(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    held, key = slot
    if isinstance(held, dict):
        held[one_of([*KEYS, f"{key}s", key.upper(), key[:-1]], mutation.which)] = held.pop(key)
    else:
        _remove(slot, mutation, raw)


def _add(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    held, _ = slot
    value = one_of([*raw, *TEXTS], mutation.which)
    if isinstance(held, dict):
        held[one_of(KEYS, mutation.which // 7)] = value
    else:
        held.append(value)


def _exchange(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    held, key = slot
    other = one_of(list(held) if isinstance(held, dict) else list(range(len(held))), mutation.which)
    held[key], held[other] = held[other], held[key]


def _nest(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    held, key = slot
    for _ in range(one_of([1, 1, 2, 30, 200], mutation.which)):
        held[key] = [held[key]] if mutation.which % 2 else {"a": held[key]}


def _as_text(slot: Slot, mutation: Mutation, raw: list[Raw]) -> None:
    held, key = slot
    found = held[key]
    if isinstance(found, str) and re.fullmatch(r"[-+.\de]+", found):
        held[key] = Raw(found)
    else:
        held[key] = found if isinstance(found, str) else written(found)


_CHANGES: list[Callable[[Slot, Mutation, list[Raw]], None]] = [
    _replace,
    _extreme,
    _extreme,
    _remove,
    _again,
    _rename,
    _add,
    _exchange,
    _nest,
    _as_text,
]


def spoil_bytes(content: bytes, mutations: list[Mutation]) -> bytes:
    """Return a content with bytes flipped, cut off, put in, taken out or repeated."""
    for mutation in mutations:
        content = _spoilt(content, mutation)
    return content


def _spoilt(content: bytes, mutation: Mutation) -> bytes:
    # Heads hold what the rest is read by: half of all changes are made there.
    size = len(content) if mutation.where % 2 else min(len(content), 512)
    start = mutation.where // 2 % max(size, 1)
    token = one_of(BYTES, mutation.which)
    some = 1 + mutation.which % 97
    changed = [
        lambda: content[:start] + bytes([content[start] ^ 1 << some % 8]) + content[start + 1 :],
        lambda: content[:start] + token + content[start + len(token) :],
        lambda: content[:start] + token + content[start:],
        lambda: content[:start],
        lambda: content[:start] + content[start + some :],
        lambda: content[:start] + content[start : start + some] * 20 + content[start:],
        lambda: content + token,
        lambda: token + content,
        lambda: content * 2,
    ]
    return one_of(changed, mutation.what)() if content else token


def spoil_lines(text: str, mutations: list[Mutation]) -> bytes:
    """Return a text whose lines and fields are exchanged, dropped, repeated and replaced."""
    for mutation in mutations:
        lines = text.split("\n")
        line = mutation.where % len(lines)
        fields = re.split(r"([,;|\t =:]+)", lines[line])
        field = mutation.where // len(lines) % len(fields)
        what = mutation.what % 6
        if what < 2:
            value = one_of([*TEXTS, *map(str, RAW), *map(str, NUMBERS)], mutation.which)
            lines[line] = "".join([*fields[:field], value, *fields[field + 1 :]])
        elif what == 2:
            del lines[line]
        elif what == 3:
            lines.insert(line, one_of(lines, mutation.which))
        elif what == 4:
            lines[line] = "".join(fields[:field] + fields[field + 1 :])
        else:
            return spoil_bytes("\n".join(lines).encode(errors="surrogatepass"), mutations)
        text = "\n".join(lines)
    return text.encode(errors="surrogatepass")


def spoil_safetensors(content: bytes, mutations: list[Mutation]) -> bytes:
    """Return a safetensors file with another head, whose length may be told wrongly."""
    (length,) = struct.unpack("<Q", content[:8])
    head, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    if mutations[0].where % 4 == 0:
        return spoil_bytes(content, mutations)
    text = spoil_document(head, mutations).encode(errors="surrogatepass")
    told = len(text) if mutations[0].which % 5 else one_of([0, 2**63, 2**32, length], len(text))
    return struct.pack("<Q", told) + text + data
