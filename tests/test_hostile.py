"""Hostile input: what is given may say anything, and gets nothing done outside the run's folder.

Every test runs with canaries: a file and a folder outside, an environment variable, a module that
must not be imported, and a port that must not be called. None may be tripped.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from test_spec import tables

from nasengine.architecture import read_architecture
from nasengine.cli import main
from nasengine.cli.plain import PlainConsole, plain
from nasengine.cli.terminal import TerminalReporter
from nasengine.errors import ArchitectureError
from nasengine.runs.experiment import Experiment
from nasengine.runs.run import run
from nasengine.runs.run_folder import RunFolder
from nasengine.testing.stubs import TinySpace

CODE = ["--code", "nasengine.testing.stubs"]
SECRET = "hunter2-never-to-be-seen"
TRAP = "nasengine_trap"


class Canary:
    """What must be the same after as before."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder / "outside"
        self.outside.mkdir()
        (self.outside / "kept.txt").write_text("kept")
        (self.outside / f"{TRAP}.py").write_text(
            f"import pathlib\npathlib.Path({str(self.outside / 'tripped')!r}).touch()\n"
            "class Space: pass\n"
        )
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.port = self.listener.getsockname()[1]

    def check(self) -> None:
        found = {path.name: path.read_bytes() for path in self.outside.iterdir() if path.is_file()}
        assert set(found) == {"kept.txt", f"{TRAP}.py"}
        assert found["kept.txt"] == b"kept"
        assert TRAP not in sys.modules
        assert os.environ["NASENGINE_CANARY"] == SECRET
        with pytest.raises(BlockingIOError):
            self.listener.accept()


@pytest.fixture(autouse=True)
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canary]:
    found = Canary(tmp_path)
    monkeypatch.setenv("NASENGINE_CANARY", SECRET)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    # The trap can be imported by whoever tries.
    monkeypatch.syspath_prepend(str(found.outside))
    yield found
    found.check()
    found.listener.close()


def write(table: dict[str, Any]) -> Path:
    path = Path("spec.toml")
    path.write_text(tomli_w.dumps(table))
    return path


def small() -> dict[str, Any]:
    return {**tables(), "references": [], "budget": {"trials": 1}, "device": "cpu"}


def refused(words: list[str], capsys: pytest.CaptureFixture[str], *told: str) -> str:
    """Run a command that must end with status 2, one line or more, and no traceback."""
    assert main(words) == 2
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert said.err.startswith("error: ")
    assert SECRET not in said.err + said.out
    assert "\x1b" not in said.err
    for text in told:
        assert text in said.err
    return said.err


# Names and paths.

NAMES = [
    "../x", "..", ".", "/etc/x", "a/b", "a\\b", "C:x", "~", "~root", "", " ", "-rf", "_x",
    ".hidden", "x" * 65, "x" * 300, "a\0b", "a\nb", "a\x1b[31m", "$(touch x)", "`id`", "a;b", "a|b",
    "\uff41", "é", "con ", "a b", "%2e%2e", "\u202egnp", "${HOME}",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_run_is_named_by_letters_digits_and_dashes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["run", str(write({**small(), "name": name}))], capsys, "name")
    assert not Path("runs").exists()


@pytest.mark.parametrize("runs", ["a\0b", "x" * 300, "spec.toml", "spec.toml/deeper"], ids=ascii)
def test_a_folder_of_runs_that_cannot_be_one_is_refused(
    runs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["run", str(write(small())), "--runs", runs, "-q"], capsys, "cannot hold runs")


@pytest.mark.parametrize("folder", ["a\0b", "x" * 300, "x/" * 3000, "/dev/null", "/proc/self"])
@pytest.mark.parametrize("command", ["resume", "report", "compare"])
def test_a_folder_that_cannot_be_a_run_is_refused(
    command: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([command, folder], capsys)


@pytest.mark.parametrize("path", ["a\0b", "x" * 300, "/dev/null", ".", "/proc/self/mem"], ids=ascii)
def test_a_spec_that_cannot_be_a_file_is_refused(
    path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(["run", path], capsys)


@pytest.fixture
def finished() -> Path:
    assert main(["run", str(write(small())), "-q"]) == 0
    return Path("runs/tiny-1").resolve()


def more(folder: Path) -> list[str]:
    return ["resume", str(folder), *CODE, "--set", "budget.trials=2", "-q"]


LINKS = ["best", "checkpoints", "tables", "trials", "history.sqlite", "lock", "spec.toml",
         "log.jsonl", "owner.json", "trials/trial-0", ".spec.toml.1.tmp"]  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_a_link_in_a_runs_folder_leads_nothing_out_of_it(
    name: str, finished: Path, canary: Canary, capsys: pytest.CaptureFixture[str]
) -> None:
    place = finished / name
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
    aim = canary.outside if "." not in Path(name).name else canary.outside / "kept.txt"
    place.symlink_to(canary.outside / "kept.txt" if name == "lock" else aim)
    capsys.readouterr()
    refused(more(finished), capsys, "a symbolic link")


def test_a_link_to_a_runs_folder_is_the_users_own(finished: Path) -> None:
    """A folder reached through a link is a folder: links inside are what is refused."""
    Path("link").symlink_to(finished)
    assert main(more(Path("link"))) == 0


@pytest.mark.parametrize("label", ["../../outside", "/tmp/outside"])
def test_numbers_that_are_no_numbers_make_no_paths(
    label: str, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = sqlite3.connect(finished / "history.sqlite")
    connection.execute("DROP TABLE trials")
    connection.execute("CREATE TABLE trials (number, key, architecture, status, measurements, "
                       "reason, seconds, attempts, left_behind, checksum)")  # fmt: skip
    row = [label, "k", '{"first": "conv", "second": "conv"}', "running", "{}", "", 0.0, 1, "", ""]
    connection.execute("INSERT INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    connection.commit()
    connection.close()
    capsys.readouterr()
    refused(more(finished), capsys, "history.sqlite: damaged")


# Code that only data names.

SECTIONS = ["space", "task", "strategy"]


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("kind", ["module", "file", "relative file"])
def test_a_run_folder_alone_makes_no_code_run(
    section: str, kind: str, finished: Path, canary: Canary, capsys: pytest.CaptureFixture[str]
) -> None:
    path = finished / "spec.toml"
    trap = {
        "module": f"{TRAP}:Space",
        "file": f"{canary.outside / TRAP}.py:Space",
        "relative file": f"{os.path.relpath(canary.outside, finished)}/{TRAP}.py:Space",
    }[kind]
    table = small()
    table[section] = {"name": trap}
    path.write_text(tomli_w.dumps(table))
    capsys.readouterr()
    refused(more(finished), capsys)
    assert main(["report", str(finished)]) in (0, 2)
    assert main(["compare", str(finished)]) in (0, 2)
    capsys.readouterr()


@pytest.mark.parametrize(
    "name",
    ["os:system", "builtins:eval", "subprocess:Popen", "os.path:join", "nasengine.plugin:Plugin"],
)
def test_what_is_no_plugin_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A spec is the user's own, and may name installed modules: they are classes of ours, or no."""
    table = {**small(), "space": {"name": name}}
    refused(["check", str(write(table))], capsys, "is not a subclass of nasengine.SearchSpace")


@pytest.mark.parametrize(
    "name",
    ["os;import x:y", "__import__('os'):system", "..x:y", "a b:c", ":", "x:", ":y", "http://x/y.py:Z",
     "os:system('true')", "//127.0.0.1/x.py:Y"],
)  # fmt: skip
def test_a_name_is_a_name_and_no_expression(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(["check", str(write({**small(), "space": {"name": name}}))], capsys, "space.name")


@pytest.mark.parametrize("value", ["__import__('os').system('true')", "!!python/object:os.system"])
def test_a_value_is_text_and_no_expression(value: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["check", str(write(small())), "--set", f"space.width={value}"]
    refused(words, capsys, "space.width")


ARCHITECTURES = {
    "deep nesting": "[" * 200_000,
    "deep objects": '{"a":' * 100_000,
    "a huge number": '{"format": ' + "9" * 100_000 + "}",
    "NaN": '{"format": NaN}',
    "a key twice": '{"format": 1, "format": 1}',
    "a class": '{"format": 1, "space": "TinySpace", "choices": {"__class__": "os.system"}}',
    "a prototype": '{"format": 1, "__proto__": {}}',
    "true for 1": '{"format": true, "space": "TinySpace", "choices": {}}',
    "large": " " * 2_000_000,
    "another space": '{"format": 1, "space": "os.system", "choices": {}}',
    "an escape": '{"format": 1, "space": "\\u001b[31m", "choices": {}}',
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_hostile_architecture_is_refused(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(ARCHITECTURES[kind])
    with pytest.raises(ArchitectureError, match=r"architecture\.json") as told:
        read_architecture(path, TinySpace())
    assert len(str(told.value)) < 1000


def test_hostile_weights_are_not_unpickled(
    finished: Path, canary: Canary, capsys: pytest.CaptureFixture[str]
) -> None:
    """A pickle named like weights is not read as one: the run says so and delivers no weights."""
    from importlib import import_module

    class Trap:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(canary.outside / "tripped"),)

    for number in range(2):
        trial = finished / "trials" / f"trial-{number}"
        trial.mkdir(parents=True, exist_ok=True)
        (trial / "weights.safetensors").write_bytes(import_module("pickle").dumps(Trap()))
    status = main(more(finished))
    assert status in (0, 1, 2)
    assert "Traceback" not in capsys.readouterr().err


# Text that would be more than text.

TEXTS = {
    "colour": "\x1b[31mred",
    "title": "\x1b]0;renamed\x07",
    "clear": "\x1b[2J\x1b[H",
    "link": "\x1b]8;;http://127.0.0.1/\x1b\\here\x1b]8;;\x1b\\",
    "return": "good\rbad",
    "bell": "\x07",
    "C1": "\x9b31m",
    "backwards": "\u202etxt.exe",
    "surrogate": "\ud800",
    "markup": "[red]x[/red]",
    "markup link": "[link=http://127.0.0.1/]x[/link]",
    "markup unclosed": "[/bold] [",
    "emoji": ":skull:",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_text_is_shown_as_text(kind: str) -> None:
    text = TEXTS[kind]
    screen = io.StringIO()
    console = PlainConsole(file=screen, color_system=None, width=200)
    reporter = TerminalReporter(console, errors=console)
    reporter.note(text)
    reporter.warn(text)
    console.print(f"a {text} b", soft_wrap=True)
    from rich.table import Table

    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    console.print(table)
    shown = screen.getvalue()
    # Some control characters rich leaves out before we see them; a table crops what is wide.
    assert shown.count(plain(text.translate(dict.fromkeys([7, 8, 11, 12, 13])))) >= 3
    assert not any(character in shown for character in "\x1b\x07\x9b\r\u202e\ud800")


def test_errors_show_control_characters_by_their_codes(capsys: pytest.CaptureFixture[str]) -> None:
    refused(["check", str(write({**small(), "space": {"name": "\x1b[31mred"}}))], capsys, "x1b[31m")


def test_a_report_shows_reasons_as_text(finished: Path) -> None:
    script = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    connection = sqlite3.connect(finished / "history.sqlite")
    connection.execute("UPDATE trials SET status = 'failed', reason = ?, checksum = ''", [script])
    connection.execute("UPDATE reference_networks SET reason = ?, checksum = ''", [script])
    connection.commit()
    connection.close()
    assert main(["report", str(finished)]) == 0
    page = (finished / "report.html").read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page


FORMULAS = ["=cmd|'/c calc'!A0", "+1+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_table_for_spreadsheets_holds_no_formula(text: str, tmp_path: Path) -> None:
    import csv

    from nasengine.studies.comparison import Row
    from nasengine.studies.comparison_table import write_runs
    from nasengine.studies.summary import Summary

    summary = Summary(tmp_path, {text: text}, 0, {text: -1.5}, {}, (), 1, 1.0)
    write_runs([Row({text: text}, {0: summary})], tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in cells)
    assert "-1.5" in cells, "a negative number stays a number"


# What is told, and what listens.


def test_a_runs_folder_tells_nothing_of_the_environment(finished: Path) -> None:
    for path in finished.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path


def listening() -> set[int]:
    """Return the inodes of the sockets that this process listens on."""
    held = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            target = str(link.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            held.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path("/proc/net") / table
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in held:
                found.add(int(fields[9]))
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc")
@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "random"},
        {"name": "evolution"},
        {"name": "local_search"},
        {"name": "predictor"},
        {"name": "optuna"},
        {"name": "nni"},
        {"name": "darts", "iterations": 4, "batch": 2, "arch_every": 1},
        {"name": "nni_darts", "iterations": 4, "batch": 2},
    ],
    ids=lambda strategy: strategy["name"],
)
def test_nothing_listens(strategy: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    before = listening()
    assert before, "the canary's own listener is seen"
    asked: list[Any] = []
    real = socket.socket.listen

    def listen(self: socket.socket, *given: Any) -> Any:
        asked.append(self.getsockname())
        return real(self, *given)

    monkeypatch.setattr(socket.socket, "listen", listen)
    table = {**small(), "strategy": strategy, "budget": {"trials": 3}}
    table["objectives"] = {"firsts": "max"}
    experiment = Experiment.load(write(table))
    with RunFolder.create(Path("runs"), experiment, []) as folder:
        run(experiment, folder)
    assert listening() == before
    assert asked == []


def test_the_hostile_inputs_are_sixty() -> None:
    kinds = [NAMES, LINKS, ARCHITECTURES, TEXTS, FORMULAS, SECTIONS * 3]
    assert sum(len(kind) for kind in kinds) >= 60


def test_json_of_a_run_is_read_by_its_schema(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = json.loads((finished / "identity.json").read_text())
    identity["format"] = True
    (finished / "identity.json").write_text(json.dumps(identity))
    capsys.readouterr()
    refused(more(finished), capsys, "identity.json: damaged")
