"""Files that are no ordinary video, made on the spot."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import numpy as np

NEWLINES = "two\nlines\n.mp4"
LONG_NAME = "n" * 251 + ".mp4"
DEEP = Path(*["d" * 60] * 5) / "deep.mp4"
"""A relative path of over 300 characters."""


def write(folder: Path) -> None:
    """Every kind, beside each other in one folder."""
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("This is a text file, whatever its name says.\n" * 40)
    audio_only(folder / "audio.mp4")
    video(folder / "one_frame.mp4", frames=1)
    gif_header(folder / "huge.gif", 20_000, 20_000)
    gif_header(folder / "large.gif", 15_000, 15_000)
    whole = folder / "whole.mp4"
    video(whole, frames=60)
    data = whole.read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) * 6 // 10])
    (folder / NEWLINES).write_bytes(data)
    (folder / LONG_NAME).write_bytes(data)
    (folder / DEEP).parent.mkdir(parents=True)
    (folder / DEEP).write_bytes(data)
    (folder / "folder.mp4").mkdir()
    (folder / "dangling.mp4").symlink_to("nowhere.mp4")
    (folder / "loop.mp4").symlink_to("loop.mp4")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "locked.mp4").write_bytes(data)
    (folder / "locked.mp4").chmod(0)


def video(path: Path, *, frames: int, side_px: int = 128) -> None:
    """A moving gradient without a face. The index stands in front of the pictures, so that a cut file still has it."""
    with av.open(path, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "15"})
        stream.width = stream.height = side_px
        stream.pix_fmt = "yuv420p"
        ramp = np.arange(side_px, dtype=np.uint16)
        for number in range(frames):
            grey = ((ramp[:, None] + ramp[None, :] + number * 3) % 256).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.repeat(grey[:, :, None], 3, axis=2), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def audio_only(path: Path) -> None:
    """A second of a tone."""
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        tone = np.sin(np.arange(16_000, dtype=np.float32) * 0.17)[None, :]
        frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def gif_header(path: Path, width: int, height: int) -> None:
    """A GIF of one frame that claims this size: a few bytes that would unpack to gigabytes."""
    screen = struct.pack("<6sHHBBB6s", b"GIF89a", width, height, 0x80, 0, 0, bytes([0, 0, 0, 255, 255, 255]))
    picture = struct.pack("<BHHHHB", 0x2C, 0, 0, width, height, 0)
    path.write_bytes(screen + picture + bytes([2, 2, 0x4C, 0x01, 0, 0x3B]))
