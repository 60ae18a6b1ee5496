"""Durations and sizes mean what was typed, wherever a time or a size is set."""

from typing import Any

import pytest
from campaign_folders import campaign

from hpc_lpm.cli.option_values import command_parameters, document_of
from hpc_lpm.engine.settings import checked_settings, settings_fields
from hpc_lpm.errors import InputError
from hpc_lpm.planning.lists import memory_limit_of
from hpc_lpm.quantities import parse_bytes, parse_seconds


@pytest.mark.parametrize(
    ("typed", "seconds"),
    [
        ("90", 90),
        ("1e3", 1000),
        ("90s", 90),
        ("90m", 5400),
        ("1h30m", 5400),
        ("1H 30 min", 5400),
        ("1 hour 30 minutes", 5400),
        ("1.5h", 5400),
        ("1:30:00", 5400),
        ("100:00:30", 360_030),
        ("2d", 172_800),
        ("1-12:00:00", 129_600),
        ("500ms", 0.5),
        ("50us", 50e-6),
    ],
)
def test_a_duration_is_read_in_all_its_spellings(typed: str, seconds: float) -> None:
    assert float(parse_seconds(typed)) == seconds


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("1:30", 'write "1h30m" or "1m30s"'),
        ("1-12", 'write "1d12h"'),
        ("1-12:30", 'write "1d12h30m"'),
        ("1:99:00", "no time"),
        ("1-25:00:00", "no time"),
        ("30m1h", "no duration"),
        ("1h1h", "no duration"),
        ("1h 30", "no duration"),
        ("-5m", "no duration"),
        ("", "no duration"),
        ("soon", "no duration"),
        ("1_000", "no duration"),
        ("1e999999999", "no duration"),
        ("9" * 5000, "no duration"),
        ("5 weeks", "no duration"),
    ],
)
def test_a_duration_that_is_not_clear_is_refused_with_the_spelling(typed: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_seconds(typed)


@pytest.mark.parametrize(
    ("typed", "size"),
    [
        ("4096", 4096),
        ("1e9", 10**9),
        ("4GiB", 4 * 2**30),
        ("4 gib", 4 * 2**30),
        ("512 MB", 512 * 10**6),
        ("512mb", 512 * 10**6),
        ("0.5KiB", 512),
        ("1.5kB", 1500),
        ("2TB", 2 * 10**12),
        ("7B", 7),
    ],
)
def test_a_size_is_read_in_all_its_spellings(typed: str, size: int) -> None:
    assert parse_bytes(typed) == size


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("4G", 'write "4GiB" for powers of 1024, or "4GB" for powers of 1000'),
        ("4 Gi", 'write "4GiB"'),
        ("4Gb", 'write "4GiB"'),
        ("5k", '"5kB" for powers of 1000'),
        ("0.0001kB", "no whole number of bytes"),
        ("-1", "no size"),
        ("1,000", "no size"),
        ("4 loaves", "unknown unit 'loaves'"),
        ("", "no size"),
        ("1e99999999B", "no size"),
    ],
)
def test_a_size_that_is_not_clear_is_refused_with_the_spelling(typed: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_bytes(typed)


@pytest.mark.parametrize(
    ("resources", "minutes", "megabytes"),
    [
        ({"runtime_minutes": 90}, 90, None),
        ({"runtime_minutes": "90"}, 90, None),
        ({"runtime_minutes": "90m"}, 90, None),
        ({"runtime_minutes": "1:30:00"}, 90, None),
        ({"runtime_minutes": "2d"}, 2880, None),
        ({"memory_megabytes": 4096}, None, 4096),
        ({"memory_megabytes": "4GiB"}, None, 4096),
        ({"memory_megabytes": "512 MB"}, None, 489),
    ],
)
def test_a_campaign_takes_times_and_sizes_with_their_units(
    resources: dict[str, Any], minutes: int | None, megabytes: int | None
) -> None:
    taken = campaign(resources=resources)
    assert taken.resources.runtime_minutes == minutes
    assert taken.resources.memory_megabytes == megabytes
    again = campaign(**taken.model_dump(mode="json"))
    assert again.resources == taken.resources


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"resources": {"runtime_minutes": "1:30"}}, 'two things: write "1h30m" or "1m30s"'),
        ({"resources": {"runtime_minutes": "90s"}}, "no whole number of minutes: write 2"),
        ({"resources": {"runtime_minutes": True}}, "found true"),
        ({"resources": {"runtime_minutes": "0m"}}, "a number above 0"),
        ({"resources": {"runtime_minutes": "4GiB"}}, "no duration"),
        ({"resources": {"memory_megabytes": "4G"}}, 'write "4GiB"'),
        ({"resources": {"memory_megabytes": 2.5}}, "a whole number, found 2.5"),
        ({"receive_timeout_seconds": "1:30"}, 'write "1h30m"'),
        ({"receive_timeout_seconds": float("inf")}, "a finite number"),
    ],
)
def test_a_campaign_refuses_times_and_sizes_that_are_not_clear(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError) as refused:
        campaign(**changes)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("value", "seconds"), [(10, 10.0), ("10", 10.0), ("10m", 600.0), ("500ms", 0.5)]
)
def test_settings_and_options_take_times_with_their_units(value: object, seconds: float) -> None:
    fields = settings_fields("horovod")
    shared = {"model": "mlp", "dataset": "digits", "epochs": 1, "strategy": "horovod"}
    settings = checked_settings(**shared, receive_timeout_seconds=value)
    assert settings.receive_timeout_seconds == seconds
    kinds = {each.name: each.annotation for each in command_parameters(fields)}
    assert str in kinds["receive_timeout_seconds"].__origin__.__args__
    given = {"receive_timeout_seconds": str(value), "cycle_time_milliseconds": "1s"}
    own = checked_settings(**shared, **document_of(fields, given))
    assert own.receive_timeout_seconds == seconds
    assert own.model_dump()["cycle_time_milliseconds"] == 1000.0


def test_a_memory_limit_is_one_size_or_one_for_each_stage() -> None:
    assert memory_limit_of("4GiB") == 4 * 2**30
    assert memory_limit_of("1GB, 2000") == (10**9, 2000)
    for typed, words in (("4G", 'write "4GiB"'), ("0", "above 0"), ("1,", "no size")):
        with pytest.raises(InputError, match=words):
            memory_limit_of(typed)
