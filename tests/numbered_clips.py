"""Clips made by PyAV: every frame shows its own number, so that a test can tell which frames it was given."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT, BITS = 160, 96, 8
QUIET = {
    "libx264": {"preset": "veryfast", "threads": "1", "sc_threshold": "0", "bf": "2"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:no-open-gop=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "libsvtav1": {"preset": "10", "crf": "12", "svtav1-params": "lp=1"},
}
"""Fast, repeatable encoding, with key frames where the group says and nowhere else."""


def numbered(frame: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A red top quarter over grey, and along the bottom quarter the bits of the frame's number, black or white.

    The rest stays still, so that one clip is one scene.
    """
    picture = np.full((height, width, 3), 90, np.uint8)
    picture[: height // 4] = (255, 0, 0)
    for bit in range(BITS):
        left, right = bit * width // BITS, (bit + 1) * width // BITS
        picture[-height // 4 :, left:right] = 255 if frame >> bit & 1 else 0
    return picture


def number_of(rgb: NDArray[np.uint8]) -> int:
    """The number that a picture made by `numbered` shows."""
    height, width = rgb.shape[:2]
    middles = [(2 * bit + 1) * width // (2 * BITS) for bit in range(BITS)]
    return sum(int(rgb[-height // 8 :, x].mean() > 128) << bit for bit, x in enumerate(middles))


def write_clip(
    path: Path,
    codec: str = "libx264",
    frames: int = 50,
    *,
    group: int = 10,
    times: Sequence[float] | None = None,
    rotation: int | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
) -> Path:
    """Write a clip of numbered frames: 25 per second, unless `times` (seconds) says otherwise; two B-frames in H.264."""
    with av.open(path, "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=25, options=QUIET.get(codec, {}) | (options or {}))
        stream.width, stream.height = size
        stream.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8"}.get(codec, "yuv420p")
        stream.gop_size = group
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[number] * 1000), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path
