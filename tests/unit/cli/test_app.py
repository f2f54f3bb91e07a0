"""The door itself: help, exit codes, errors as one line, what is printed of hostile names."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import typer

from farm.cli import app as door
from farm.cli import flower, operating
from farm.cli.exits import EXIT_CODES, Exit
from farm.cli.printing import cell, printable
from farm.errors import BadInput, DatabaseAway, NothingToScan

HEAVY = {
    "alembic",
    "av",
    "boto3",
    "celery",
    "cv2",
    "numpy",
    "onnxruntime",
    "pyarrow",
    "pydantic",
    "skimage",
    "sqlalchemy",
}
COMMANDS = (
    "cancel",
    "demo",
    "dispatch",
    "evaluate",
    "flower",
    "models",
    "report",
    "rescan",
    "results",
    "scan",
    "status",
    "submit",
    "worker",
)


def farm(*arguments: str) -> int:
    return door.run(arguments)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from farm.cli.app import run; run(['--help']); print(*{m.partition('.')[0] for m in sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(shown.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "command",
    [
        *COMMANDS,
        "db upgrade",
        "db status",
        "masks export",
        "cards list",
        "cards check",
        "cards drain",
        "cards resume",
        "models list",
        "models show",
        "models register",
        "models promote",
        "models retire",
    ],
)
def test_every_command_explains_itself_and_its_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert farm(*command.split(), "--help") == Exit.DONE
    shown = capsys.readouterr().out
    assert f"farm {command}" in shown
    assert "130 interrupted" in " ".join(shown.split())


def test_the_help_names_every_exit_code() -> None:
    assert [int(code) for code in re.findall(r"\b\d+\b", EXIT_CODES)] == [code.value for code in Exit]


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("scan", "--nonsense"),
        ("cancel", "0"),
        ("scan",),
        ("scan", "mistyped.mp4"),
        ("submit", "mistyped.mp4", "mistyped too"),
        ("results", "--format", "xml"),
        ("results", "2", "--by", "change"),
        ("results", "2", "--against", "1", "--by", "day"),
        ("models", "--home", "here", "promote", "a@1"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert farm(*arguments) == Exit.USAGE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Usage" in captured.err


def raising_app(error: BaseException) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.callback(invoke_without_command=True)
    def status() -> None:
        raise error

    return app


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadInput("the weather"), Exit.ERROR),
        (DatabaseAway("the weather"), Exit.ERROR),
        (NothingToScan("the weather"), Exit.NOTHING),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    error: BaseException, code: Exit, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(door, "app", raising_app(error))
    assert farm() == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err
    if not isinstance(error, KeyboardInterrupt):
        assert captured.err == "farm: the weather\n"


def test_a_programming_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "app", raising_app(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        farm()


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("", False),
        ("::", False),
        ("farm.example", False),
    ],
)
def test_flower_knows_which_addresses_others_can_reach(address: str, ours: bool) -> None:
    assert flower.is_loopback(address) is ours


def test_flower_refuses_to_be_public_without_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FARM_FLOWER_PASSWORD", raising=False)
    assert farm("flower", "--address", "0.0.0.0") == Exit.ERROR
    assert "FARM_FLOWER_PASSWORD" in capsys.readouterr().err


def test_a_worker_is_started_by_exec_with_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(operating.os, "execv", lambda path, command: started.append([path, *command]))
    farm("worker", "--queue", "infer", "--card", "0000:3b:00.0", "--concurrency", "3")
    (command,) = started
    assert command[:2] == [sys.executable, sys.executable]
    assert command[2:] == ["-m", "workers.app", "infer", "--card", "0000:3b:00.0", "--concurrency", "3", "--events"]


@pytest.mark.parametrize(
    "name", ["a\nb.mp4", "tab\t.mp4", "\x1b[31mred.mp4", "bytes\udcff.mp4", "\u202egpj.mp4", "nul\0.mp4"]
)
def test_a_hostile_name_is_printed_on_one_line_without_its_powers(name: str) -> None:
    shown = printable(name)
    assert shown.isprintable()
    shown.encode("utf-8")


def test_markup_in_a_name_is_text() -> None:
    assert cell("[red]a[/red].mp4").plain == "[red]a[/red].mp4"
