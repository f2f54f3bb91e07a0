"""Split one leased video: stored bytes -> crop batches in the object store -> rows ready to score."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from celery.exceptions import SoftTimeLimitExceeded

from farm.contracts import CropBatch
from farm.errors import BadVideo
from farm.farm import Farm
from farm.jobs.claim import Lease
from farm.jobs.hold import Hold
from farm.jobs.record import StoredBatch, finish_split, record_split_batches
from farm.jobs.work import SplitWork, adopt, adoptable, split_work
from farm.media.batches import encode_batch
from farm.split import Recipe, split
from workers.attempt import patiently
from workers.resources import Process

Tell = Callable[[str], None]
TELL_SECONDS = 1.0
"""Progress is told this often at most: every event is a message through Redis."""


def split_video(here: Process, lease: Lease, hold: Hold, tell: Tell) -> str:
    """Split the video, or adopt the crops of an earlier scan; one line that says what came of it.

    Raises BadVideo, StorageAway, LeaseLost.
    """
    farm = here.farm
    work = patiently(farm, lambda: split_work(farm, lease))
    found = patiently(farm, lambda: adoptable(farm, work))
    if found is not None:
        patiently(farm, lambda: adopt(farm, lease, found))
        patiently(farm, lambda: finish_split(farm, lease, found.summary))
        return f"{work.name}: {len(found.batches)} batches adopted"
    try:
        return _split(here, lease, hold, work, tell)
    except SoftTimeLimitExceeded as error:
        limit = farm.settings.split_time_limit_seconds
        raise BadVideo(f"reading this video took longer than the limit of {limit} s") from error
    except BadVideo as error:
        # the decoder saw the stored object, whose name says nothing to the reader of a report
        raise BadVideo(str(error).replace(f"'{work.sha256}'", "this file")) from error


def _split(here: Process, lease: Lease, hold: Hold, work: SplitWork, tell: Tell) -> str:
    farm, recipe = here.farm, Recipe.from_json(work.recipe)
    with farm.store.get_file(work.object_key) as path:
        run = split(path, recipe, here.detectors.open(recipe), progress=_seldom(work.name, tell))
        last: list[StoredBatch] = []
        for batch in run:
            hold.check()
            if last:
                patiently(farm, partial(record_split_batches, farm, lease, last))
            last = [_store(farm, work, batch)]
    hold.check()
    summary = run.summary
    # most videos have one batch: its row comes in the transaction that ends the split
    patiently(farm, lambda: finish_split(farm, lease, asdict(summary), asdict(summary.info), last))
    return f"{work.name}: {summary.frames_read} frames, {summary.crops} crops"


def _store(farm: Farm, work: SplitWork, batch: CropBatch) -> StoredBatch:
    key = work.crops_key(batch.index)
    farm.store.put_if_absent(key, encode_batch(batch))
    return StoredBatch(batch.index, len(batch.crops), key)


def _seldom(name: str, tell: Tell) -> Callable[[int, int], None]:
    """Tell how many frames are done, now and then."""
    told = time.monotonic()

    def progress(done: int, expected: int) -> None:
        nonlocal told
        if time.monotonic() - told >= TELL_SECONDS:
            told = time.monotonic()
            tell(f"{done}/{expected} frames of {name}")

    return progress
