"""A crew ends, whatever its killed workers left behind."""

from __future__ import annotations

import subprocess
import sys

ORPHANED = """
import os, time
from workers import crew
crew._prctl(crew._ADOPT_ORPHANS, 1)
if os.fork() == 0:
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
crew._end([])
"""


def test_a_crew_does_not_wait_for_orphans_that_wait_for_ever() -> None:
    subprocess.run([sys.executable, "-c", ORPHANED], check=True, timeout=60)
