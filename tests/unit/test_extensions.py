"""Registries are extended by `module:name` and by entry points, without touching the toolkit."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from hpc_lpm import extensions
from hpc_lpm.errors import InputError
from hpc_lpm.extensions import Registry, expect_type


class Animal:
    def __init__(self, sound: str = "moo") -> None:
        self.sound = sound


class Cow(Animal):
    pass


def _adapt(name: str, found: object) -> Animal:
    return expect_type("animal", name, found, Animal)


@pytest.fixture
def animals(monkeypatch: pytest.MonkeyPatch) -> Registry[Animal]:
    point = EntryPoint("cat", f"{__name__}:CAT", "zoo.animals")
    broken = EntryPoint("fish", "no_such_module:FISH", "zoo.animals")
    monkeypatch.setattr(
        extensions, "_points", lambda group: {"cat": point, "fish": broken, "cow": point}
    )
    return Registry("animal", "zoo.animals", {"cow": Cow()}, _adapt)


CAT = Animal("miaow")


def test_the_toolkits_own_entries_come_first_and_are_not_replaced(
    animals: Registry[Animal],
) -> None:
    assert animals.names() == ["cow", "cat", "fish"]
    assert isinstance(animals.named("cow"), Cow)


def test_an_entry_point_is_found_by_its_plain_name(animals: Registry[Animal]) -> None:
    assert animals.named("cat") is CAT


def test_an_entry_point_that_cannot_be_imported_is_named(animals: Registry[Animal]) -> None:
    with pytest.raises(
        InputError, match=r"animal 'fish' of .* cannot be imported .*no_such_module"
    ):
        animals.named("fish")


def test_a_name_with_a_colon_is_imported_from_the_current_directory_and_only_once(
    animals: Registry[Animal], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_animals_of_a_test.py").write_text(
        f"from {__name__} import Animal\nDOG = Animal('wuff')\nclass Dog(Animal):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert animals.named("my_animals_of_a_test:DOG").sound == "wuff"
    made = animals.named("my_animals_of_a_test:Dog")
    assert type(made).__name__ == "Dog"
    assert animals.named("my_animals_of_a_test:Dog") is made
    assert sys.path == before


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("cwo", r"animal 'cwo' is unknown, did you mean 'cow'.*accepted are cow, cat, fish"),
        ("json:nothing", r"module 'json' has no name 'nothing'.*name what is to be the animal"),
        ("json:", "module 'json' has no name ''"),
        ("no_such_module:x", "module 'no_such_module' of animal 'no_such_module:x' cannot be"),
        ("json:dumps", "animal 'json:dumps' is function, accepted is an instance or a subclass"),
    ],
)
def test_what_cannot_be_an_entry_is_refused_in_a_sentence(
    animals: Registry[Animal], name: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        animals.named(name)
