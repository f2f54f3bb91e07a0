"""How well does `trainer prepare` fill the cores? A run over copies of the sample pair, from the command's start to its end.

    core_use    CPU-seconds of all its processes / (wall seconds x cores): what it got
    wanted      the same with the time its threads stood ready and had to wait for a core: what it got, had it been alone
    others      CPU-seconds of everything else on the machine / (wall seconds x cores)

On a machine that others use core_use is low whatever the program does; `wanted` is not, and it is no flattery: a process that sleeps
while a core is free counts in neither. Linux only (/proc/PID/task/TID/schedstat).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from bench.cpu_seconds import family
from farm.samples import write_samples

LOOK_EVERY_SECONDS = 0.1


def write_set(folder: Path, pairs: int) -> Path:
    """So many linked copies of the sample portrait and its manipulated twin, and their CSV."""
    real, fake = write_samples(folder)[:2]
    table = folder / "videos.csv"
    with table.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "original"))
        for number in range(pairs):
            names = f"real_{number}.mp4", f"fake_{number}.mp4"
            for name, clip in zip(names, (real, fake), strict=True):
                os.link(clip, folder / name)
            rows.writerows(((names[0], "REAL", ""), (names[1], "FAKE", names[0])))
    return table


def measure(table: Path, out: Path, processes: int) -> dict[str, float]:
    """Run the command and watch its processes."""
    command = [
        sys.executable,
        "-c",
        "from trainer.cli import main; main()",
        "prepare",
        "csv",
        str(table),
        "--out",
        str(out),
    ]
    cpu_before, busy_before, began = _cpu_seconds(), _machine_busy_seconds(), time.monotonic()
    process = subprocess.Popen([*command, "--processes", str(processes)], stdout=subprocess.DEVNULL)
    waited: dict[tuple[int, int], int] = {}
    while process.poll() is None:
        waited |= {task: nanoseconds for pid in family(process.pid) for task, nanoseconds in _waits(pid)}
        time.sleep(LOOK_EVERY_SECONDS)
    if process.returncode:
        raise SystemExit(f"`trainer prepare` ended with exit code {process.returncode}")
    wall = time.monotonic() - began
    cpu, busy = _cpu_seconds() - cpu_before, _machine_busy_seconds() - busy_before
    cores = len(os.sched_getaffinity(0))
    return {
        "cores": cores,
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
        "core_use": round(cpu / (wall * cores), 3),
        "wanted": round((cpu + sum(waited.values()) / 1e9) / (wall * cores), 3),
        "others": round(max(0.0, busy - cpu) / (wall * cores), 3),
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _machine_busy_seconds() -> float:
    """User, nice, system, interrupt and stolen time of all cores, see proc(5)."""
    fields = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    user, nice, system, _, _, interrupts, soft, stolen = fields
    return (user + nice + system + interrupts + soft + stolen) / os.sysconf("SC_CLK_TCK")


def _waits(pid: int) -> list[tuple[tuple[int, int], int]]:
    """((process, thread), nanoseconds it stood ready and waited for a core) of each living thread."""
    found = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found.append(((pid, int(task.name)), int((task / "schedstat").read_text().split()[1])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60, help="copies of the pair: 2 videos of 7 s each")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = write_set(Path(folder), chosen.pairs)
        print(json.dumps(measure(table, Path(folder) / "out", chosen.processes)))


if __name__ == "__main__":
    main()
