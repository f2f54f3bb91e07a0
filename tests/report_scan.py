"""A scan as the farm would have left it: real SQLite, a real local store, a real video, scores made by hand."""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from model_cards import model_card
from numpy.typing import NDArray
from skimage.data import astronaut

from farm.contracts import CROP_SIDE_PX, Box, Crop, CropBatch, FrameRef, ModelCard
from farm.db.models import CropBatchRow, Dataset, FaceScore, Model, Scan, ScanPath, ScanVideo, Track, Video
from farm.db.session import upgrade
from farm.farm import Farm
from farm.media.batches import encode_batch
from farm.media.crops import cut, inside, square_box
from farm.media.masks import encode_masks
from farm.settings import Settings
from farm.verdict import TrackScores, calibrate, decide

FACE = Box(175.0, 65.0, 275.0, 200.0)
"""The astronaut's face in the 512 x 512 portrait."""


@dataclass
class Seen:
    """One face of the made video: its track, a logit per frame."""

    track: int
    logits: Sequence[float]


@dataclass
class ReportScan:
    """A scan to which videos are added; `path` is told as the user would have submitted it."""

    farm: Farm
    card: ModelCard
    scan_id: int
    clip: Path

    def add(
        self,
        path: str,
        faces: Sequence[Seen] = (),
        *,
        label: str | None = None,
        error: str | None = None,
        decided: bool = True,
        salt: bytes = b"",
        **summary: Any,
    ) -> int:
        """A decided video under this path; returns the id of its scan_videos row."""
        with self.farm.sessions.begin() as session:
            data = self.clip.read_bytes()
            sha256 = hashlib.sha256(data + (salt or path.encode("utf-8", "surrogatepass"))).hexdigest()
            video = Video(sha256=sha256, size_bytes=len(data), object_key=f"videos/{sha256}", created_at=1.0)
            video.info = {"width": 512, "height": 512, "duration_seconds": 12.0, "codec": "h264"}
            self.farm.store.put(video.object_key, data)
            crops = sum(len(face.logits) for face in faces)
            seen = {
                "frames_read": 12,
                "faces_found": crops,
                "tracks": len(faces),
                "rejected": {},
                "notes": [],
                "duration_seconds": 12.0,
            }
            row = ScanVideo(
                scan_id=self.scan_id, video_id=0, summary=None if error else seen | summary, state="done", attempts=1
            )
            session.add(video)
            session.flush()
            row.video_id = video.id
            session.add(row)
            session.flush()
            session.add(
                ScanPath(
                    scan_id=self.scan_id,
                    position=row.id * 10,
                    path=path,
                    name=path.rpartition("/")[2],
                    scan_video_id=row.id,
                    label=label,
                )
            )
            for face in faces:
                self._score(session, row, face)
            if decided:
                parts = [TrackScores(f.track, len(f.logits), math.fsum(f.logits), max(f.logits)) for f in faces]
                verdict = decide(parts, self.card, summary=row.summary, error=error)
                row.verdict, row.p_fake, row.reasons, row.decided_at = (
                    verdict.label,
                    verdict.p_fake,
                    list(verdict.reasons),
                    1790000000.0,
                )
                for track in session.query(Track).filter_by(scan_video_id=row.id):
                    track.p_fake = verdict.track_scores[track.track]
            scan = session.get_one(Scan, self.scan_id)
            scan.videos_total += 1
            scan.videos_done += decided
            return row.id

    def add_path(self, path: str, *, scan_video_id: int | None = None, error: str | None = None) -> None:
        """A second path of the same bytes, or one whose bytes could not be had."""
        with self.farm.sessions.begin() as session:
            position = 1_000_000 + session.query(ScanPath).count()
            name = path.rpartition("/")[2]
            session.add(
                ScanPath(
                    scan_id=self.scan_id,
                    position=position,
                    path=path,
                    name=name,
                    scan_video_id=scan_video_id,
                    error=error,
                )
            )

    def _score(self, session: Any, row: ScanVideo, face: Seen) -> None:
        boxes = [_face_box(face.track, i) for i in range(len(face.logits))]
        frames = [_frame(i) for i in range(len(face.logits))]
        squares = [inside(square_box(box, 0.2), 512, 512) for box in boxes]
        crops = tuple(Crop(FrameRef(i, float(i)), boxes[i], squares[i], face.track, 0.9) for i in range(len(boxes)))
        pixels = np.stack([cut(frame, square) for frame, square in zip(frames, squares, strict=True)])
        masks = np.stack([_mask(logit) for logit in face.logits])
        key = f"crops/{row.id}/{face.track:06}"
        mask_key = f"masks/{row.id}/{face.track:06}"
        self.farm.store.put(key, encode_batch(CropBatch(face.track, pixels, crops)))
        self.farm.store.put(mask_key, encode_masks(masks))
        batch = CropBatchRow(
            scan_id=self.scan_id, scan_video_id=row.id, position=face.track, crops=len(crops), object_key=key
        )
        batch.mask_key, batch.state = mask_key, "done"
        batch.scored_by = {"engine": "onnx", "device": "cpu", "precision": "fp32", "seconds": 0.1}
        session.add(batch)
        session.flush()
        area = [float(mask.mean()) for mask in masks]
        for i, (crop, logit) in enumerate(zip(crops, face.logits, strict=True)):
            f, c = crop.face_box, crop.crop_box
            session.add(
                FaceScore(
                    crop_batch_id=batch.id, scan_video_id=row.id, row=i, track=face.track, frame_index=i, pts_seconds=float(i),
                    x0=f.x0, y0=f.y0, x1=f.x1, y1=f.y1, crop_x0=c.x0, crop_y0=c.y0, crop_x1=c.x1, crop_y1=c.y1,
                    confidence=0.9, logit=logit, p_fake=calibrate(logit, self.card), mask_area=area[i],
                )
            )  # fmt: skip
        session.add(
            Track(
                scan_video_id=row.id, track=face.track, crops=len(crops), logit_sum=math.fsum(face.logits), logit_max=max(face.logits),
                mask_area_sum=sum(area), first_pts_seconds=0.0, last_pts_seconds=float(len(crops) - 1),
            )
        )  # fmt: skip


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of the moving portrait at one frame per second."""
    path = tmp_path_factory.mktemp("clip") / "portrait.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1, options={"g": "4", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 512, 512, "yuv420p"
        for i in range(12):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(_frame(i), format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def report_scan(tmp_path: Path, clip: Path) -> Iterator[Callable[..., ReportScan]]:
    """Make a farm with an empty scan; other places for its rows and objects, and fields of its card, may be given."""
    opened: list[Farm] = []

    def make(dataset: str = "press desk", places: dict[str, str] | None = None, **card: Any) -> ReportScan:
        home = tmp_path / f"farm{len(opened)}"
        home.mkdir()
        usual = {"database_url": f"sqlite:///{home}/farm.db", "storage_url": f"file://{home}/objects"}
        farm = Farm.open(Settings(**usual | (places or {})))
        opened.append(farm)
        upgrade(farm.engine)
        return _empty_scan(farm, clip, dataset, report_card(**card))

    yield make
    for farm in opened:
        farm.close()


def report_card(**changes: Any) -> ModelCard:
    """A card with something to tell in every part of a report."""
    values: dict[str, Any] = {
        "name": "uynet-w16", "version": "0.1", "weights": "uynet-w16.onnx", "sha256": "ab" * 32, "crop_margin": 0.2,
        "temperature": 1.5, "bias": 0.2, "threshold": 0.92, "real_below": 0.08, "metrics": {"validation_auc": 0.71},
        "training": {"data": "self-blended portraits", "licence": "public domain"}, "notes": ("Trained on few faces.",),
    }  # fmt: skip
    return model_card(**values | changes)


def _empty_scan(farm: Farm, clip: Path, dataset: str, card: ModelCard) -> ReportScan:
    with farm.sessions.begin() as session:
        group = Dataset(name=dataset, created_at=1790000000.0)
        model = Model(
            name=card.name,
            version=card.version,
            sha256=card.sha256,
            card=asdict(card),
            object_key="models/ab",
            created_at=1.0,
        )
        session.add_all([group, model])
        session.flush()
        recipe = {"sampling": "keyframes", "detector": {"name": "centerface", "side_px": 320}, "crop_margin": 0.2}
        scan = Scan(
            dataset_id=group.id, model_id=model.id, state="done", engine="onnx", recipe=recipe, recipe_sha256="cd" * 32,
            code_version="0.1.0+test", created_at=1790000000.0, finished_at=1790000042.0,
        )  # fmt: skip
        session.add(scan)
        session.flush()
        return ReportScan(farm, card, scan.id, clip)


def _frame(i: int) -> NDArray[np.uint8]:
    """The portrait, shifted a little further in every frame."""
    return np.ascontiguousarray(np.roll(astronaut(), 4 * i, axis=1))


def _face_box(track: int, i: int) -> Box:
    shift = 4.0 * i - 60.0 * track
    return Box(FACE.x0 + shift, FACE.y0, FACE.x1 + shift, FACE.y1)


def _mask(logit: float) -> NDArray[np.bool_]:
    mask = np.zeros((CROP_SIDE_PX, CROP_SIDE_PX), np.uint8)
    if logit > 0:
        cv2.ellipse(
            mask, (112, 118), (int(14 + 5 * min(logit, 8)), int(20 + 6 * min(logit, 8))), 10, 0, 360, 1, cv2.FILLED
        )
    return mask.astype(np.bool_)


@pytest.fixture
def seen() -> type[Seen]:
    return Seen
