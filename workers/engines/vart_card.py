"""The card's own process: run by the vendor's Python 3.8 as a script, alone with numpy, xir, vart and the standard library.

It takes orders as JSON lines over an inherited socket and pixels through an inherited memory file; it knows neither the farm
nor a model card. A wrong call to VART or XIR aborts the process or gives silently wrong numbers, so every array, tensor and
attribute is checked here before it is handed over, and the farm's side (`vart.py`) takes the death of this process as an event.

One thread, on purpose: `wait` holds the interpreter's lock, so a second thread could neither beat nor submit while it lasts.
Letters: B = dims[0] of the runner, S side of a crop in pixels.
"""

# ruff: noqa: TID251 -- the vendor's runtime takes its settings from this process's environment
from __future__ import annotations

import sys

if __name__ == "__main__":
    # The script's own folder comes first on the module path, and it holds a `vart.py` and an `onnx.py` that are not the vendor's.
    del sys.path[0]

import argparse
import collections
import ctypes
import fcntl
import json
import mmap
import os
import select
import signal
import socket
from pathlib import Path
from typing import Any

import numpy as np

PAGE_BYTES = 4096
PR_SET_PDEATHSIG = 1
INT8_TYPES = ("xint8", "int8")


class Refused(Exception):
    """What was asked for cannot be done here; `kind` is "model", "missing" or "busy"."""

    def __init__(self, kind: str, why: str) -> None:
        super().__init__(why)
        self.kind = kind


class Link:
    """JSON lines to and from the farm's side."""

    def __init__(self, handle: int) -> None:
        self._socket = socket.socket(fileno=handle)
        self._rest = b""

    def say(self, **message: Any) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def orders(self, patience_seconds: float) -> list[dict[str, Any]] | None:
        """Every order that is there, after waiting for one at most so long; None when the farm's side is gone."""
        if not select.select([self._socket], [], [], patience_seconds)[0]:
            return []
        received = self._socket.recv(65536)
        if not received:
            return None
        lines = (self._rest + received).split(b"\n")
        self._rest = lines.pop()
        return [json.loads(line) for line in lines]


def attribute(owner: Any, name: str) -> Any:
    """The attribute, or None: asking XIR for one that is not there aborts."""
    return owner.get_attr(name) if owner.has_attr(name) else None


def check_file(path: str, what: str, kind: str, remedy: str) -> None:
    """Raise Refused unless a non-empty file can be read at `path`: the runtime aborts on anything else."""
    try:
        with Path(path).open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise Refused(kind, f"{what} {path} cannot be read ({error.strerror}): {remedy}") from error
    if empty:
        raise Refused(kind, f"{what} {path} is empty: {remedy}")


def check_firmware(firmware: str) -> None:
    """Raise Refused unless the xclbin that the runtime will load is named and there."""
    if firmware:
        os.environ["XLNX_VART_FIRMWARE"] = firmware
    named = os.environ.get("XLNX_VART_FIRMWARE", "")
    remedy = "set FARM_VART_FIRMWARE (or XLNX_VART_FIRMWARE) to the xclbin of the card's DPU"
    if not named:
        raise Refused("missing", "no firmware is set: " + remedy)
    check_file(named, "the firmware", "missing", remedy)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when the farm's side dies, even while a vendor call holds the interpreter."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the farm's side is gone")


class Card:
    """An opened graph and runner with their tensors, and the arrays in shared memory that they are paired with."""

    def __init__(self, order: dict[str, Any], link: Link, memory: int) -> None:
        self._link = link
        check_firmware(order["firmware"])
        check_file(order["xmodel"], "the xmodel", "model", "copy it again or compile it with vai_c_xir")
        os.environ["RTENGINE_NUM_WORKERS"] = str(order["contexts"])
        if order["device_index"] is not None:
            os.environ["XLNX_ENABLE_DEVICES"] = str(order["device_index"])
        self._vart, self._xir = import_runtime(order["path"])
        link.say(say="stage", stage="model")
        self._graph = self._xir.Graph.deserialize(order["xmodel"])
        self._subgraph = dpu_subgraph(self._graph)
        self.fingerprint = check_fingerprint(self._subgraph, order["fingerprint"])
        link.say(say="stage", stage="card")
        self._runner = self._create_runner(order["create_lock"])
        self._inputs, self._outputs = self._runner.get_input_tensors(), self._runner.get_output_tensors()
        self.input, self.classes, self.masks = check_tensors(self._inputs, self._outputs, order)
        self.device_id = check_device(self.input, order["device_index"])
        # Arrays are paired with tensors by position, and the runtime lists its outputs in no order that can be relied on.
        self._order = [0 if tensor is self.classes else 1 for tensor in self._outputs]
        self._share(memory, int(order["slots"]))
        self._jobs: collections.deque[tuple[Any, Any]] = collections.deque()

    def _create_runner(self, lock_path: str) -> Any:
        """Create the runner while no other process of this host does."""
        with Path(lock_path).open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._vart.Runner.create_runner(self._subgraph, "run")

    def _share(self, memory: int, slots: int) -> None:
        """Lay the slots out in the memory file: input, class and mask output of one job each, on whole pages."""
        tensors = (self.input, self.classes, self.masks)
        sizes = [-(-int(np.prod(tensor.dims)) // PAGE_BYTES) * PAGE_BYTES for tensor in tensors]
        self.offsets, self.slot_bytes = [0, sizes[0], sizes[0] + sizes[1]], sum(sizes)
        os.ftruncate(memory, slots * self.slot_bytes)
        self._memory = mmap.mmap(memory, slots * self.slot_bytes)
        self._slots = [
            [
                np.frombuffer(
                    self._memory, np.int8, int(np.prod(tensor.dims)), slot * self.slot_bytes + offset
                ).reshape(tensor.dims)
                for tensor, offset in zip(tensors, self.offsets)
            ]
            for slot in range(slots)
        ]

    def facts(self) -> dict[str, Any]:
        """What the farm's side has to know: how the memory is laid out and what the numbers mean."""
        tensors = {"input": self.input, "class": self.classes, "mask": self.masks}
        described = {
            key: {"name": tensor.name, "dims": list(tensor.dims), "fix_point": int(tensor.get_attr("fix_point"))}
            for key, tensor in tensors.items()
        }
        return {
            "tensors": described,
            "offsets": self.offsets,
            "slot_bytes": self.slot_bytes,
            "fingerprint": self.fingerprint,
            "dpu_name": attribute(self._subgraph, "dpu_name"),
            "device_id": self.device_id,
        }

    @property
    def in_flight(self) -> int:
        return len(self._jobs)

    def start(self, slot: int, number: int) -> None:
        """Hand one slot's arrays to the card. They are not touched again before `finish_oldest` has waited for them."""
        pixels, *answers = self._slots[slot]
        outputs = [answers[index] for index in self._order]
        check_arrays([self.input], [pixels])
        check_arrays(self._outputs, outputs)
        job = self._runner.execute_async([pixels], outputs)
        if job[1] != 0:
            raise Refused("busy", f"execute_async answered status {job[1]} for job {number}")
        self._jobs.append((job, number))

    def finish_oldest(self) -> int:
        """Wait for the oldest job, once; return its number."""
        job, number = self._jobs.popleft()
        status = self._runner.wait(job)
        if status != 0:
            raise Refused("busy", f"wait answered status {status} for job {number}")
        return int(number)

    def close(self) -> None:
        """Finish what is in flight, then free in reverse order: arrays, tensors, runner, graph."""
        while self._jobs:
            self.finish_oldest()
        self._slots = []
        self._memory.close()
        del self.input, self.classes, self.masks, self._inputs, self._outputs
        del self._runner
        del self._subgraph
        del self._graph


def import_runtime(folders: list[str]) -> tuple[Any, Any]:
    """The vendor's `vart` and `xir`. Raises Refused where this interpreter has none."""
    sys.path[:0] = folders
    try:
        import vart  # type: ignore[import-not-found]  # the vendor's, in its own environment alone
        import xir  # type: ignore[import-not-found]  # likewise
    except ImportError as error:
        why = "{} cannot import the vendor's runtime ({}): set FARM_VART_PYTHON to the interpreter of the Vitis AI environment"
        raise Refused("missing", why.format(sys.executable, error)) from error
    return vart, xir


def dpu_subgraph(graph: Any) -> Any:
    """The one subgraph that runs on the DPU. Raises Refused unless there is exactly one that can be run."""
    children = graph.get_root_subgraph().toposort_child_subgraph()
    found = [child for child in children if attribute(child, "device") == "DPU"]
    if not found:
        raise Refused(
            "model",
            "the xmodel has no DPU subgraph, so it was quantized but never compiled, or is a float model: "
            "compile it with vai_c_xir",
        )
    if len(found) > 1:
        why = "the xmodel has {} DPU subgraphs, expected one: an operator fell to the CPU between them, see vai_c_xir's output"
        raise Refused("model", why.format(len(found)))
    if "run" not in (attribute(found[0], "runner") or {}):
        raise Refused("model", "the DPU subgraph names no runner for mode 'run': compile the model for the VCK5000")
    return found[0]


def check_fingerprint(subgraph: Any, expected: int | None) -> int | None:
    """The DPU the xmodel was compiled for. Raises Refused if the model card names another."""
    found = attribute(subgraph, "dpu_fingerprint")
    if expected is not None and found != expected:
        why = "the xmodel's DPU fingerprint is {}, its model card says {:#x}: take the card and the xmodel of one compilation"
        raise Refused("model", why.format("missing" if found is None else hex(found), expected))
    return None if found is None else int(found)


def check_tensors(inputs: list[Any], outputs: list[Any], order: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The input, class and mask tensor, outputs found by name or else by shape. Raises Refused for another network's."""
    side, tensors = int(order["side"]), list(inputs) + list(outputs)
    shapes = ", ".join(f"{tensor.name} {tensor.dtype} {list(tensor.dims)}" for tensor in tensors)
    if len(inputs) != 1 or len(outputs) != 2:
        raise Refused(
            "model", f"the runner has {len(inputs)} inputs and {len(outputs)} outputs, expected 1 and 2: {shapes}"
        )
    for tensor in tensors:
        if tensor.dtype not in INT8_TYPES:
            raise Refused("model", f"tensor {tensor.name} is {tensor.dtype}, expected int8: quantize the model")
        if not tensor.has_attr("fix_point"):
            raise Refused("model", f"tensor {tensor.name} has no fix_point: quantize the model")
    batch = int(inputs[0].dims[0])
    classes, masks = (
        find_output(outputs, order["class_output"], batch),
        find_output(outputs, order["mask_output"], batch * side * side),
    )
    if list(inputs[0].dims) != [batch, side, side, 3] or classes is None or masks is None or classes is masks:
        why = "the runner's tensors are {}; expected an input [B, {side}, {side}, 3], B class logits and [B, {side}, {side}, 1] mask logits"
        raise Refused("model", why.format(shapes, side=side))
    return inputs[0], classes, masks


def find_output(outputs: list[Any], name: str, size: int) -> Any:
    """The output of that name, or else the one of that many elements; None if there is none of that size."""
    fitting = [tensor for tensor in outputs if int(np.prod(tensor.dims)) == size]
    named = [tensor for tensor in fitting if tensor.name == name]
    return (named or fitting or [None])[0]


def check_device(tensor: Any, expected: int | None) -> int | None:
    """The number of the card the runner sits on, where the runtime tells. Raises Refused for another than asked for."""
    found = attribute(tensor, "__device_id__")
    if expected is not None and found is not None and int(found) != expected:
        remedy = "XLNX_ENABLE_DEVICES needs the XRM daemon; start it or expose one card per container"
        raise Refused("missing", f"the runtime opened card {found} instead of {expected}: {remedy}")
    return None if found is None else int(found)


def check_arrays(tensors: list[Any], arrays: list[Any]) -> None:
    """Raise Refused for an array that the runtime would abort on or silently misread."""
    for tensor, array in zip(tensors, arrays):
        flags = array.flags
        if (
            array.dtype != np.int8
            or list(array.shape) != list(tensor.dims)
            or not (flags.c_contiguous and flags.writeable)
        ):
            raise Refused("busy", f"array {array.dtype} {array.shape} does not fit tensor {tensor.name} {tensor.dims}")


def serve(card: Card, link: Link, beat_seconds: float) -> None:
    """Do orders until told to close or the farm's side is gone; beat while there is nothing to do."""
    while True:
        orders = link.orders(0 if card.in_flight else beat_seconds)
        if orders is None:
            return
        for order in orders:
            if order["do"] == "close":
                return
            card.start(order["slot"], order["job"])
        if card.in_flight:
            link.say(say="done", job=card.finish_oldest())
        elif not orders:
            link.say(say="beat")


def main() -> None:
    """Open the card as the first order says, then serve. Exit status 0 after a close, 3 after a refusal that was told."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--link", "--memory", "--parent"):
        parser.add_argument(name, type=int, required=True)
    options = parser.parse_args()
    die_with(options.parent)
    link = Link(options.link)
    orders = link.orders(60.0)
    if not orders:
        return
    try:
        card = Card(orders[0], link, options.memory)
        link.say(say="opened", **card.facts())
        serve(card, link, orders[0]["beat_seconds"])
        card.close()
    except Refused as refusal:
        link.say(say="refused", kind=refusal.kind, why=str(refusal))
        sys.exit(3)


if __name__ == "__main__":
    main()
