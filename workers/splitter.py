"""Split one leased video: stored bytes -> crop batches in the object store -> rows ready to score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from farm.contracts import CropBatch
from farm.farm import Farm
from farm.jobs.claim import Lease
from farm.jobs.hold import Hold
from farm.jobs.record import StoredBatch, finish_split, record_split_batch
from farm.jobs.work import SplitWork, adopt, adoptable, split_work
from farm.media.batches import encode_batch
from farm.split import Recipe, split
from workers.attempt import patiently
from workers.resources import Process

Progress = Callable[[str], None]


def split_video(here: Process, lease: Lease, hold: Hold, progress: Progress) -> str:
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
    recipe = Recipe.from_json(work.recipe)
    stored = crops = 0
    with farm.store.get_file(work.object_key) as path:
        run = split(path, recipe, here.detectors.open(recipe))
        for batch in run:
            hold.check()
            store_batch(farm, lease, work, batch)
            stored, crops = stored + 1, crops + len(batch.crops)
            progress(f"{work.name}: {stored} batches, {crops} crops, {batch.crops[-1].frame.pts_seconds:.0f} s")
    hold.check()
    summary: dict[str, Any] = asdict(run.summary)
    patiently(farm, lambda: finish_split(farm, lease, summary, summary.get("info")))
    return f"{work.name}: {stored} batches, {crops} crops"


def store_batch(farm: Farm, lease: Lease, work: SplitWork, batch: CropBatch) -> None:
    """Object first, row last."""
    key = work.crops_key(batch.index)
    farm.store.put_if_absent(key, encode_batch(batch))
    patiently(farm, lambda: record_split_batch(farm, lease, StoredBatch(batch.index, len(batch.crops), key)))
