"""What a batch's memory costs a worker's thread, in page faults: in a process of its own, as the setting is the whole process's."""

from __future__ import annotations

import subprocess
import sys

BATCHES = """
import resource, sys, threading
from workers.memory import keep_freed_memory
kept = keep_freed_memory() if sys.argv[1] == "kept" else None
def work():
    for _ in range(8):
        crops = b"x" * (9 << 20)
        masks = b"x" * (3 << 20)
        answers = b"x" * (9 << 20)
        del crops, masks, answers
def faults():
    threads = [threading.Thread(target=work) for _ in range(3)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(kept, faults())
"""


def faults(mode: str) -> tuple[str, int]:
    command = [sys.executable, "-c", BATCHES, mode]
    kept, count = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return kept, int(count)


def test_the_second_batch_finds_the_first_ones_memory_where_it_was_left() -> None:
    assert faults("not kept")[1] > 10_000
    kept, count = faults("kept")
    assert kept == "True"
    assert count < 200
