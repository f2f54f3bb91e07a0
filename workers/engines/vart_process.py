"""The farm's handle on a card's own process (`vart_card.py`): start it, talk to it, hear of its death, end it.

It knows messages and shared memory, but no model card, no prediction and no restart. One thread receives; any may send.
"""

from __future__ import annotations

import json
import mmap
import os
import selectors
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from farm.errors import BadModel, EngineBusy, EngineMissing, FarmError

CARD_SCRIPT = Path(__file__).with_name("vart_card.py")
LAST_WORDS_LINES = 6
DOING = {"start": "starting", "model": "reading the xmodel", "card": "opening the card", "work": "working"}
KILL_SECONDS = 5.0
"""How long a killed process may take to be gone; one that stays sits in a driver call that no signal ends."""


class CardLost(Exception):
    """The process died, hung or refused; `stage` is "start", "model", "card" or "work", `kind` what a refusal was about."""

    def __init__(self, why: str, *, stage: str, kind: str = "busy") -> None:
        super().__init__(why)
        self.stage = stage
        self.kind = kind


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the runner."""

    name: str
    #: NHWC; the first is the batch B
    dims: tuple[int, ...]
    #: real = q * 2**-fix_point
    fix_point: int


@dataclass(frozen=True, slots=True)
class Slot:
    """The shared arrays of one job, int8 of exactly the tensors' dims."""

    pixels: NDArray[np.int8]
    classes: NDArray[np.int8]
    masks: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Opened:
    """What the process found when it opened the card."""

    pixels: Tensor
    classes: Tensor
    masks: Tensor
    slots: tuple[Slot, ...]
    dpu_name: str | None
    #: the runtime's number of the card; None where it does not tell
    device_id: int | None


class CardProcess:
    """One life of a card's process."""

    def __init__(self, python: str, order: dict[str, Any], xmodel: BinaryIO) -> None:
        """Start it and give it the first order, with the open xmodel. Raises EngineMissing if the interpreter cannot be started.

        Call it from a thread that lives as long as the process shall: the kernel kills the process when that thread ends.
        """
        self._stage = "start"
        self._slots = int(order["slots"])
        self._memory = os.memfd_create("card")
        ours, theirs = socket.socketpair()
        inherited = (theirs.fileno(), self._memory, xmodel.fileno())
        arguments = [f"--link={inherited[0]}", f"--memory={inherited[1]}", f"--parent={os.getpid()}"]
        try:
            self._child = subprocess.Popen(
                [python, "-u", str(CARD_SCRIPT), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=inherited,
            )
        except OSError as error:
            os.close(self._memory)
            ours.close()
            raise EngineMissing(
                f"interpreter {python} cannot be started ({error.strerror}): set FARM_VART_PYTHON to the vendor's Python"
            ) from error
        finally:
            theirs.close()
        self._link, self._sending = ours, threading.Lock()
        self._rest, self._words, self._last_words = b"", b"", deque[str](maxlen=LAST_WORDS_LINES)
        assert self._child.stdout is not None
        self._output = self._child.stdout
        os.set_blocking(self._output.fileno(), False)
        self._sources = selectors.DefaultSelector()
        self._sources.register(self._link, selectors.EVENT_READ)
        self._sources.register(self._output, selectors.EVENT_READ)
        #: when it was last heard, on the monotonic clock
        self.heard_at = time.monotonic()
        self.send({**order, "xmodel": f"/proc/self/fd/{xmodel.fileno()}"})

    @property
    def pid(self) -> int:
        return self._child.pid

    def send(self, order: dict[str, Any]) -> None:
        """Give it an order. A dead process is not noticed here, but by `receive`."""
        with self._sending:
            try:
                self._link.sendall(json.dumps(order).encode() + b"\n")
            except OSError:
                pass

    def receive(self, patience_seconds: float) -> list[dict[str, Any]]:
        """Every message that is there, after waiting for one at most so long. Raises CardLost if it refused or is dead."""
        messages: list[dict[str, Any]] = []
        for key, _ in self._sources.select(patience_seconds):
            if key.fileobj is self._output:
                self._hear_words()
                continue
            try:
                received = self._link.recv(65536)
            except ConnectionResetError:  # it died with orders unread
                received = b""
            if not received:
                raise self._dead()
            self.heard_at = time.monotonic()
            lines = (self._rest + received).split(b"\n")
            self._rest = lines.pop()
            messages += [json.loads(line) for line in lines]
        return [message for message in messages if not self._noted(message)]

    def _noted(self, message: dict[str, Any]) -> bool:
        """Keep the stage, raise a refusal; False for what is not about the process itself."""
        if message["say"] == "refused":
            raise CardLost(message["why"], stage=self._stage, kind=message["kind"])
        if message["say"] == "stage":
            self._stage = message["stage"]
        return message["say"] in ("stage", "beat")

    def _hear_words(self) -> None:
        """Keep the last lines of what it printed; the runtime says there why it aborts."""
        while True:
            try:
                received = os.read(self._output.fileno(), 65536)
            except BlockingIOError:
                return
            lines = (self._words + received).split(b"\n")
            self._words = lines.pop()[-4096:]
            self._last_words.extend(line.decode(errors="replace").strip()[:300] for line in lines if line.strip())
            if not received:
                if self._output in self._sources.get_map():
                    self._sources.unregister(self._output)
                return

    def _dead(self) -> CardLost:
        if not self._gone_within(KILL_SECONDS):
            return CardLost(f"its process {self.pid} closed its link while {DOING[self._stage]}", stage=self._stage)
        self._hear_words()
        status = self._child.returncode
        how = f"died of {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        said = f"; its last words: {' | '.join(self._last_words)}" if self._last_words else ""
        return CardLost(f"its process {self.pid} {how} while {DOING[self._stage]}{said}", stage=self._stage)

    def opened(self, message: dict[str, Any]) -> Opened:
        """Map the shared memory as the process laid it out."""
        self._stage = "work"
        pixels, classes, masks = tensors = [
            Tensor(found["name"], tuple(found["dims"]), found["fix_point"])
            for found in (message["tensors"][key] for key in ("input", "class", "mask"))
        ]
        memory = mmap.mmap(self._memory, self._slots * message["slot_bytes"])
        slots = []
        for start in range(0, self._slots * message["slot_bytes"], message["slot_bytes"]):
            arrays = [
                np.frombuffer(memory, np.int8, int(np.prod(tensor.dims)), start + offset).reshape(tensor.dims)
                for tensor, offset in zip(tensors, message["offsets"], strict=True)
            ]
            slots.append(Slot(*arrays))
        return Opened(
            pixels, classes, masks, tuple(slots), dpu_name=message["dpu_name"], device_id=message["device_id"]
        )

    def end(self, grace_seconds: float) -> bool:
        """End it, by request first where there is grace, and give back what it held. False if not even a kill ended it."""
        self.send({"do": "close"})
        gone = self._gone_within(grace_seconds)
        if not gone:
            self._child.kill()
            gone = self._gone_within(KILL_SECONDS)
        self._sources.close()
        self._link.close()
        self._output.close()
        os.close(self._memory)
        return gone

    def _gone_within(self, seconds: float) -> bool:
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True


def opening_error(device: str, weights: Path, lost: CardLost | FarmError) -> FarmError:
    """The error of a card that could not be opened the first time, with its name and what to do about it."""
    if isinstance(lost, FarmError):
        return lost if str(lost).startswith(f"card {device}") else type(lost)(f"card {device}: {lost}")
    if lost.kind == "model":
        return BadModel(f"card {device} cannot run {weights}: {lost}")
    if lost.kind == "missing":
        return EngineMissing(f"card {device}: {lost}")
    if lost.stage == "model":
        return BadModel(f"card {device} cannot run {weights}: {lost}. Copy the xmodel again or compile it for this DPU")
    if lost.stage == "card":
        return EngineMissing(
            f"card {device} cannot be opened: {lost}. See that `xbutil examine` lists it, and that shell, xclbin, runtime and "
            "the xmodel's DPU are of one release"
        )
    return EngineBusy(f"card {device} cannot be opened: {lost}")
