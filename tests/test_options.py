"""Options and ini keys, read into settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_kvscale import durations, options
from pytest_kvscale.errors import ConfigurationError, nearest
from pytest_kvscale.options import OPTIONS, Settings


def read(given: dict[str, Any], ini: dict[str, Any] | None = None) -> Settings:
    return options.read(given.get, (ini or {}).get)


def test_nothing_given_is_the_designs_defaults() -> None:
    settings = read({})
    assert settings == Settings()
    assert settings.levels == (50, 100, 200, 300, 400)
    assert (settings.qps, settings.burst) == (20, 20)
    assert (settings.timeout, settings.delete_timeout, settings.cooldown) == (3600, 1800, 3600)
    assert (settings.max_lag, settings.stall) == (1, None)
    assert (settings.cluster, settings.sim_profile, settings.sim_seed) == ("auto", "blog-2021", 0)
    assert settings.report_dir == Path("reports")


def test_the_command_line_wins() -> None:
    ini = {"kvscale_qps": "7", "kvscale_burst": "3"}
    settings = read({"kvscale_qps": "9"}, ini)
    assert (settings.qps, settings.burst) == (9, 3)


def test_each_option_sets_its_field() -> None:
    fields = {field.name for field in dataclasses.fields(Settings)}
    assert {option.target for option in OPTIONS} == fields - {"given"}


def test_what_was_given_is_known_apart_from_its_value() -> None:
    assert read({"kvscale_repeat": "1"}, {"kvscale_levels": "5"}).given == {"repeat", "levels"}
    assert read({"kvscale_repeat": "1"}) == Settings()


def test_values_are_read_as_written() -> None:
    settings = read(
        {
            "kvscale_levels": " 5, 7 ",
            "kvscale_stall": "1h30m",
            "kvscale_set": ["image=registry/x:1", "empty="],
            "kvscale_node_selector": "a=b,c=d",
            "kvscale_record": True,
            "kvscale_report_dir": "~/x",
        }
    )
    assert settings.levels == (5, 7)
    assert settings.stall == 5400
    assert settings.variables == {"image": "registry/x:1", "empty": ""}
    assert settings.node_selector == {"a": "b", "c": "d"}
    assert settings.record
    assert settings.report_dir == Path("~/x").expanduser()


def test_an_empty_ini_key_is_as_none() -> None:
    assert read({}, {"kvscale_qps": "", "kvscale_tune": ""}) == Settings()


@pytest.mark.parametrize("name", ["qps", "burst", "timeout", "levels", "sim_seed"])
def test_an_error_names_where_the_value_came_from(name: str) -> None:
    flag = name.replace("_", "-")
    with pytest.raises(ConfigurationError, match=f"^--kvscale-{flag}: 'x'"):
        read({f"kvscale_{name}": "x"})
    with pytest.raises(ConfigurationError, match=f"^kvscale_{name}: 'x'"):
        read({}, {f"kvscale_{name}": "x"})


@given(st.dictionaries(st.sampled_from([each.dest for each in OPTIONS]), st.text(max_size=12)))
def test_any_text_is_a_setting_or_an_error_of_one_sentence(given_: dict[str, str]) -> None:
    try:
        read(given_)
    except ConfigurationError as problem:
        assert str(problem).startswith("--kvscale-")  # noqa: PT017 - it need not be refused


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("0.5h", 1800),
     ("1m500ms", 60.5), ("0", 0), (" 7s ", 7)],
)  # fmt: skip
def test_durations_read_as_people_write_them(text: str, seconds: float) -> None:
    assert durations.parse(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5x", "m", "-5s", "1 h", "1m1h", "1h xx", "5mm", "inf", "nan"]
)
def test_what_is_no_duration_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration: write"):
        durations.parse(text)


@given(st.integers(60, 10**7))
def test_a_written_duration_reads_back(seconds: int) -> None:
    assert durations.parse(durations.write(seconds)) == seconds


def test_short_durations_keep_their_decimals() -> None:
    assert [durations.write(each) for each in (0.25, 5, 42.12)] == ["0.25s", "5s", "42.1s"]


def test_the_nearest_word_is_offered_if_one_is_near() -> None:
    assert nearest("kub", ["kube", "sim"]) == " (did you mean 'kube'?)"
    assert nearest("xyz", ["kube", "sim"]) == ""
