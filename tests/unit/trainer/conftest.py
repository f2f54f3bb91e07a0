"""Prepared sets of drawn faces: the trainer's tests need neither portraits nor a detector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from unit.trainer.drawn_faces import FIVE_POINTS, draw_face

from trainer.export import export_onnx
from trainer.manifest import write_manifest, write_shard
from trainer.model import UYNet


def crop_row(video: str, **other: Any) -> dict[str, Any]:
    """A manifest row of a real of its own, but for what is given."""
    points = (FIVE_POINTS + np.random.default_rng(len(video)).normal(0, 2, (5, 2))).ravel().tolist()
    row: dict[str, Any] = {"video": video, "label": "REAL", "original": video, "group": "", "method": "real"}
    row |= {"frame_index": 0, "pts_seconds": 0.0, "shard": f"crops/{video}.npy", "row": 0}
    row |= {"crop_box": [0, 0, 224, 224], "face_box": [50, 34, 174, 202], "points": points}
    return row | {"mask_area": 0.0, "mono": False} | other


def draw_swap(real: NDArray[np.uint8], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """A real with another drawn face's middle pasted in, and where: an ellipse about the face's middle."""
    where = np.zeros(real.shape[:2], np.uint8)
    cv2.ellipse(where, (112, 118), (45, 60), 0, 0, 360, 1, -1)
    mask = where.astype(bool)
    return np.where(mask[:, :, None], cv2.GaussianBlur(draw_face(seed), (0, 0), 1.5), real).astype(np.uint8), mask


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tiny networks run slower on several threads, much slower where tests share the cores."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX weights of a U-YNet of width 2 whose logits spread; `export_onnx` takes long, so once for all. Read only."""
    torch.manual_seed(7)
    model = UYNet(width=2).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_var.uniform_(0.06, 0.2)
                module.bias.normal_(0, 0.3)
    path = tmp_path_factory.mktemp("weights") / "tiny.onnx"
    export_onnx(model, path)
    return path


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set of 24 reals of 12 persons, p0 to p11 in turn, the last two monochrome; no fakes. Do not write into it."""
    folder = tmp_path_factory.mktemp("portraits")
    return write_portraits(folder)


@pytest.fixture
def portraits_copy(tmp_path: Path) -> Path:
    """As `portraits`, to write into."""
    return write_portraits(tmp_path / "portraits")


def write_portraits(folder: Path) -> Path:
    """24 reals of 12 persons, one picture a "video", the last two monochrome."""
    folder.mkdir(exist_ok=True)
    rows = []
    for i in range(24):
        face, name = draw_face(i), f"{i}.jpg"
        write_shard(folder, name, face[None], None)
        rows.append(crop_row(name, group=f"p{i // 2}", mono=i >= 22))
    write_manifest(folder, rows)
    return folder


@pytest.fixture(scope="session")
def aligned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 real videos of 2 frames (groups g0 to g2 in turn) and of each 2 fakes (methods "swap" and "mix") with masks. Read only."""
    folder = tmp_path_factory.mktemp("aligned")
    write_manifest(folder, aligned_rows(folder))
    return folder


@pytest.fixture(scope="session")
def with_unpaired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `aligned`, and one fake video of one frame whose original nobody knows: no mask. Read only."""
    folder = tmp_path_factory.mktemp("with_unpaired")
    rows = aligned_rows(folder)
    write_shard(folder, "lost.mp4", draw_swap(draw_face(90), 91)[0][None], None)
    lost = crop_row("lost.mp4", label="FAKE", original="", method="lost", mask_area=None, group="g9")
    write_manifest(folder, [*rows, lost])
    return folder


def aligned_rows(folder: Path) -> list[dict[str, Any]]:
    """Write the aligned set's arrays; its manifest rows."""
    rows: list[dict[str, Any]] = []
    for i in range(6):
        video, group = f"real{i}.mp4", f"g{i // 2}"
        frames = np.stack([draw_face(10 * i), draw_face(10 * i + 1)])
        write_shard(folder, video, frames, None)
        rows += [crop_row(video, group=group, frame_index=f * 10, pts_seconds=f * 0.4, row=f) for f in range(2)]
        for method in ("swap", "mix"):
            made = [draw_swap(frame, 200 + i + 50 * (method == "mix")) for frame in frames]
            name = f"{method}{i}.mp4"
            write_shard(folder, name, np.stack([m[0] for m in made]), np.stack([m[1] for m in made]))
            fake = {"label": "FAKE", "original": video, "group": group, "method": method}
            rows += [
                crop_row(
                    name, **fake, frame_index=f * 10, pts_seconds=f * 0.4, row=f, mask_area=float(made[f][1].mean())
                )
                for f in range(2)
            ]
    return rows
