"""Does a splitter's memory grow with a video's length? Splits one minute and two hours of 1080p, each in a fresh process.

One group of pictures is encoded once and its packets are written again and again with later times, so that the long file
is made in seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.packet import Packet
from numpy.typing import NDArray

from farm.media.batches import encode_batch
from farm.media.faces import open_detector
from farm.samples import FACE, astronaut
from farm.split import Recipe, split

WIDTH, HEIGHT, FRAME_RATE, GROUP = 1920, 1080, 30, 60


def make_video(path: Path, seconds: int) -> None:
    """Write H.264 of this length: a face that sways with a period of one group of pictures, two seconds."""
    with av.open(path, "w") as container:
        options = {"preset": "veryfast", "crf": "28", "threads": "1"}
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", GROUP
        group = [
            p for picture in _pictures() for p in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24"))
        ]
        group += stream.encode(None)
        container.start_encoding()
        for number in range(seconds * FRAME_RATE // GROUP):
            for packet in group:
                copy = _later(packet, number * GROUP)
                copy.stream = stream
                container.mux(copy)


def _pictures() -> Iterator[NDArray[np.uint8]]:
    portrait = astronaut()
    for frame in range(GROUP):
        turn = np.array([[2.0, 0, WIDTH / 2 - 2 * FACE[0]], [0, 2.0, HEIGHT / 2 - 2 * FACE[1]]])
        turn[0, 2] += 200 * np.sin(2 * np.pi * frame / GROUP)
        yield np.asarray(cv2.warpAffine(portrait, turn, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT), np.uint8)


def _later(packet: Packet, frames: int) -> Packet:
    """The same coded picture, so many frames later."""
    copy = Packet(bytes(packet))
    tick = Fraction(1, FRAME_RATE) / packet.time_base
    copy.time_base, copy.is_keyframe, copy.duration = packet.time_base, packet.is_keyframe, packet.duration
    copy.pts, copy.dts = int(packet.pts + frames * tick), int(packet.dts + frames * tick)
    return copy


def split_here(path: Path) -> dict[str, float]:
    """Split in this process as a splitter does; answers crops, CPU-seconds and the peak of resident memory in MiB."""
    detector = open_detector()
    run = split(path, Recipe(), detector)
    for batch in run:
        encode_batch(batch)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seen = run.summary
    return {
        "frames": seen.info.frames_found,
        "frames_read": seen.frames_read,
        "crops": seen.crops,
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mib": round(used.ru_maxrss / 1024, 1),
    }


def measure(folder: Path, seconds: int) -> dict[str, float]:
    path = folder / f"{seconds}_seconds.mp4"
    began = time.monotonic()
    make_video(path, seconds)
    made = time.monotonic() - began
    command = [sys.executable, "-m", "bench.split_memory", "--child", str(path)]
    child = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    row: dict[str, float] = json.loads(child.stdout)
    return {"seconds": seconds, "megabytes": round(path.stat().st_size / 1e6, 1), "made_in": round(made, 1)} | row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", type=int, default=60, help="seconds of the short video")
    parser.add_argument("--long", type=int, default=7200, help="seconds of the long video")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        print(json.dumps(split_here(chosen.child)))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure(Path(folder), seconds) for seconds in (chosen.short, chosen.long)]
    print("  ".join(f"{name:>12}" for name in rows[0]))
    for row in rows:
        print("  ".join(f"{value:>12}" for value in row.values()))
    print(json.dumps({"ratio": round(rows[1]["peak_mib"] / rows[0]["peak_mib"], 3), "short": rows[0], "long": rows[1]}))


if __name__ == "__main__":
    main()
