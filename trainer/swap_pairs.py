"""How good weights are on real face swaps: a folder of pixel-aligned real and fake videos, cut as the farm cuts them.

The pairs are looked at, never learnt from: no threshold, checkpoint or setting may be chosen by what they say.
N frames, S crop side.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.contracts import CROP_SIDE_PX, Box
from farm.errors import BadInput
from farm.media.crops import cut, inside, square_box
from farm.media.faces import Detector, open_detector
from farm.media.video import sample_frames
from trainer.evaluate import predict
from trainer.measure import auc, ellipse, interval, iou
from trainer.model import UYNet
from trainer.prepare import CROP_MARGIN

CHANGED_ABOVE = 10.0
"""Grey levels by which the smoothed twins must differ for a pixel to count as manipulated; below lies what two encodings differ by."""


@dataclass(frozen=True, slots=True)
class Cuts:
    """The largest face of evenly spaced frames of one video."""

    #: (N, S, S, 3) uint8
    crops: NDArray[np.uint8]
    #: the crop and the face box in source pixels, one per crop
    crop_boxes: tuple[Box, ...]
    face_boxes: tuple[Box, ...]
    #: presentation times, by which twins' frames are matched
    pts_seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Twins:
    """What the network says of a fake video and of its original."""

    group: str
    real: NDArray[np.float64]
    fake: NDArray[np.float64]
    #: mean overlap of the fake's masks with where the twins differ, and that of an ellipse in the face box
    mask_iou: float
    ellipse_iou: float


def report(model: UYNet, folder: Path, frames_per_video: int = 8) -> dict[str, Any]:
    """Figures on a folder with `videos.csv` (file, label, original, group) and `pairs/`. Raises BadInput if it lists no pair."""
    with (folder / "videos.csv").open(newline="") as file:
        fakes = [row for row in csv.DictReader(file) if row["file"].startswith("pairs/") and row["original"]]
    if not fakes:
        raise BadInput(f"{folder}/videos.csv lists no pairs")
    detector = open_detector("centerface", side_px=320, confidence=0.5)
    every = [look(model, folder / "pairs", row, detector, frames_per_video) for row in fakes]
    return figures([twins for twins in every if len(twins.real) and len(twins.fake)])


def figures(every: list[Twins]) -> dict[str, Any]:
    """AUC by frame and by video with intervals over groups of people, order within the pairs, and overlap of the masks."""
    groups = [twins.group for twins in every]
    found: dict[str, Any] = {
        "pairs": len(every),
        "groups": len(set(groups)),
        "frames": sum(len(t.real) + len(t.fake) for t in every),
    }
    for key, whole in (("frame_auc", False), ("video_auc", True)):
        low, high = interval(lambda rows, whole=whole: _auc([every[i] for i in rows], whole), groups)  # type: ignore[misc]
        found |= {key: round(_auc(every, whole), 3), f"{key}_95": [round(low, 3), round(high, 3)]}
    above = sum(float(twins.fake.mean()) > float(twins.real.mean()) for twins in every)
    found["fakes_above_their_own_real"] = f"{above} of {len(every)}"
    found["mask_iou"] = round(float(np.nanmean([twins.mask_iou for twins in every])), 3)
    found["ellipse_iou"] = round(float(np.nanmean([twins.ellipse_iou for twins in every])), 3)
    return found


def _auc(every: list[Twins], whole: bool) -> float:
    def column(key: str) -> NDArray[np.float64]:
        logits = [getattr(twins, key) for twins in every]
        return np.array([x.mean() for x in logits]) if whole else np.concatenate(logits)

    return auc(column("real"), column("fake"))


def look(model: UYNet, pairs: Path, row: dict[str, str], detector: Detector, frames: int) -> Twins:
    """Score both videos of a pair; the mask's truth is where the fake's crop differs from the same square of its original."""
    fake_path, real_path = pairs / Path(row["file"]).name, pairs / row["original"]
    fake, real = cuts_of(fake_path, detector, frames), cuts_of(real_path, detector, frames)
    logits, masks = predict(model, fake.crops)
    originals = {round(ref.pts_seconds, 3): rgb for ref, rgb in sample_frames(real_path, f"uniform:{frames}")}
    overlaps = []
    for i, pts in enumerate(fake.pts_seconds):
        if (original := originals.get(round(pts, 3))) is not None:
            changed = changes(fake.crops[i], cut(original, fake.crop_boxes[i], CROP_SIDE_PX))
            overlaps.append((iou(masks[i], changed), iou(_guess(fake, i, original.shape[:2]), changed)))
    mask_iou, ellipse_iou = np.nanmean(overlaps, axis=0) if overlaps else (np.nan, np.nan)
    return Twins(row["group"], predict(model, real.crops)[0], logits, float(mask_iou), float(ellipse_iou))


def cuts_of(path: Path, detector: Detector, frames: int) -> Cuts:
    """Crops of the largest face in evenly spaced frames of a video."""
    crops, crop_boxes, face_boxes, times = [], [], [], []
    for ref, rgb in sample_frames(path, f"uniform:{frames}"):
        if faces := detector.detect(rgb):
            face = max(faces, key=lambda f: f.box.area).box
            crop_boxes.append(square_box(face, CROP_MARGIN))
            face_boxes.append(face)
            times.append(ref.pts_seconds)
            crops.append(cut(rgb, crop_boxes[-1], CROP_SIDE_PX))
    pixels = np.stack(crops) if crops else np.empty((0, CROP_SIDE_PX, CROP_SIDE_PX, 3), np.uint8)
    return Cuts(pixels, tuple(crop_boxes), tuple(face_boxes), tuple(times))


def changes(fake: NDArray[np.uint8], real: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(S, S) bool: where two aligned crops differ by more than their encodings do."""
    difference = np.abs(fake.astype(np.float32) - real).max(axis=2)
    return np.asarray(cv2.GaussianBlur(difference, (0, 0), 4.0) > CHANGED_ABOVE)


def _guess(cuts: Cuts, i: int, frame_shape: tuple[int, ...]) -> NDArray[np.bool_]:
    square = inside(cuts.crop_boxes[i], frame_shape[0], frame_shape[1])
    scale, face = CROP_SIDE_PX / square.width, cuts.face_boxes[i]
    corners = [face.x0 - square.x0, face.y0 - square.y0, face.x1 - square.x0, face.y1 - square.y0]
    return np.asarray(ellipse(np.array(corners, np.float32) * np.float32(scale), CROP_SIDE_PX) > 0.5)
