"""Tables in narrow terminals: every name and number whole."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from test_comparison import found

from nasengine.cli.columns import print_columns
from nasengine.cli.compare import _show
from nasengine.cli.plain import PlainConsole
from nasengine.studies.comparison import baseline_of, rows
from nasengine.studies.comparison_table import SPARE, header, lines

NAMES = ("evolution", "local_search", "random", "unet (reference)", "predictor, width=16")


def shown(width: int, titles: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    file = io.StringIO()
    print_columns(PlainConsole(file=file, width=width), titles, cells, SPARE)
    return file.getvalue()


def comparison(settings: int) -> tuple[list[str], list[list[str]]]:
    runs = [
        found(
            name,
            seed,
            "iou flops latency",
            iou=0.7 + seed / 9 + place / 50 + place * seed / 400,
            flops=2e6,
            latency=3,
        )
        for place, name in enumerate(NAMES[:settings])
        for seed in range(3)
    ]
    table = rows(runs)
    baseline = baseline_of(table, None)
    return header(table, baseline), lines(table, baseline)


@pytest.mark.parametrize("settings", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [30, 60, 80, 100, 120, 160, 240])
def test_no_name_and_no_number_is_cut(width: int, settings: int) -> None:
    titles, cells = comparison(settings)
    text = shown(width, titles, cells)
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    kept = [index for index, title in enumerate(titles) if title not in SPARE]
    assert all(row[index] in text for row in cells for index in kept)
    if "\N{BOX DRAWINGS LIGHT VERTICAL}" in text:
        assert max(map(len, text.splitlines())) <= width


def test_columns_that_hold_nothing_are_left_out() -> None:
    text = shown(40, ["name", "gain", "wins"], [["a", "", "1"], ["b", "", ""]])
    assert "wins" in text and "gain" not in text


def test_the_bootstrap_goes_first_then_the_table_is_turned_then_it_is_lines() -> None:
    titles, cells = comparison(3)
    wide, spared, turned, narrow = (shown(w, titles, cells) for w in (200, 140, 100, 40))
    bar = "\N{BOX DRAWINGS LIGHT VERTICAL}"
    assert "bootstrap" in wide and bar in wide
    assert "bootstrap" not in spared and f"{bar} evolution" in spared
    assert f"{bar} bootstrap" in turned and "evolution \N{BOX DRAWINGS HEAVY VERTICAL}" in turned
    assert bar not in narrow and "  iou: 0.8" in narrow


def test_compare_at_80_columns_shows_every_row_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    table = rows([found(name, seed, iou=0.123) for name in NAMES for seed in (0, 1)])
    _show(table, baseline_of(table, None))
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)
    assert text.count("0.123 \N{PLUS-MINUS SIGN} 0.000") == 5
    # Notes are wrapped by the terminal, so that a copy of them is whole.
    table_lines = [line for line in text.splitlines() if not line.startswith("- ")]
    assert max(map(len, table_lines)) <= 80
