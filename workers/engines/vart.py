"""The VCK5000 engine, the farm's side: crops to int8 in shared memory, jobs to the card's own process, answers to predictions.

VART aborts on wrong calls and its `wait` can hang for ever, so the card is driven by a process of its own (`vart_card.py`); its death
or silence costs the calls under way one `EngineBusy` and a restart. One thread per engine starts that process, collects its answers,
watches its deadline and asks the canary. Nothing here imports the vendor's runtime. Letters: B = the card's batch, S side in pixels.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, EngineSpec, ModelCard, Predictions
from farm.errors import BadModel, BadObject, CardQuarantined, EngineBusy, EngineMissing, FarmError, Fatal
from farm.settings import settings
from workers.engines.base import Engine, check_pixels, mask_cut, predictions
from workers.engines.canary import Canary, all_the_same, golden_pictures
from workers.engines.card_lock import lock_card, lock_folder
from workers.engines.card_options import CardOptions, first_order
from workers.engines.fix_point import Quantizer, quantized_cut, real_values
from workers.engines.vart_jobs import Call, Job, Life
from workers.engines.vart_process import CardLost, CardProcess, Opened, Slot, opening_error
from workers.engines.weights import check_weights
from workers.engines.xmodel import check_xmodel

log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
CLOSE_SECONDS = 5.0
LONGEST_PAUSE_SECONDS = 30.0


class VartEngine:
    """One VCK5000 (or other DPU) behind one process. `predict` may be called by several threads, which share its jobs."""

    def __init__(self, weights: Path, card: ModelCard, options: CardOptions) -> None:
        """Open the card and ask it the golden pictures.

        Raises EngineMissing for a missing interpreter, runtime, firmware or card, BadModel for an xmodel that is none or not the
        card's, EngineBusy if another worker has the card or it died or hung, CardQuarantined if it answers wrongly.
        """
        mask_cut(card)
        check_xmodel(weights, options.device)
        if not options.python:
            raise EngineMissing(
                f"card {options.device} needs the vendor's interpreter: set FARM_VART_PYTHON to its Python 3.8"
            )
        self._weights, self._card, self._options = weights, card, options
        self._folder = lock_folder(options.lock_folder)
        self._lock_file = lock_card(self._folder, options.device)
        # Kept open for restarts: the path may be of a file that the object store takes back once the engine is open.
        self._xmodel = weights.open("rb")
        self._change = threading.Condition()
        self._life: Life | None = None
        self._stopped: FarmError | None = None
        self._closed = False
        self._numbers = 0
        self._jobs_since_canary = 0
        self._canary: Canary | None = None
        self._right_at = time.time()
        #: times the card's process was lost
        self.losses = 0
        self._losses_in_row = 0
        self._lost_at = deque[float](maxlen=options.losses)
        self._thread = threading.Thread(target=self._drive, name=f"vart-{options.device}", daemon=True)
        self._thread.start()
        self._wait_opened()

    def _wait_opened(self) -> None:
        try:
            with self._change:
                self._change.wait_for(lambda: self._life or self._stopped)
                stopped = self._stopped
            if stopped:
                raise stopped
        except BaseException:
            self.close()
            raise

    def predict(self, pixels: NDArray[np.uint8]) -> Predictions:
        """Score (B, S, S, 3) uint8 crops of any number.

        Raises BadObject for another array; EngineBusy if the card died or hung with it (the next call finds it restarted) or is
        closed; CardQuarantined once the card is not to be trusted.
        """
        count, batch = self._checked(pixels), self.spec.batch
        call = Call(np.empty(count, np.int8), np.empty((count, CROP_SIDE_PX, CROP_SIDE_PX), np.int8))
        for start in range(0, count, batch):
            if self._canary_due():
                self._submit(None, self._golden, slice(0, batch))
            rows = slice(start, min(start + batch, count))
            self._submit(call, np.ascontiguousarray(pixels[rows]), rows)
        with self._change:
            self._change.wait_for(lambda: call.error or not call.jobs_out)
        if call.error:
            raise call.error
        logits = real_values(call.classes, self._class_fix_point)
        return predictions(logits, call.masks, self._card, cut=self._cut)

    def _checked(self, pixels: NDArray[np.uint8]) -> int:
        """The number of crops. Raises BadObject, naming the card, for what the runtime would abort on or misread."""
        try:
            return check_pixels(pixels)
        except BadObject as error:
            raise BadObject(f"card {self._options.device}: {error}; give it crops as `farm.split` cuts them") from error

    def _canary_due(self) -> bool:
        with self._change:
            self._jobs_since_canary += 1
            due = self._jobs_since_canary > self._options.canary_jobs
            if due:
                self._jobs_since_canary = 0
            return due

    def _submit(self, call: Call | None, pixels: NDArray[np.uint8], rows: slice) -> None:
        """Quantize one block into a free slot and hand it to the card; waits for a slot."""
        life, index = self._free_slot(call)
        try:
            self._quantizer.fill(pixels, life.opened.slots[index].pixels)
            with self._change:
                self._check_usable(call)
                if life is not self._life:
                    raise EngineBusy(f"card {self._options.device} was restarted")
                if call:
                    call.jobs_out += 1
                self._send(life, Job(index, call, rows, time.monotonic(), canary=call is None))
        except BaseException:
            with self._change:
                life.free.append(index)
            raise

    def _send(self, life: Life, job: Job) -> None:
        self._numbers += 1
        life.jobs[self._numbers] = job
        life.process.send({"do": "run", "slot": job.slot, "job": self._numbers})

    def _free_slot(self, call: Call | None) -> tuple[Life, int]:
        options = self._options
        with self._change:
            found = self._change.wait_for(lambda: self._usable(call), options.start_deadline_seconds)
            self._check_usable(call)
            if not found or self._life is None:
                raise EngineBusy(
                    f"card {options.device} was not ready within {options.start_deadline_seconds:g} s: it is restarting"
                )
            return self._life, self._life.free.popleft()

    def _usable(self, call: Call | None) -> bool:
        """Whether a caller need not wait: a slot is free, or there is an error to raise."""
        failed = self._closed or self._stopped is not None or (call is not None and call.error is not None)
        return failed or (self._life is not None and bool(self._life.free))

    def _check_usable(self, call: Call | None) -> None:
        if self._closed:
            raise EngineBusy(f"the vart engine on card {self._options.device} is closed")
        if self._stopped:
            raise type(self._stopped)(str(self._stopped))
        if call and call.error:
            raise type(call.error)(str(call.error))

    def close(self) -> None:
        """Let the process free the card in its order and end; calls under way raise EngineBusy. May be called again."""
        with self._change:
            self._closed = True
            if self._life:
                self._life.process.send({"do": "close"})
            self._change.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._xmodel.close()
        self._lock_file.close()

    @property
    def canary(self) -> dict[str, list[Any]] | None:
        """What the card answered to the golden pictures, in the form of the model card's `dpu["canary"]`."""
        return self._canary.to_card() if self._canary else None

    @property
    def right_at(self) -> float:
        """When the golden pictures were last answered rightly, in seconds of time()."""
        return self._right_at

    @property
    def process_id(self) -> int | None:
        """The card's process, None while there is none."""
        with self._change:
            return self._life.process.pid if self._life else None

    def _drive(self) -> None:
        """Keep the card open until closed or quarantined: start, collect, and after a loss start again."""
        first = True
        while not self._closed and not self._stopped:
            process = None
            try:
                if not first:
                    check_weights(Path(f"/proc/self/fd/{self._xmodel.fileno()}"), self._card)
                order = first_order(self._card, self._options, self._folder)
                process = CardProcess(self._options.python, order, self._xmodel)
                life = self._open(process)
                self._publish(life)
                first = False
                self._collect(life)
            except (CardLost, FarmError) as error:
                self._lost(error, first)
            except Exception as error:  # noqa: BLE001 -- callers wait for this thread: whatever stops it must reach them
                self._lost(EngineBusy(f"the vart engine on card {self._options.device} failed: {error!r}"), first)
            finally:
                if process:
                    self._end(process)
            self._pause()

    def _open(self, process: CardProcess) -> Life:
        """Wait until the process has the card open, and judge its first answer to the golden pictures."""
        deadline = time.monotonic() + self._options.start_deadline_seconds
        opened = process.opened(self._heard(process, deadline))
        self._understand(opened)
        life = Life(process, opened, deque(range(len(opened.slots))))
        self._quantizer.fill(self._golden, opened.slots[0].pixels)
        process.send({"do": "run", "slot": 0, "job": 0})
        self._heard(process, deadline)
        self._judge(opened.slots[0])
        return life

    def _heard(self, process: CardProcess, deadline: float) -> dict[str, Any]:
        """The next message of a process that is starting. Raises CardLost after the deadline or when closed."""
        while not self._closed:
            for message in process.receive(TICK_SECONDS):
                return message
            if time.monotonic() > deadline:
                raise CardLost(f"it was not open after {self._options.start_deadline_seconds:g} s", stage="start")
        raise CardLost("it was closed while it opened", stage="start")

    def _understand(self, opened: Opened) -> None:
        """Take over what the tensors say. Raises BadModel where the model card says otherwise."""
        dpu = self._card.dpu
        for key, tensor in (("input", opened.pixels), ("class", opened.classes), ("mask", opened.masks)):
            expected = dpu.get(f"{key}_fix_point", tensor.fix_point)
            if expected != tensor.fix_point:
                raise BadModel(f"the xmodel's {key} fix point is {tensor.fix_point}, its model card says {expected}")
        if self._canary is None:
            batch = opened.pixels.dims[0]
            self.spec = EngineSpec("vart", self._options.device, "int8", batch)
            self._canary = Canary(self._card, batch)
            self._golden = golden_pictures()[self._canary.dealt]
        if self._options.device_index is not None and opened.device_id is None:
            log.warning("card %s: the runtime does not tell which card it opened", self._options.device)
        self._quantizer = Quantizer(self._card.input_scale, self._card.input_offset, opened.pixels.fix_point)
        self._class_fix_point = opened.classes.fix_point
        self._cut = quantized_cut(mask_cut(self._card), opened.masks.fix_point)

    def _judge(self, slot: Slot) -> None:
        """Raise CardQuarantined unless the golden pictures were answered rightly."""
        assert self._canary is not None
        wrong = self._canary.wrong(slot.classes, slot.masks.reshape(-1, CROP_SIDE_PX, CROP_SIDE_PX))
        if wrong:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(self._right_at))
            raise CardQuarantined(
                f"card {self._options.device} is quarantined: {wrong}. What it scored since {since} UTC is in doubt. "
                "Reset the card (xbutil reset), see that `farm cards check` is content, then `farm cards resume` it"
            )
        self._right_at = time.time()

    def _publish(self, life: Life) -> None:
        with self._change:
            self._life = life
            self._jobs_since_canary = 0
            self._change.notify_all()
        log.info("card %s: open, %s, process %s", self._options.device, life.opened.dpu_name, life.process.pid)

    def _collect(self, life: Life) -> None:
        """Take answers until the engine is closed. Raises CardLost or CardQuarantined."""
        while not self._closed:
            for message in life.process.receive(TICK_SECONDS):
                self._take(life, message["job"])
            silent = time.monotonic() - self._expected_since(life)
            if silent > self._options.job_deadline_seconds:
                raise CardLost(f"it was silent for {silent:.1f} s with {len(life.jobs)} jobs", stage="work")

    def _expected_since(self, life: Life) -> float:
        """Since when a word is due: from the last one, or from the oldest job if it came later."""
        with self._change:
            oldest = next(iter(life.jobs.values()), None)
        return max(life.process.heard_at, oldest.started_at if oldest else 0.0)

    def _take(self, life: Life, number: int) -> None:
        """Copy one job's answers to their call and free its slot; asks the canary first where the answers look all the same."""
        with self._change:
            job = life.jobs[number]
        slot, call = life.opened.slots[job.slot], job.call
        if job.canary:
            self._judge(slot)
        elif call:
            count = job.rows.stop - job.rows.start
            call.classes[job.rows] = slot.classes.reshape(-1)[:count]
            call.masks[job.rows] = slot.masks.reshape(-1, CROP_SIDE_PX, CROP_SIDE_PX)[:count]
            if all_the_same(slot.classes) and all_the_same(slot.masks) and not all_the_same(slot.pixels):
                self._quantizer.fill(self._golden, slot.pixels)
                with self._change:
                    del life.jobs[number]
                    self._send(life, Job(job.slot, call, job.rows, time.monotonic(), canary=True))
                return
        with self._change:
            del life.jobs[number]
            life.free.append(job.slot)
            self._losses_in_row = 0
            if call:
                call.jobs_out -= 1
            self._change.notify_all()

    def _lost(self, error: CardLost | FarmError, first: bool) -> None:
        """Decide whether the card is started again, and tell the calls under way."""
        device = self._options.device
        with self._change:
            if self._closed:
                self._abandon(EngineBusy(f"the vart engine on card {device} was closed"))
                return
            self.losses += 1
            self._losses_in_row += 1
            self._lost_at.append(time.monotonic())
            self._stopped = self._final(error, first)
            log.warning("card %s: %s", device, self._stopped or error)
            self._abandon(self._stopped or EngineBusy(f"card {device} was lost: {error}; it is being restarted"))

    def _abandon(self, error: FarmError) -> None:
        """End the present life, with the lock held: every call that has a job in it gets the error."""
        life, self._life = self._life, None
        for job in life.jobs.values() if life else ():
            if job.call:
                job.call.error = error
        self._change.notify_all()

    def _final(self, error: CardLost | FarmError, first: bool) -> FarmError | None:
        """The error to stop with for good, None where a restart may help."""
        device = self._options.device
        if first:
            return opening_error(device, self._weights, error)
        if isinstance(error, CardQuarantined):
            return error
        if isinstance(error, Fatal) or (isinstance(error, CardLost) and error.kind == "model"):
            return CardQuarantined(f"card {device} cannot be opened again: {error}")
        if self._lost_too_often():
            return CardQuarantined(
                f"card {device} is quarantined, lost {len(self._lost_at)} times within "
                f"{time.monotonic() - self._lost_at[0]:.0f} s: {error}. "
                "Look at `xbutil examine` and dmesg, reset the card (xbutil reset), then `farm cards resume` it"
            )
        return None

    def _lost_too_often(self) -> bool:
        options, times = self._options, self._lost_at
        return len(times) == options.losses and times[-1] - times[0] <= options.loss_window_seconds

    def _end(self, process: CardProcess) -> None:
        orderly = self._closed and self._stopped is None
        with self._change:
            self._abandon(EngineBusy(f"the vart engine on card {self._options.device} was closed"))
        if not process.end(CLOSE_SECONDS if orderly else 0.0):
            with self._change:
                self._stopped = CardQuarantined(
                    f"card {self._options.device} is quarantined: its process {process.pid} survives SIGKILL, stuck in the driver. "
                    "Reset the card or restart the host"
                )
                self._change.notify_all()

    def _pause(self) -> None:
        """Back off before the next start: not after a first loss, then longer and longer."""
        if self._losses_in_row > 1 and not self._stopped:
            pause = min(LONGEST_PAUSE_SECONDS, self._options.pause_seconds * 2 ** (self._losses_in_row - 2))
            with self._change:
                self._change.wait_for(lambda: self._closed, pause)


def open_here(weights: Path, card: ModelCard, *, threads: int, device: str | None, rate: float | None) -> Engine:
    """Open the card that the settings (FARM_VART_*) and `device` name. Raises as `VartEngine` does."""
    return VartEngine(weights, card, CardOptions.of(settings(), device))
