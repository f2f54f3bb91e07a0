"""Sample clips made on the spot from the public-domain portrait that scikit-image carries (`skimage.data.astronaut`).

Eileen Collins, photographed by NASA. No picture of anybody is kept in the project. The same versions of the libraries write
the same bytes. Letters in shapes: H and W of a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]

FRAME_RATE = 24
FRAMES = 7 * FRAME_RATE
KEYFRAME_EVERY = 20
"""Frames between key frames: closer than the `keyframes` policy's floor, so that it decodes nothing else."""
ENCODING = {"preset": "veryfast", "crf": "20", "threads": "1", "mbtree": "0"}
"""Of x264. Its macroblock tree gives other bytes at every run where the CPU has AVX-512 (measured), so it is off."""
FACE = (226, 118)
"""x and y of the face's middle in the 512 x 512 px portrait."""
INNER_FACE_PX = (40, 52)
"""Half axes of the ellipse from brow to chin and cheek to cheek."""
SUIT = (300, 400)
"""A place in the portrait without any face."""
SCALE = 1.6


def write_samples(folder: Path) -> list[Path]:
    """Write the sample clips into an existing folder, in about 2 CPU-seconds; answers their paths.

    portrait.mp4 and its twin portrait_manipulated.mp4, two_faces.mp4, no_face.mp4, damaged.mp4, whose index is cut off so that
    nothing can be read, and cut_short.mp4, whose first half can.
    """
    portrait = astronaut()
    twin = manipulated(portrait)
    mirrored = np.ascontiguousarray(portrait[:, ::-1])
    clips: dict[str, Callable[[int], Picture]] = {
        "portrait.mp4": lambda n: moving(portrait, n, FACE, 480),
        "portrait_manipulated.mp4": lambda n: moving(twin, n, FACE, 480),
        "two_faces.mp4": lambda n: np.hstack(
            (moving(portrait, n, FACE, 320), moving(mirrored, n + FRAMES // 3, (511 - FACE[0], FACE[1]), 320))
        ),
        "no_face.mp4": lambda n: moving(portrait, n, SUIT, 480),
    }
    written = []
    for name, frame in clips.items():
        written.append(write_clip(folder / name, map(frame, range(FRAMES))))
    whole = written[0].read_bytes()
    written.append(folder / "damaged.mp4")
    written[-1].write_bytes(whole[: len(whole) // 2])
    written.append(_cut_short(folder / "cut_short.mp4", written[0]))
    return written


def astronaut() -> Picture:
    """The portrait, (512, 512, 3) uint8 RGB."""
    from skimage import data

    return np.asarray(data.astronaut(), np.uint8)


def manipulated(portrait: Picture) -> Picture:
    """The portrait with its inner face replaced by a shifted, softened, recoloured view of itself under a soft ellipse."""
    height, width = portrait.shape[:2]
    turn = cv2.getRotationMatrix2D(FACE, 4.0, 1.06) + np.array([[0, 0, 2.0], [0, 0, -1.5]])
    view = cv2.warpAffine(portrait, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    coarse = cv2.resize(view, (width // 3, height // 3), interpolation=cv2.INTER_AREA)
    view = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    recoloured = np.clip(view.astype(np.float32) * (1.08, 0.97, 0.9) + 6, 0, 255)
    soft = cv2.GaussianBlur(inner_face(height, width).astype(np.float32), (0, 0), 3)[..., None]
    return np.asarray((recoloured * soft + portrait * (1 - soft)).round(), np.uint8)


def inner_face(height: int, width: int) -> NDArray[np.uint8]:
    """Where the portrait's inner face is: (H, W) uint8, 1 inside the ellipse."""
    return np.asarray(cv2.ellipse(np.zeros((height, width), np.uint8), FACE, INNER_FACE_PX, 0, 0, 360, 1, -1))


def moving(picture: Picture, frame: int, towards: tuple[int, int], width: int, height: int = 360) -> Picture:
    """Frame number `frame` of a camera that sways about a place in the picture: (height, width, 3) uint8 RGB."""
    phase = 2 * np.pi * frame / FRAMES
    scale = SCALE * (1 + 0.06 * np.sin(2 * phase))
    across = width / 2 - towards[0] + 18 * np.sin(phase)
    down = height / 2 - towards[1] + 10 * np.sin(2 * phase + 1)
    turn = cv2.getRotationMatrix2D(towards, 4 * np.sin(3 * phase), scale) + np.array([[0, 0, across], [0, 0, down]])
    seen = cv2.warpAffine(picture, turn, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    light = 1 + 0.05 * np.sin(phase + 2)
    return np.asarray(cv2.convertScaleAbs(seen, alpha=light), np.uint8)


def write_clip(path: Path, frames: Iterable[Picture], options: dict[str, str] | None = None) -> Path:
    """Write (H, W, 3) uint8 RGB frames with even sides as H.264 at `FRAME_RATE`; `options` are the container's."""
    ahead: Iterator[Picture] = iter(frames)
    first = next(ahead)
    with av.open(path, "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options=ENCODING)
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = KEYFRAME_EVERY
        for picture in chain((first,), ahead):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def _cut_short(path: Path, whole: Path) -> Path:
    """The first 60 % of a clip that carries its index in front, as a broken download leaves it."""
    with av.open(whole) as source, av.open(path, "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    return path
