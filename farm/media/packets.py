"""Video files opened, and what their packets tell without decoding: where key frames stand, where a file really ends.

Knows containers; decodes at most the first frame, which alone tells the rotation.
"""

from __future__ import annotations

import stat
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.container.input import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from farm.errors import BadVideo

FORMATS = "mov,matroska,avi,gif,mpegts,mpeg,flv,asf,ogg,mxf,ivf,apng"
"""Demuxers a file may ask for. Playlists (HLS, DASH, concat) stay out: they would read other files and addresses."""
BUFFER_BYTES = 1 << 18
FIRST_LOOK_PACKETS = 100
"""So many packets at most are decoded to see a first frame."""
SHORT_SECONDS, SHORT_SHARE = 0.5, 0.02
"""A file that ends earlier than it declares by more than both is called cut off."""


@dataclass(frozen=True, slots=True)
class PacketIndex:
    """What the packets of one video stream say, in seconds from its first frame."""

    #: one tick of the stream's own clock, and the first frame's time by it
    tick_seconds: float
    start_seconds: float
    #: where decoding can start, in the file's order: the key frames, and the first packet whatever it is
    group_seconds: NDArray[np.float64]
    #: of the last frame
    end_seconds: float
    #: when the last frame stops being shown
    stop_seconds: float
    #: number of packets, one frame each as a rule
    packets: int
    #: how far a stored frame is turned counterclockwise: 0, 90, 180 or 270 degrees
    rotation_degrees: int
    #: plain sentences about damage
    notes: tuple[str, ...]


def file_name(path: Path) -> str:
    """The file's name as it can stand in a one-line message, newlines and broken characters escaped."""
    return repr(path.name)


@contextmanager
def opened(path: Path, max_frame_pixels: int) -> Iterator[tuple[InputContainer, VideoStream]]:
    """A video file and the video stream that a player would show, decoder not yet started. Raises BadVideo with the reason.

    Opened as a Python file, so that no name is taken for a protocol and no file leads to another.
    """
    try:
        found = path.stat()
        # a pipe would be waited for, a device read for ever
        if not stat.S_ISREG(found.st_mode):
            raise BadVideo(f"{file_name(path)} is not a file")
        if found.st_size == 0:
            raise BadVideo(f"{file_name(path)} is empty (0 bytes)")
        file = path.open("rb")
    except (OSError, ValueError) as error:
        raise BadVideo(f"{file_name(path)} cannot be opened: {getattr(error, 'strerror', None) or error}") from error
    with file:
        try:
            container = av.open(
                file,
                "r",
                options={"format_whitelist": FORMATS, "max_pixels": str(max_frame_pixels)},
                metadata_errors="replace",
                buffer_size=BUFFER_BYTES,
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise BadVideo(
                f"{file_name(path)} is no video file that can be read: {_reason(error)}."
                " Either it is something else, or its header is damaged or cut off"
            ) from error
        with container:
            yield container, _video_stream(path, container, max_frame_pixels)


def _video_stream(path: Path, container: InputContainer, max_frame_pixels: int) -> VideoStream:
    streams = _real_streams(container)
    if not streams:
        kinds = sorted({str(s.type) for s in container.streams}) or ["no"]
        raise BadVideo(f"{file_name(path)} has no video in it, only {' and '.join(kinds)} streams")
    stream: VideoStream = next((s for s in streams if s.disposition & av.stream.Disposition.default), streams[0])
    context = stream.codec_context
    if context is None:
        raise BadVideo(f"{file_name(path)} is coded in a way that this build of FFmpeg cannot decode")
    width, height = context.width, context.height
    if not width or not height:
        width, height = _claimed_size(path)
    if width * height > max_frame_pixels:
        raise BadVideo(
            f"{file_name(path)} has frames of {width} x {height} px, more than the"
            f" {max_frame_pixels:,} pixels that are decoded here (FARM_MAX_FRAME_PIXELS)"
        )
    if not context.width or not context.height:
        raise BadVideo(
            f"{file_name(path)} states no frame size that can be decoded: it is damaged, or its frames are far larger"
            f" than the {max_frame_pixels:,} pixels that are decoded here (FARM_MAX_FRAME_PIXELS)"
        )
    context.thread_count = 1
    context.options = {"max_pixels": str(max_frame_pixels)}
    context.flags |= av.codec.context.Flags.copy_opaque
    return stream


def _real_streams(container: InputContainer) -> list[VideoStream]:
    """The video streams that are no cover picture."""
    return [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]


def _left_out(container: InputContainer) -> str:
    streams = len(_real_streams(container))
    return f"the file has {streams} video streams; only the one that players show was looked at" if streams > 1 else ""


def _claimed_size(path: Path) -> tuple[int, int]:
    """Width and height that a header claims, where the bound on pixels hid them; 0, 0 from 2^28 pixels on. Decodes nothing."""
    options = {"format_whitelist": FORMATS, "skip_frame": "all"}
    with path.open("rb") as file, av.open(file, "r", options=options, metadata_errors="replace") as container:
        context = container.streams.video[0].codec_context
        return context.width, context.height


def packets(container: InputContainer, stream: VideoStream) -> Iterator[tuple[Packet[VideoStream], float, bool]]:
    """Every packet with its time in the stream's own clock, and whether decoding can start there.

    A packet's number in the file is its `opaque`, and so is that of the frame decoded from it. Raises what PyAV raises
    where reading breaks off.
    """
    tick_seconds, seconds = float(stream.time_base or 0), 0.0
    for number, packet in enumerate(container.demux(stream)):
        if packet.size == 0 and packet.dts is None:
            return
        ticks = packet.pts if packet.pts is not None else packet.dts
        seconds = ticks * tick_seconds if ticks is not None else seconds
        packet.opaque = number
        yield packet, seconds, packet.is_keyframe or number == 0


def read_index(container: InputContainer, stream: VideoStream) -> PacketIndex:
    """Read all packets once. Damage ends the reading and is told in the notes."""
    groups, count, broken = array("d"), 0, ""
    first = last = stop = 0.0
    rotation: int | None = None
    tick_seconds = float(stream.time_base or 0)
    try:
        for packet, seconds, opens in packets(container, stream):
            first = min(first, seconds) if count else seconds
            last = max(last, seconds) if count else seconds
            stop = max(stop, seconds + (packet.duration or 0) * tick_seconds) if count else seconds
            if opens:
                groups.append(seconds)
            if rotation is None and count < FIRST_LOOK_PACKETS:
                rotation = _rotation(packet)
            count += 1
    except (av.FFmpegError, OSError) as error:
        broken = f"reading broke off after {last - first:.2f} s: {_reason(error)}"
    notes = [note for note in (broken, _shortfall(container, stream, last, stop), _left_out(container)) if note]
    starts = np.frombuffer(groups, np.float64) - first
    stop_seconds = max(stop, last + _frame_seconds(stream)) - first
    return PacketIndex(tick_seconds, first, starts, last - first, stop_seconds, count, rotation or 0, tuple(notes))


def _rotation(packet: Packet[VideoStream]) -> int | None:
    """The first decoded frame's rotation, counterclockwise in degrees; None while there is no frame."""
    try:
        frames = packet.decode()
    except (av.FFmpegError, OSError):
        return None
    return round(frames[0].rotation / 90) % 4 * 90 if frames else None


def upright(rgb: NDArray[np.uint8], rotation_degrees: float) -> NDArray[np.uint8]:
    """An (H, W, 3) frame turned counterclockwise by the nearest right angle."""
    turns = round(rotation_degrees / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _frame_seconds(stream: VideoStream) -> float:
    return 1 / float(stream.average_rate) if stream.average_rate else 0.0


def _shortfall(container: InputContainer, stream: VideoStream, last: float, stop: float) -> str:
    """A sentence if the file ends long before the end it declares. A longer sound track is no damage."""
    tick_seconds = float(stream.time_base or 0)
    start = (stream.start_time or 0) * tick_seconds
    if stream.duration:
        declared = start + stream.duration * tick_seconds
    elif container.duration and len(container.streams) == 1:
        declared = ((container.start_time or 0) + container.duration) / av.time_base
    else:
        return ""
    missing = declared - max(stop, last)
    if missing <= max(SHORT_SECONDS, SHORT_SHARE * (declared - start)):
        return ""
    return f"the file is cut off: it ends after {max(stop, last) - start:.2f} s of the {declared - start:.2f} s it declares"


def _reason(error: Exception) -> str:
    """What went wrong, without the name that PyAV appends."""
    return str(getattr(error, "strerror", None) or error)
