"""Frames out of a video file, through PyAV. Knows files and pixels; knows no face, no job, no SQL, no queue.

A file is read twice: its packets alone (`packets.py`), then to decode what the sampling policy asks for and nothing
else. Both ways lead forward only, so that a missing or lying index does no harm; what is held in memory is one decoder's
frames, and 8 bytes per key frame and per frame asked for.
Letters in shapes: H and W of a frame.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container.input import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from farm.contracts import FrameRef
from farm.errors import BadVideo
from farm.media.packets import PacketIndex, file_name, opened, packets, read_index, upright
from farm.media.sampling import Sampling, parse_sampling, target_times, times_wanted

MAX_FRAME_PIXELS = 100_000_000
"""A video with larger frames is refused before any memory is taken for one."""
SPARSE_SHARE = 1 / 16
"""Where at most this share of the frames is looked at, frames that no other frame refers to are not decoded.

The frame that answers a target then stands up to one run of B-frames later, which is little at this distance.
"""
MOST_TIMES = 1_000_000
"""A file that would be looked at more often than this, and than it has frames, is read whole: its time stamps are wrong."""
_TOLERANCE_SECONDS = 1e-4


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a file is, by its header and its packets."""

    #: of a frame in pixels, as it is to be looked at (rotation applied)
    width: int
    height: int
    #: measured, from the first frame to the end of the last
    duration_seconds: float
    #: "h264", "vp9", ...
    codec: str
    #: "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", ...
    container: str
    #: mean frames per second by the header, 0 if it says none
    frame_rate: float
    #: number of frames by the header, 0 if it says none
    frames_declared: int
    #: number of frames that are really there, decodable or not
    frames_found: int
    #: how far a stored frame is turned counterclockwise: 0, 90, 180 or 270 degrees
    rotation_degrees: int


def probe(path: Path, max_frame_pixels: int = MAX_FRAME_PIXELS) -> VideoInfo:
    """What a video file is; reads its packets and decodes one frame. Raises BadVideo."""
    return sample_frames(path, "keyframes", max_frame_pixels).info


def sample_frames(path: Path, policy: str = "keyframes", max_frame_pixels: int = MAX_FRAME_PIXELS) -> FrameSource:
    """The frames of a video that a sampling policy (see `sampling.py`) asks for, ready to be iterated.

    Raises BadInput for an unknown policy, BadVideo for a file that is no video or has too large frames.
    """
    return FrameSource(path, parse_sampling(policy), max_frame_pixels)


class FrameSource:
    """A video's sampled frames in presentation order, as (FrameRef, (H, W, 3) uint8 RGB). Each iteration decodes anew.

    What cannot be read is left out and told in `notes`; an iteration without a single frame raises BadVideo.
    """

    info: VideoInfo
    #: frames given out, and packets given to the decoder for them, in the latest iteration
    frames_read: int
    packets_decoded: int

    def __init__(self, path: Path, sampling: Sampling, max_frame_pixels: int = MAX_FRAME_PIXELS) -> None:
        """Read the file's packets. Raises BadVideo."""
        self._path, self._sampling, self._max_frame_pixels = path, sampling, max_frame_pixels
        with opened(path, max_frame_pixels) as (container, stream):
            self._index = read_index(container, stream)
            self.info = _info(container, stream, self._index)
        if not self._index.packets:
            raise BadVideo(
                "; ".join((f"{file_name(path)} has a video stream without a single frame", *self._index.notes))
            )
        self._targets = np.empty(0)
        if sampling.looks_at_times and times_wanted(sampling, self._index.end_seconds) > self._most_times(sampling):
            self._sampling = sampling = Sampling("all")
        if sampling.looks_at_times:
            self._targets = target_times(sampling, np.sort(self._index.group_seconds), self._index.end_seconds)
        self._forget()

    def _most_times(self, sampling: Sampling) -> int:
        """More times than this are not looked for: every frame would be the answer, or one false time stamp asks for years."""
        return self._index.packets - 1 if sampling.kind == "uniform" else max(self._index.packets, MOST_TIMES)

    @property
    def expected_frames(self) -> int:
        """How many frames an iteration will give at most."""
        if self._sampling.looks_at_times:
            return min(len(self._targets), self._index.packets)
        return -(-self._index.packets // int(self._sampling.value))

    @property
    def notes(self) -> tuple[str, ...]:
        """Plain sentences about damage; complete once the frames have been iterated."""
        notes = list(self._index.notes)
        if self._undecodable:
            notes.append(f"{self._undecodable} of {self._index.packets} packets do not decode")
        if self._damaged:
            notes.append(f"{self._damaged} frames are damaged, or built on damaged ones, and were left out")
        if self._oversized:
            notes.append(
                f"{self._oversized} frames are larger than {self._max_frame_pixels:,} pixels and were left out"
            )
        return tuple(notes)

    def __iter__(self) -> Iterator[tuple[FrameRef, NDArray[np.uint8]]]:
        self._forget()
        to_rgb = VideoReformatter()
        with opened(self._path, self._max_frame_pixels) as (container, stream):
            walk = self._at_times if self._sampling.looks_at_times else self._every_nth
            for ref, frame in walk(container, stream):
                self.frames_read += 1
                self._latest_seconds = ref.pts_seconds
                rgb = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
                yield ref, upright(np.asarray(rgb, np.uint8), frame.rotation)
        if not self.frames_read:
            raise BadVideo("; ".join((f"{file_name(self._path)}: not one frame can be decoded", *self.notes)))

    def _every_nth(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[FrameRef, VideoFrame]]:
        """Every Nth frame, counted in presentation order."""
        stride, index = int(self._sampling.value), 0
        for packet, _, _ in _until_broken(container, stream):
            for frame in self._decode(stream, packet):
                good = self._is_good(frame)
                if good and index % stride == 0:
                    yield FrameRef(index, self._seconds(frame)), frame
                index += 1

    def _at_times(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[FrameRef, VideoFrame]]:
        """The first good frame at or after each target. Its index is its packet's number."""
        if self._is_sparse:
            stream.codec_context.skip_frame = "NONREF"
        asked = _Asked(self._targets, self._index.group_seconds)
        for frame in self._frames_near(asked, container, stream):
            if self._is_good(frame) and asked.takes(self._seconds(frame)):
                yield FrameRef(_number(frame), self._seconds(frame)), frame

    def _frames_near(self, asked: _Asked, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """The frames from each key frame that has targets before the next one, up to the last of these targets."""
        for packet, seconds, opens in _until_broken(container, stream):
            if opens:
                decoding = asked.in_group
                asked.enter_group()
                # without a pause the decoder stays warm, and frames that lean on both groups come out whole
                if decoding and not asked.in_group:
                    yield from self._drain(stream)
            if asked.is_done:
                return
            if asked.in_group and packet is not None:
                yield from self._decode(stream, packet)
                reached = seconds - self._index.start_seconds >= asked.last_seconds
                if asked.is_answered or (reached and (self._is_sparse or opens)):
                    asked.leave_group()
                    yield from self._drain(stream)

    @property
    def _is_sparse(self) -> bool:
        return len(self._targets) <= SPARSE_SHARE * self._index.packets

    def _decode(self, stream: VideoStream, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """The frames that come out when a packet goes in; None asks for those held back. Damage is counted, not raised."""
        self.packets_decoded += packet is not None
        try:
            return stream.decode(packet)
        except (av.FFmpegError, OSError):
            self._undecodable += 1
            if packet is not None:
                self._mark_broken(_number(packet))
            return []

    def _drain(self, stream: VideoStream) -> list[VideoFrame]:
        """The frames held back; the decoder then waits for a key frame."""
        frames = self._decode(stream, None)
        stream.codec_context.flush_buffers()
        return frames

    def _is_good(self, frame: VideoFrame) -> bool:
        """False, and counted, for a frame that the decoder patched up, or built on such a one, or too large.

        The decoder marks the patched frame alone; what is smeared from it would be taken for a manipulation, up to the
        next key frame.
        """
        number = _number(frame)
        if frame.is_corrupt:
            self._mark_broken(number)
        elif frame.key_frame:
            del self._broken[: bisect_left(self._broken, number)]
        damaged = bool(self._broken) and self._broken[0] <= number
        oversized = frame.width * frame.height > self._max_frame_pixels
        self._damaged += damaged
        self._oversized += oversized
        return not (damaged or oversized)

    def _mark_broken(self, number: int) -> None:
        insort(self._broken, number)

    def _seconds(self, frame: VideoFrame) -> float:
        """A frame's presentation time from the stream's start, by the stream's clock: a drained frame has lost its own."""
        time = frame.pts * self._index.tick_seconds if frame.pts is not None else 0.0
        return max(self._latest_seconds, time - self._index.start_seconds)

    def _forget(self) -> None:
        self.frames_read = self.packets_decoded = 0
        self._undecodable = self._damaged = self._oversized = 0
        # numbers of the packets that failed since the latest sound key frame: in decoding order, unlike the frames
        self._broken: list[int] = []
        # AVI has no presentation times and gives a B-frame that of its neighbour; time still never runs backwards
        self._latest_seconds = 0.0


class _Asked:
    """The targets still open, while a file is walked from one group of pictures to the next."""

    def __init__(self, targets: NDArray[np.float64], group_seconds: NDArray[np.float64]) -> None:
        self._targets, self._groups = targets, group_seconds
        self._next = 0
        self._group = -1
        self._stop = 0
        #: whether the current group holds an open target, and the last one in it
        self.in_group = False
        self.last_seconds = 0.0

    @property
    def is_done(self) -> bool:
        return self._next >= len(self._targets)

    @property
    def is_answered(self) -> bool:
        """Whether no target of the current group is open."""
        return self._next >= self._stop

    def enter_group(self) -> None:
        """Go on to the next group; it holds the open targets before the one after it."""
        self._group += 1
        if self._group >= len(self._groups):
            self.in_group = False
            return
        following = self._groups[self._group + 1] if self._group + 1 < len(self._groups) else np.inf
        self._stop = int(np.searchsorted(self._targets, following - _TOLERANCE_SECONDS))
        self.in_group = not self.is_answered
        if self.in_group:
            self.last_seconds = float(self._targets[self._stop - 1])

    def leave_group(self) -> None:
        self.in_group = False

    def takes(self, seconds: float) -> bool:
        """Whether a frame at this time answers an open target; then all targets up to it are closed."""
        closed = int(np.searchsorted(self._targets, seconds + _TOLERANCE_SECONDS, "right"))
        answers = closed > self._next
        self._next = max(self._next, closed)
        return answers


def _until_broken(
    container: InputContainer, stream: VideoStream
) -> Iterator[tuple[Packet[VideoStream] | None, float, bool]]:
    """All packets that can be read, then None. What broke stands in the index's notes."""
    try:
        yield from packets(container, stream)
    except (av.FFmpegError, OSError):
        pass
    yield None, np.inf, True


def _number(coded: VideoFrame | Packet[VideoStream]) -> int:
    """The number of a packet in its file, or of the one that a frame was decoded from."""
    return coded.opaque if isinstance(coded.opaque, int) else 0


def _info(container: InputContainer, stream: VideoStream, index: PacketIndex) -> VideoInfo:
    width, height = stream.codec_context.width, stream.codec_context.height
    if index.rotation_degrees % 180:
        width, height = height, width
    return VideoInfo(
        width=width,
        height=height,
        duration_seconds=index.stop_seconds,
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name,
        frame_rate=float(stream.average_rate or 0),
        frames_declared=stream.frames,
        frames_found=index.packets,
        rotation_degrees=index.rotation_degrees,
    )
