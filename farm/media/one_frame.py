"""One frame of a video by its time, for the eye: a seek and a few decoded frames, whatever the file's length.

`FrameSource` walks forward and never seeks, because an index may be missing or lie; here a wrong landing is noticed, and the file
is then walked from its start. Letters in shapes: H and W of a frame.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container.input import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from farm.errors import BadVideo
from farm.media.packets import file_name, opened, packets, upright

FIRST_PACKETS = 64
"""The stream's first frame lies among so many packets, however its frames are reordered."""
_TOLERANCE_SECONDS = 5e-4
_TRIES = ((True, True), (True, False), (False, False))
"""Whether to seek, and whether to leave out frames that no other refers to: cheaper, and sampled frames mostly are not of these."""


def frame_at(path: Path, pts_seconds: float, max_frame_pixels: int) -> NDArray[np.uint8]:
    """The frame shown at a time from the stream's start, (H, W, 3) uint8 RGB, rotation applied.

    The time is one that `FrameSource` gave out. Raises BadVideo where no frame has it.
    """
    for seek, nonref in _TRIES:
        with opened(path, max_frame_pixels) as (container, stream):
            wanted = pts_seconds + _start_seconds(container, stream)
            stream.codec_context.skip_frame = "NONREF" if nonref else "DEFAULT"
            try:
                container.seek(int(wanted / (stream.time_base or 1)) if seek else 0, stream=stream)
                found = _found(container, stream, wanted)
            except (av.FFmpegError, OSError, ValueError):
                found = None
            if found is not None:
                return upright(np.asarray(found.to_ndarray(format="rgb24"), np.uint8), found.rotation)
    raise BadVideo(f"{file_name(path)} shows no frame at {pts_seconds:.3f} s")


def _start_seconds(container: InputContainer, stream: VideoStream) -> float:
    """The first frame's time in the stream's own clock, as far as the file can be read."""
    start = math.inf
    try:
        for _, seconds, _ in islice(packets(container, stream), FIRST_PACKETS):
            start = min(start, seconds)
    except (av.FFmpegError, OSError):
        pass  # what was read before the damage is enough
    return start if math.isfinite(start) else 0.0


def _found(container: InputContainer, stream: VideoStream, seconds: float) -> VideoFrame | None:
    """The frame with this time, or None once later frames come out."""
    for frame in _decoded(container, stream):
        if frame.pts is not None and frame.time >= seconds - _TOLERANCE_SECONDS:
            return frame if frame.time <= seconds + _TOLERANCE_SECONDS else None
    return None


def _decoded(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Every frame that decodes; a packet that does not is passed over."""
    for packet in container.demux(stream):
        try:
            yield from stream.decode(packet)
        except (av.FFmpegError, OSError):
            continue
