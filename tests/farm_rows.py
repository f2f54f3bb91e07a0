"""Scans made for tests without decoding a video, and everything about a scan that must not depend on what went wrong on its way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import select

from farm.contracts import CROP_SIDE_PX, Box, Crop, CropBatch, FrameRef, Predictions
from farm.db.models import CropBatchRow, FaceScore, Scan, ScanPath, ScanVideo, Track, Video
from farm.farm import Farm
from farm.jobs.claim import Lease, claim
from farm.jobs.models import load_model
from farm.jobs.record import Scored, StoredBatch, finish_split, record_scores, record_split_batches
from farm.jobs.sources import Source
from farm.jobs.submit import submit
from farm.media.batches import encode_batch
from farm.split import Recipe

SUMMARY = {"frames_read": 40, "faces_found": 12, "tracks": 2, "rejected": {}, "notes": []}


@dataclass(frozen=True)
class Rows:
    """Scans of one farm."""

    farm: Farm

    def submit(self, folder: Path, contents: dict[str, bytes], **options: Any) -> int:
        """Write these files, submit them as one scan; its id."""
        folder.mkdir(exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        sources = [Source(str(folder / name), name) for name in contents]
        return submit(self.farm, sources, recipe=options.pop("recipe", Recipe()), **options)

    def scan(self, scan_id: int) -> Scan:
        with self.farm.sessions() as session:
            return session.get_one(Scan, scan_id)

    def videos(self, scan_id: int) -> list[ScanVideo]:
        with self.farm.sessions() as session:
            return list(session.scalars(select(ScanVideo).where(ScanVideo.scan_id == scan_id).order_by(ScanVideo.id)))

    def batches(self, scan_id: int) -> list[CropBatchRow]:
        with self.farm.sessions() as session:
            query = select(CropBatchRow).where(CropBatchRow.scan_id == scan_id).order_by(CropBatchRow.scan_video_id)
            return list(session.scalars(query.order_by(CropBatchRow.position)))

    def paths(self, scan_id: int) -> list[ScanPath]:
        with self.farm.sessions() as session:
            return list(
                session.scalars(select(ScanPath).where(ScanPath.scan_id == scan_id).order_by(ScanPath.position))
            )

    def split(self, video: ScanVideo, batches: int = 2, crops: int = 4, worker: str = "splitter") -> Lease:
        """Split the video into made-up batches, as a split worker would."""
        lease = claim(self.farm, ScanVideo, video.id, worker)
        assert lease is not None
        for position in range(batches):
            record_split_batches(self.farm, lease, [self.store_batch(video, position, crops)])
        finish_split(self.farm, lease, SUMMARY)
        return lease

    def store_batch(self, video: ScanVideo, position: int, crops: int = 4) -> StoredBatch:
        """Put a made-up batch into the object store."""
        key = f"crops/{video.video_id}/{position:06d}"
        self.farm.store.put_if_absent(key, encode_batch(made_up_batch(position, crops, seed=video.video_id)))
        return StoredBatch(position, crops, key)

    def score(self, batch: CropBatchRow, logits: list[float] | None = None, worker: str = "card") -> Lease:
        """Score the batch with these logits, as an infer worker would."""
        lease = claim(self.farm, CropBatchRow, batch.id, worker)
        assert lease is not None
        self.record(lease, batch, logits)
        return lease

    def record(self, lease: Lease, batch: CropBatchRow, logits: list[float] | None = None) -> None:
        card = load_model(self.farm, self.scan(batch.scan_id).model_id).card
        made_up = made_up_batch(batch.position, batch.crops, seed=0)
        values = np.array(logits or [float(i - 1) for i in range(batch.crops)], np.float32)
        masks = np.zeros((batch.crops, CROP_SIDE_PX, CROP_SIDE_PX), np.bool_)
        masks[0, :112] = True
        scored = Predictions(values, 1 / (1 + np.exp(-values)), masks)
        record_scores(self.farm, lease, Scored(made_up.crops, scored, f"masks/{batch.id}", {"engine": "by hand"}), card)

    def effect(self, scan_id: int) -> dict[str, Any]:
        """All that a scan leaves behind, without ids, times and attempts: equal for a disturbed and an undisturbed run.

        Sums are rounded: in which order the batches were added shows in their last bits.
        """
        with self.farm.sessions() as session:
            scan = session.get_one(Scan, scan_id)
            video_key = {row.id: row.sha256 for row in session.execute(select(Video.id, Video.sha256))}
            videos = session.scalars(select(ScanVideo).where(ScanVideo.scan_id == scan_id)).all()
            key = {video.id: video_key[video.video_id] for video in videos}
            scores = session.scalars(select(FaceScore).where(FaceScore.scan_video_id.in_(key))).all()
            batches = session.scalars(select(CropBatchRow).where(CropBatchRow.scan_id == scan_id)).all()
            position = {batch.id: batch.position for batch in batches}
            tracks = session.scalars(select(Track).where(Track.scan_video_id.in_(key))).all()
            return {
                "scan": _columns(scan, "state videos_total videos_done crops_total crops_done videos_fake videos_real")
                | _columns(scan, "videos_uncertain videos_no_face videos_unreadable"),
                "videos": {
                    key[v.id]: _columns(v, "state summary batches_total batches_done batches_failed crops_total")
                    | _columns(v, "crops_done verdict reasons")
                    | {"p_fake": None if v.p_fake is None else round(v.p_fake, 12)}
                    for v in videos
                },
                "batches": sorted((key[b.scan_video_id], b.position, b.crops, b.state) for b in batches),
                "objects": sorted(
                    self.farm.store.exists(b.object_key) and self.farm.store.exists(b.mask_key or "-") for b in batches
                ),
                "scores": sorted(
                    (
                        key[s.scan_video_id],
                        position[s.crop_batch_id],
                        s.row,
                        s.track,
                        s.pts_seconds,
                        s.logit,
                        s.p_fake,
                        s.mask_area,
                    )
                    for s in scores
                ),
                "tracks": sorted(
                    (
                        key[t.scan_video_id],
                        t.track,
                        t.crops,
                        round(t.logit_sum, 9),
                        t.logit_max,
                        round(t.mask_area_sum, 9),
                    )
                    for t in tracks
                ),
            }


def made_up_batch(position: int, crops: int, seed: int) -> CropBatch:
    """A batch of noise: two tracks, frames 0.1 s apart."""
    noise = np.random.default_rng([seed, position])
    pixels = noise.integers(0, 256, (crops, CROP_SIDE_PX, CROP_SIDE_PX, 3), dtype=np.uint8)
    first = position * crops
    box, square = Box(10, 10, 60, 70), Box(0, 0, 80, 80)
    cut = tuple(Crop(FrameRef(first + i, (first + i) / 10), box, square, i % 2, 0.9) for i in range(crops))
    return CropBatch(position, pixels, cut)


def _columns(row: Any, names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names.split()}
