"""The `trainer` command in an environment without torch."""

from __future__ import annotations

import subprocess
import sys

WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; sys.argv = ['trainer', 'redraw', '.']; from trainer.cli import main; main()"


def test_without_torch_it_names_the_command_that_installs_it() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == "trainer: torch is not installed; run `make install-trainer`\n"
