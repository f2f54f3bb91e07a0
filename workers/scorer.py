"""Score one leased crop batch: crops from the object store -> engine -> masks into the object store -> scores into SQL."""

from __future__ import annotations

import time

from farm.contracts import CropBatch
from farm.errors import BadObject, CardQuarantined
from farm.farm import Farm
from farm.jobs.claim import Lease
from farm.jobs.hold import Hold
from farm.jobs.record import Scored, record_scores
from farm.jobs.work import score_work
from farm.media.batches import decode_batch
from farm.media.masks import encode_masks
from workers.attempt import patiently
from workers.resources import Process


def score_batch(here: Process, lease: Lease, hold: Hold) -> str:
    """Score the batch and store what came of it; one line that says so.

    A card that is not to be trusted takes no work from then on. Raises EngineMissing, EngineBusy, CardQuarantined, BadModel, BadObject,
    StorageAway, LeaseLost.
    """
    farm = here.farm
    work = patiently(farm, lambda: score_work(farm, lease))
    batch = _crops(farm, work.crops_key)
    try:
        with here.engines.using(work.engine, work.model_id) as opened:
            started = time.monotonic()
            predictions = opened.engine.predict(batch.pixels)
            seconds = time.monotonic() - started
    except CardQuarantined as error:
        here.post.distrust(str(error))
        raise
    hold.check()
    key = work.mask_key(f"{opened.card.name}-{opened.card.version}")
    farm.store.put(key, encode_masks(predictions.masks))
    spec = opened.engine.spec
    scored_by = {"engine": spec.name, "device": spec.device, "precision": spec.precision, "seconds": round(seconds, 4)}
    if spec.weights_sha256:
        scored_by["weights_sha256"] = spec.weights_sha256
    scored = Scored(batch.crops, predictions, key, scored_by)
    verdict = patiently(farm, lambda: record_scores(farm, lease, scored, opened.card))
    here.post.scored(len(batch.crops))
    said = f", {verdict.label}" if verdict else ""
    return f"{len(batch.crops)} crops in {seconds:.2f} s{said}"


def _crops(farm: Farm, key: str) -> CropBatch:
    """The crops; an object that does not parse is removed, so that the next scan of these bytes cuts it anew. Raises BadObject."""
    stored = farm.store.get(key)
    try:
        return decode_batch(stored)
    except BadObject:
        farm.store.delete(key)
        raise
