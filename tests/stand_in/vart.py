"""Stands in for the vendor's `vart`. Each behaviour mirrors a fact that was read in the vendor's sources or seen on cards:

- `create_runner` with another mode than "run", without XLNX_VART_FIRMWARE or its file, on no DPU subgraph, or without a card aborts.
- `execute_async` pairs arrays with tensors by position, looks at no size and no stride, and aborts on other types than int8;
  it returns (job number, status) and leaves the arrays to the card until the wait: they are read and written at the wait.
- `wait` holds the interpreter's lock (a C sleep that does not release it), has no timeout, and is for once per job.
- Output tensors come in pointer order: it changes from process to process.
- The runner's batch is dims[0]: 8, 6 or 4 by DPU variant; a batch costs the same time however full it is.
- Graph, runner, tensors must be freed in reverse; freeing a runner with jobs in flight aborts.
- The input tensor has `__device_id__` where the runtime gives it; XLNX_ENABLE_DEVICES does nothing (no XRM daemon).
- After a "CU timeout" a card answers the same features for every picture, and says nothing.

The file that the environment variable STAND_IN names (JSON) sets what happens:

- `rate` in crops/s (none is instant), `device_id`, `no_card`, `swap_outputs`, `journal` (a file that gets lines per life);
- `answers`: "network" computes; "replay" computes the first job and answers every one like it, to measure what is round the card;
- `lives`, a list of faults, one entry per life of the process, the last for all later ones; by job number from 1: `die_at`, `hang_at`,
  `refuse_at`, `same_at` (all pictures answered alike from then on), `lane_at` (lane 3 answers as if asked black); and `slow_start`
  in seconds.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from pathlib import Path

import integer_network
import numpy as np
from xir import Tensor, abort

POINTER_HOLDING_LOCK = ctypes.PyDLL(None)
"""PyDLL keeps the interpreter's lock during a call, as the vendor's `wait` does."""


def settings():
    path = os.environ.get("STAND_IN")
    if not path:
        return {}
    return json.loads(Path(path).read_text())


class Journal:
    """One file for all lives: a line "start" per life, and one with its jobs' times at its end."""

    def __init__(self, path):
        self._path = path

    def add(self, **entry):
        if self._path:
            with Path(self._path).open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def lives(self):
        if not self._path or not Path(self._path).exists():
            return 0
        return sum(json.loads(line)["what"] == "start" for line in Path(self._path).read_text().splitlines())


def sleep_holding_lock(seconds):
    while seconds > 0:
        POINTER_HOLDING_LOCK.usleep(ctypes.c_uint(int(min(seconds, 0.5) * 1e6)))
        seconds -= 0.5


def memory_of(array, count):
    """The `count` bytes from the array's first element on, whatever its strides; 0x55 past its end."""
    there = min(count, array.size)
    flat = np.lib.stride_tricks.as_strided(array, (there,), (1,))
    return flat, count - there


class Runner:
    @staticmethod
    def create_runner(subgraph, mode):
        if mode != "run":
            abort("unknown mode " + mode)
        if not os.environ.get("XLNX_VART_FIRMWARE"):
            abort("XLNX_VART_FIRMWARE is not set")
        if not Path(os.environ["XLNX_VART_FIRMWARE"]).is_file():
            abort("cannot open " + os.environ["XLNX_VART_FIRMWARE"])
        if not subgraph.has_attr("device") or subgraph.get_attr("device") != "DPU":
            abort("not a DPU subgraph")
        if settings().get("no_card"):
            abort("no device found")
        return Runner(subgraph)

    def __init__(self, subgraph):
        self._settings = settings()
        self._journal = Journal(self._settings.get("journal"))
        lives = self._settings.get("lives") or [{}]
        self._faults = lives[min(self._journal.lives(), len(lives) - 1)]
        self._journal.add(what="start", pid=os.getpid(), at=time.time())
        time.sleep(self._faults.get("slow_start", 0))
        self._header, self._weights, self._users = subgraph._network
        self._users.append(id(self))
        self._inputs, self._outputs = self._tensors()
        self._jobs, self._number, self._free_at = {}, 0, 0.0
        self._times, self._cpu, self._replayed = [], None, []

    def _tensors(self):
        header, batch = self._header, self._header["batch"]
        attributes = {"fix_point": header["input_fix_point"]}
        if "device_id" in self._settings:
            attributes["__device_id__"] = self._settings["device_id"]
        kind = header.get("dtype", "xint8")
        inputs = [Tensor(header["input_name"], [batch] + header["input_dims"], kind, attributes)]
        outputs = [
            Tensor(found["name"], [batch] + found["dims"], kind, {"fix_point": found["fix_point"]})
            for found in header["outputs"]
        ]
        if self._settings.get("swap_outputs", os.getpid() % 2):
            outputs.reverse()
        return inputs, outputs

    def get_input_tensors(self):
        return list(self._inputs)

    def get_output_tensors(self):
        return list(self._outputs)

    def execute_async(self, inputs, outputs):
        for array in list(inputs) + list(outputs):
            if not array.flags.writeable:
                raise BufferError("underlying buffer is not writable")
            if array.dtype != np.int8:
                abort("unsupported data type " + str(array.dtype))
        if self._cpu is None:
            self._cpu = time.process_time()
        now = time.monotonic()
        start = max(now, self._free_at)
        rate = self._settings.get("rate")
        self._free_at = start + (self._header["batch"] / rate if rate else 0.0)
        self._number += 1
        status = 1 if self._number == self._faults.get("refuse_at") else 0
        if not status:
            self._jobs[self._number] = (inputs, outputs, self._free_at)
            self._times.append((start, self._free_at))
        return (self._number, status)

    def wait(self, job):
        number = job[0]
        if number not in self._jobs:
            abort(f"job {number} was waited for before, or never was")
        if number == self._faults.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == self._faults.get("hang_at"):
            sleep_holding_lock(3600)
        inputs, outputs, done_at = self._jobs.pop(number)
        if self._replayed:
            for array, answer in zip(outputs, self._replayed):  # noqa: B905 -- `strict` came with Python 3.10
                array[...] = answer
        else:
            self._compute(inputs[0], outputs, number)
            if self._settings.get("answers") == "replay":
                self._replayed = [array.copy() for array in outputs]
        sleep_holding_lock(done_at - time.monotonic())
        return 0

    def _compute(self, pixels, outputs, number):
        dims = self._inputs[0].dims
        flat, missing = memory_of(pixels, int(np.prod(dims)))
        batch = np.concatenate([flat, np.full(missing, 0x55, np.int8)]).reshape(dims)
        if number >= self._faults.get("same_at", number + 1):
            batch = np.zeros(dims, np.int8)
        if number >= self._faults.get("lane_at", number + 1):
            batch[3] = 0
        answers = integer_network.compute(self._header, self._weights, batch)
        for tensor, array in zip(self._outputs, outputs):  # noqa: B905 -- `strict` came with Python 3.10
            answer = answers[tensor.name].reshape(-1)
            there, missing = memory_of(array, answer.size)
            there[:] = answer[: answer.size - missing]

    def __del__(self):
        if not hasattr(self, "_times"):
            return
        if self._jobs:
            abort("the runner was freed with jobs in flight")
        self._users.remove(id(self))
        cpu = time.process_time() - self._cpu if self._cpu else 0.0
        self._journal.add(what="end", pid=os.getpid(), jobs=self._number, times=self._times, cpu_seconds=cpu)
