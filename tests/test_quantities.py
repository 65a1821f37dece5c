"""Quantities: what is read, what is refused, what is written."""

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nasengine.errors import SpecError
from nasengine.quantities import (
    UNITS,
    format_bytes,
    format_count,
    format_duration,
    format_quantity,
    format_size,
    parse_quantity,
)

KEY = "objectives.latency.at_most"


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        (5, "ms", 5.0),
        (0.6, "", 0.6),
        ("5 ms", "ms", 5.0),
        ("5ms", "ms", 5.0),
        ("0.005 s", "ms", 5.0),
        ("250 us", "ms", 0.25),
        ("10 min", "s", 600.0),
        ("20M", "parameters", 20e6),
        ("20 M", "parameters", 20e6),
        ("20M parameters", "parameters", 20e6),
        ("300k params", "parameters", 300e3),
        ("1.5 GFLOPs", "MACs", 1.5e9),
        ("1.5 GFLOPs", "FLOPs", 1.5e9),
        ("200 MMACs", "MACs", 200e6),
        ("1.5G", "MACs", 1.5e9),
        ("8 GiB", "bytes", 8 * 2**30),
        ("8 GB", "bytes", 8e9),
        ("100M", "bytes", 100e6),
        ("65%", "", 0.65),
        ("65%", "%", 65.0),
        ("1e-3", "", 0.001),
        ("1_000", "parameters", 1000.0),
        ("30", "frames/s", 30.0),
    ],
)
def test_reads_a_value_in_the_unit_of_the_metric(text: object, unit: str, expected: float) -> None:
    assert parse_quantity(text, where=KEY).to(unit, where=KEY) == pytest.approx(expected)


def test_reads_a_share_of_a_reference() -> None:
    quantity = parse_quantity("60% of unet", where=KEY)
    assert quantity.reference == "unet"
    assert quantity.to("parameters", where=KEY, reference_value=2e6) == pytest.approx(1.2e6)
    with pytest.raises(SpecError, match="needs the reference 'unet'"):
        quantity.to("parameters", where=KEY)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("", "does not begin with a number"),
        ("fast", "does not begin with a number"),
        ("5 mins", "did you mean 'min'"),
        ("8 gib", "did you mean 'GiB'"),
        ("2 GFLOPS", "did you mean 'GFLOPs'"),
        ("5 MS", "did you mean 'ms'"),
        ("1,5 GFLOPs", "a decimal point"),
        ("5 ms 3", "unknown unit"),
        ("nan", "does not begin with a number"),
        ("-3% of unet", "above 0"),
        ("0% of unet", "above 0"),
        ("60% of", "60% of NAME"),
        ("60 of unet", "60% of unet"),
        ("1e999", "finite"),
        ("1e308 G", "finite"),
        (10**400, "finite"),
        (math.nan, "finite"),
        (math.inf, "finite"),
        (True, "a number, or text"),
        (None, "a number, or text"),
        ([5], "a number, or text"),
    ],
)
def test_refuses_what_is_no_quantity_and_names_the_key(bad: object, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse_quantity(bad, where=KEY)
    assert str(caught.value).startswith(KEY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "unit"),
    [("5 ms", "parameters"), ("20M", "ms"), ("8 GiB", "MACs"), ("65%", "ms"), ("5 ms", "")],
)
def test_refuses_another_dimension(text: str, unit: str) -> None:
    with pytest.raises(SpecError, match="is no value in"):
        parse_quantity(text, where=KEY).to(unit, where=KEY)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("60%unet", "did you mean '60% of unet'?"),
        ("60 percent of the unet", "did you mean '60% of unet'?"),
        ("0.6 of unet", "did you mean '60% of unet'?"),
        ("60% of", "did you mean '60% of NAME'?"),
        ("1,5 ms", "a decimal point is needed: '1.5 ms'"),
        ("5 GMac", "did you mean 'GMACs'"),
    ],
)
def test_says_what_may_be_meant(text: str, meant: str) -> None:
    with pytest.raises(SpecError, match=re.escape(meant)):
        parse_quantity(text, where=KEY)


def test_a_percentage_of_nothing_names_the_references_it_may_be_of() -> None:
    share = parse_quantity("70%", where=KEY)
    with pytest.raises(SpecError) as caught:
        share.to("parameters", where=KEY, references=["unet", "single_u"])
    assert str(caught.value) == (
        f"{KEY}: '70%' of what? Did you mean '70% of unet'? References of the space: unet, "
        f"single_u; or give a number or one in parameters"
    )
    assert share.to("", where=KEY, references=["unet"]) == pytest.approx(0.7)


def test_a_large_space_is_told_in_two_digits_and_a_small_one_exactly() -> None:
    assert format_size(10**12 - 1) == "999,999,999,999"
    assert [format_size(n) for n in (10**12, 995 * 10**300, 7**5000)] == [
        "1.0e12",
        "1.0e303",
        "3.1e4225",
    ]


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        quantity = parse_quantity(text, where=KEY)
    except SpecError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert math.isfinite(quantity.value)


@given(
    st.floats(-1e9, 1e9, allow_nan=False),
    st.sampled_from(sorted(UNITS)),
)
def test_a_value_survives_its_own_unit(value: float, unit: str) -> None:
    quantity = parse_quantity(f"{value!r} {unit}", where=KEY)
    back = quantity.value / UNITS[unit][1]
    assert back == pytest.approx(value, rel=1e-9)


@given(st.floats(0, 1e14))
def test_a_written_count_reads_back(value: float) -> None:
    assert parse_quantity(format_count(value), where=KEY).value == pytest.approx(
        value, rel=0.006, abs=0.01
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.5, "0.50"), (999, "999"), (999_999, "1.00M"), (31_390_000, "31.39M")],
)
def test_counts(value: float, expected: str) -> None:
    assert format_count(value) == expected


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (2**10 - 1, "bytes", "1023 B"),
        (2**20 - 1, "bytes", "1.0 MiB"),
        (2**30 - 1, "bytes", "1.0 GiB"),
        (0.9999999, "s", "1.0 s"),
        (9.96, "s", "10 s"),
        (59.7, "s", "1.0 min"),
        (3599.9, "s", "1 h 00 min"),
        (86_399, "s", "1 d 0 h"),
    ],
)
def test_what_rounds_to_the_next_unit_is_written_in_it(
    value: float, unit: str, expected: str
) -> None:
    assert format_quantity(value, unit) == expected


@pytest.mark.parametrize("unit", ["", "%", "s", "ms", "MACs", "nJ"])
def test_a_small_value_is_not_written_as_zero(unit: str) -> None:
    for value in (1.234e-7, -1.234e-7):
        assert re.search("[1-9]", format_quantity(value, unit)), unit
    assert not re.search("[1-9]", format_quantity(0.0, unit))


def test_values_without_a_finite_number_are_still_written() -> None:
    assert format_quantity(math.nan, "ms") == "nan"
    assert format_duration(math.inf) == "inf"


def test_units_decide_how_a_value_is_written() -> None:
    assert format_quantity(0.0001, "ms") == "0.0001 ms"
    assert format_quantity(71.23, "%") == "71.23%"
    assert format_quantity(72, "s") == "1.2 min"
    assert format_quantity(29.97, "frames/s") == "29.97 frames/s"
    assert format_bytes(8 * 2**30) == "8.0 GiB"
