"""Values of campaign and settings files mean what was typed, or are refused with the spelling."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError
from snakemake.cli import parse_config
from snakemake.common import dict_to_key_value_args

from hpc_lpm.campaign.config import Campaign, read_campaign
from hpc_lpm.campaign.workflow import load_call
from hpc_lpm.cli.app import app
from hpc_lpm.cli.commands import register
from hpc_lpm.cli.errors import run_guarded
from hpc_lpm.cli.option_values import argument_values
from hpc_lpm.documents import DocumentError, parse_json, parse_yaml
from hpc_lpm.engine.settings import checked_settings, read_settings
from hpc_lpm.errors import InputError
from hpc_lpm.identifiers import convert_options, parse_identifier
from hpc_lpm.typed_values import TypedModel

BASE = {
    "name": "typed",
    "models": "[mlp]",
    "datasets": "[digits]",
    "strategies": "[sequential, fbp]",
    "epochs": "1",
}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("1:30:00", "1:30:00"),
        ("2024-01-15", "2024-01-15"),
        ("2024_01_15", "2024_01_15"),
        ("1_000", "1_000"),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("1e-3", 0.001),
        ("-.5", -0.5),
        ("-.inf", float("-inf")),
        ("yes", "yes"),
        ("off", "off"),
        ("True", True),
        ("=", "="),
        ("~", None),
        ("", None),
        ("'007'", "007"),
        ("!!int 010", 10),
    ],
)
def test_yaml_is_read_by_the_core_schema_of_version_1_2(typed: str, meant: object) -> None:
    found = parse_yaml(f"key: {typed}")
    assert found == {"key": meant}
    assert type(found["key"]) is type(meant)  # type: ignore[index]


def test_sections_are_merged_and_reused_as_version_1_1_does() -> None:
    text = "a: &a {lr: 1, name: sgd}\nb: {<<: *a, lr: 2}\nc: *a"
    assert parse_yaml(text) == {
        "a": {"lr": 1, "name": "sgd"},
        "b": {"lr": 2, "name": "sgd"},
        "c": {"lr": 1, "name": "sgd"},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr: 1\nb: 2\nlr: 3", "line 3, column 1: key 'lr' is given twice"),
        ("a: {b: 1, b: 1}", "'b' is given twice"),
        ("a: &a [*a]", "holds itself"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(
                f"{b}: &{b} [{', '.join([f'*{a}'] * 8)}]\n" for a, b in pairwise("abcdefghi")
            ),
            "aliases without end",
        ),
        ("[" * 3000, "too deeply"),
        ("a: !!python/name:os.system", "line 1"),
        ("a: !!timestamp 2024-01-15", "timestamp"),
        ("a: " + "9" * 5000, "no whole number"),
        ("a: 9223372036854775808", "accepted is below 2\\^63"),
        ("a: 0xffffffffffffffff", "accepted is below 2\\^63"),
        ("a: 1e999", "too large"),
        ('a: "\\ud800"', "half of a character"),
        ("a: " + "x" * 2**18, "accepted are up to 262,144"),
        (
            "a: &a {x: 1}\n"
            + "".join(
                f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}]}}\n"
                for a, b in pairwise("abcdefghi")
            ),
            "aliases without end",
        ),
        ("a: 1\n---\na: 2", "another document"),
        ("a: \x00", "special characters"),
    ],
)
def test_yaml_that_says_two_things_or_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words) as refused:
        parse_yaml(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": NaN}', "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ("[" * 100_000, "deeply"),
        ('{"a": 1,}', "line 1"),
        ("[" * 101 + "]" * 101, "deeply"),
        ("9223372036854775808", "accepted is below 2\\^63"),
        ("-" + "9" * 5000, "accepted is below 2\\^63"),
        ("1e999", "too large"),
        ('{"\\ud800": 1}', "half of a character"),
        ('["\\uDC00\\uD800"]', "half of a character"),
    ],
)
def test_json_that_no_standard_accepts_is_refused(text: str, words: str) -> None:
    with pytest.raises(DocumentError, match=words):
        parse_json(text)


def test_json_keeps_numbers_and_characters_that_mean_something() -> None:
    document = [2**63 - 1, -(2**63) + 1, 1.7e308, 5e-324, "\U0001f600 é", {"a": [[None, True]]}]
    assert parse_json(json.dumps(document)) == document


def write_campaign(folder: Path, line: str = "") -> Path:
    """Write the campaign with a line more, which replaces that of its key."""
    key = line.partition(":")[0]
    left_out = {key, "epochs" if key == "steps" else ""}
    lines = [f"{name}: {value}" for name, value in BASE.items() if name not in left_out]
    path = folder / "typed.yaml"
    path.write_text("\n".join([*lines, line]))
    return path


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("batch_size: 020", "batch_size", 20),
        ("name: 2024-01-15", "name", "2024-01-15"),
        ("name: 2024_01_15", "name", "2024_01_15"),
        ("name: yes", "name", "yes"),
        ("name: '007'", "name", "007"),
        ("name: Upper.Case-1", "name", "Upper.Case-1"),
        ("optimizer: {lr: 1e-3}", "optimizer.lr", 0.001),
        ("optimizer: {lr: 1}", "optimizer.lr", 1.0),
        ("seeds: [010, 0x10]", "seeds", [10, 16]),
    ],
)
def test_a_campaign_takes_values_as_they_are_typed(
    tmp_path: Path, line: str, key: str, value: object
) -> None:
    found: Any = read_campaign(write_campaign(tmp_path, line))
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("batch_size: true", "batch_size: accepted is a whole number, found true"),
        ('batch_size: "64"', "write 64, without quotes"),
        ("batch_size: 1_000", "write 1000, without quotes"),
        ("batch_size: 1,000", "write 1000, without quotes"),
        ("steps: 1e3", "found 1000.0: write 1000"),
        ("batch_size: 8.5", "accepted is a whole number, found 8.5"),
        ("prediction: yes", "write true, without quotes"),
        ("prediction: off", "write false, without quotes"),
        ("prediction: 1", "accepted is true or false, found 1"),
        ("repeats: null", "accepted is a whole number, found null"),
        ('optimizer: {lr: "0.1"}', "optimizer.lr: accepted is a number, found '0.1': write 0.1"),
        ("optimizer: {lr: .inf}", "accepted is a finite number"),
        ("optimizer: {weight_decay: .inf}", "accepted is a finite number"),
        ("optimizer: {momentum: .nan}", "accepted is a finite number"),
        ("optimizer: {options: {eps: .nan}}", "options.eps: accepted is a finite number"),
        ("seeds: [0, true]", "seeds.1: accepted is a whole number, found true"),
        ("seeds: [0, 1.5]", "seeds.1: accepted is a whole number"),
        ("cuts: [true]", "cuts.0: accepted is a whole number or text, found true"),
        ("name: 007", "name: accepted is text, found 7: put it in quotes"),
        ("name: 1e5", "put it in quotes"),
        ("name: true", "found true: put it in quotes"),
        ("name: null", "name: accepted is text, found null"),
        ("models: [7]", "models.0: accepted is text, found 7: put it in quotes"),
        ("strategies: [{fbp: {name: 7}}]", "accepted is a text"),
        ('strategies: [{fbp: {name: "a\\nb"}}]', "a text of one line"),
        ('strategies: [{fbp: {name: "\\e[31mred"}}]', "a text of one line"),
        ("strategies: [{fbp: {lead: true}}]", "lead: accepted is a whole number, found true"),
        ("strategies: [{fbp: {batch_sizes: 1}}]", "unknown setting 'batch_sizes'"),
        ("name: a/b", "letters (capitals too), digits, dots"),
        ("name: -a", "the first is a letter or digit"),
        ("name: " + "a" * 300, "at most 100"),
        ("name: réseau", "accepted are letters"),
        ("launcher: {mpi: Srun}", "accepted is 'mpirun' or 'srun', found 'Srun'"),
        ("data_dir: 5", "data_dir: accepted is "),
        ("name: again\nname: other", "is given twice"),
    ],
)
def test_what_is_not_meant_by_its_type_is_refused_with_the_spelling(
    tmp_path: Path, line: str, words: str
) -> None:
    from hpc_lpm.campaign.contestant_checks import check_contestants

    with pytest.raises(InputError) as refused:
        check_contestants(read_campaign(write_campaign(tmp_path, line)))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("threads", True, "threads: accepted is a whole number, found true"),
        ("seed", "3", "write 3, without quotes"),
        ("epochs", 2.0, "write 2"),
        ("model", 7, "put it in quotes"),
        ("drain_at", [1.5], "drain_at.0: accepted is a whole number"),
        ("optimizer", {"momentum": 1}, "optimizer.momentum: accepted is a number below 1"),
        ("precision", "FP32", "accepted is 'fp32' or 'bf16', found 'FP32'"),
    ],
)
def test_a_settings_file_is_read_as_strictly(
    tmp_path: Path, key: str, value: object, words: str
) -> None:
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"model": "mlp", "dataset": "digits", "epochs": 1, key: value}))
    with pytest.raises(InputError) as refused:
        checked_settings(**read_settings(path))
    assert words in str(refused.value)


@pytest.mark.parametrize("text", ['{"seed": 1, "seed": 2}', '{"optimizer": {"lr": NaN}}'])
def test_a_settings_file_that_says_two_things_or_none_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"settings\.json cannot be read"):
        read_settings(path)


def started_with(folder: Path, *given: str) -> Campaign:
    """Return the campaign that `snakemake --configfile ... --config GIVEN` runs."""
    path = write_campaign(folder, "optimizer: {lr: 1e-3}")
    config = parse_config(list(given))
    # What Snakemake hands on to the jobs means the same there.
    assert parse_config(dict_to_key_value_args(config, repr_obj=True)) == config
    return load_call(config, [path], path, folder).steps(folder).campaign


@pytest.mark.parametrize(
    ("given", "key", "value"),
    [
        ("name=2024-01-15", "name", "2024-01-15"),
        ("name=true", "name", "true"),
        ("name=null", "name", "null"),
        ("batch_size=020", "batch_size", 20),
        ("seeds=[3,4]", "seeds", [3, 4]),
        ("models=[mlp]", "models", ["mlp"]),
        ("prediction=true", "own", {"prediction": True}),
        ("lead=2", "own", {"lead": 2}),
        ("precision=bf16", "precision", "bf16"),
        ("cuts=[2]", "cuts", [2]),
        ("data_dir=007x", "data_dir", Path("007x")),
        ("optimizer={momentum: 0.5}", "optimizer.momentum", 0.5),
        ("optimizer={momentum: 0.5}", "optimizer.lr", 0.001),
        ("resources={nodes: 2}", "resources.nodes", 2),
        ("strategies=[{fbp: {lead: 2}}]", "strategies", [{"fbp": {"lead": 2}}]),
    ],
)
def test_config_on_the_command_line_means_what_was_typed(
    tmp_path: Path, given: str, key: str, value: object
) -> None:
    found: Any = started_with(tmp_path, given)
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("name=007", "name is text: begin it with a letter, or set it in the"),
        ("name=1e5", "begin it with a letter"),
        ("name=2024_01_15", "begin it with a letter"),
        ("name=True", "begin it with a letter"),
        ("name='007'", "begin it with a letter"),
        ("precision=16", "accepted is 'fp32' or 'bf16', found 16"),
        ("batch_size=8.5", "accepted is a whole number"),
        ("batch_size=True", "accepted is a whole number, found true"),
        ("optimizer={lr: nan}", "optimizer.lr: accepted is a number, found 'nan'"),
        ("bacth_size=8", "did you mean 'batch_size'"),
    ],
)
def test_config_on_the_command_line_that_lost_its_meaning_is_refused(
    tmp_path: Path, given: str, words: str
) -> None:
    with pytest.raises(InputError) as refused:
        started_with(tmp_path, given)
    assert words in str(refused.value)


TRAIN = ["train", "--model", "mlp", "--dataset", "digits", "--steps", "1", "--out", "out"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--batch-size", "0x10"], "'--batch-size': accepted is a whole number, found '0x10'"),
        (["--lr", "1,5"], "'--lr': accepted is a number, found '1,5'"),
        (["--lr", "nan"], "accepted is a finite number, found nan"),
        (["--weight-decay", "inf"], "accepted is a finite number, found inf"),
        (["--optimizer-option", "nesterov=yes"], "is 'yes', accepted is true or false"),
        (["--optimizer-option", "dampening=1_0"], "is '1_0', accepted is a number"),
        (
            ["--optimizer", "adam", "--optimizer-option", "eps=nan"],
            "is 'nan', accepted is a number",
        ),
        (["--optimizer", "adam", "--optimizer-option", "betas=0.9"], "accepted is several numbers"),
        (["--optimizer", "adam", "--optimizer-option", "eps=.inf"], "a finite number"),
    ],
)
def test_options_on_the_command_line_are_as_strict(
    typed: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    register(TRAIN)
    assert run_guarded(app, [*TRAIN, *typed]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("alpha=1e-3", 0.001),
        ("alpha=007", 7),
        ("alpha=true", True),
        ("alpha=0.9,1", (0.9, 1.0)),
        ("alpha=1_0", "1_0"),
        ("alpha=2024-01-15", "2024-01-15"),
        ("alpha=true,1", "true,1"),
        ("alpha=nan", "nan"),
        ("alpha=null", "null"),
    ],
)
def test_an_argument_of_ones_own_is_what_was_typed(typed: str, meant: object) -> None:
    (found,) = argument_values("--optimizer-option", [typed]).values()
    assert found == meant
    assert type(found) is type(meant)


def undeclared(shape: object, *, date="", width: int = 1, share: float = 0.5):  # type: ignore[no-untyped-def]
    """A factory whose option `date` has no declared type."""


@pytest.mark.parametrize(
    ("options", "meant"),
    [
        ("date=2024_01_15", {"date": "2024_01_15"}),
        ("date=2024-01-15", {"date": "2024-01-15"}),
        ("date=1e3", {"date": 1000.0}),
        ("date=nan", {"date": "nan"}),
        ("date=null", {"date": "null"}),
        ("date=True", {"date": True}),
        ("width=016", {"width": 16}),
        ("share=1", {"share": 1.0}),
        ("width=1_6", None),
        ("width=1e1", None),
        ("share=nan", None),
        ("share=true", None),
    ],
)
def test_an_option_of_an_identifier_is_what_was_typed(
    options: str, meant: dict[str, object] | None
) -> None:
    identifier = parse_identifier(f"own,{options}")
    if meant is None:
        with pytest.raises(InputError, match="accepted is a"):
            convert_options(identifier, undeclared, {})
        return
    assert convert_options(identifier, undeclared, {}) == meant


class Own(TypedModel):
    table: dict[int, float] = Field(default={})
    pair: tuple[int, int] = (1, 1)
    folder: Path | None = None
    either: int | str | None = None


def test_fields_of_ones_own_read_back_from_json_as_they_were() -> None:
    own = Own(table={1: 2}, pair=(3, 4), folder=Path("a"), either="5")
    assert Own.model_validate(json.loads(own.model_dump_json())) == own
    assert Own.model_validate({"either": 5}).either == 5
    for wrong in ({"table": {"1": "2"}}, {"pair": [1, True]}, {"folder": 5}, {"either": 1.5}):
        with pytest.raises(ValidationError):
            Own.model_validate(wrong)
