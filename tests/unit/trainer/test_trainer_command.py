"""The `trainer` command as a whole: what is said of failures that no stage foresees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trainer.cli import app, main

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; sys.argv = ['trainer', 'redraw', '.']; from trainer.cli import main; main()"


def test_without_torch_it_names_the_command_that_installs_it() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == "trainer: torch is not installed; run `make install-trainer`\n"


def test_a_folder_that_cannot_be_written_is_one_line_and_is_found_before_the_scoring(
    aligned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    words = ["evaluate", "--manifest", str(aligned), "--model", "uynet-w16", "--out", str(tmp_path / "file" / "out")]
    monkeypatch.setattr(sys, "argv", ["trainer", *words])
    monkeypatch.setattr("trainer.evaluate.evaluate", lambda *_: pytest.fail("it scored first"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"trainer: {tmp_path / 'file' / 'out'}: Not a directory")


@pytest.mark.parametrize(
    "words", [["evaluate", "--model", "uynet-w16", "--engine", "tpu", "--manifest"], ["split", "--by", "chance"]]
)
def test_a_word_that_is_no_choice_is_wrong_usage(words: list[str], aligned: Path) -> None:
    assert CliRunner().invoke(app, [*words, str(aligned)]).exit_code == 2


def test_a_checkpoint_on_an_engine_and_an_unknown_model_say_what_can_be_given(aligned: Path, tmp_path: Path) -> None:
    (tmp_path / "best.pt").touch()
    for model, engine, told in (
        (str(tmp_path / "best.pt"), "onnx", "`trainer export` makes one"),
        ("uynet", "", "no shipped model's name (uynet-w16)"),
    ):
        found = CliRunner().invoke(app, ["evaluate", "--manifest", str(aligned), "--model", model, "--engine", engine])
        assert told in str(found.exception)
