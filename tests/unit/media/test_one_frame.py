"""One frame by its time: the very frame that was sampled, in every container."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from farm.errors import BadVideo
from farm.media.one_frame import frame_at
from farm.media.video import sample_frames

PIXELS = 100_000_000
KINDS = {
    "b-frames.mp4": ("libx264", "yuv420p", {"bf": "3", "g": "12"}),
    "one-keyframe.mkv": ("libx264", "yuv420p", {"g": "1000"}),
    "web.webm": ("libvpx-vp9", "yuv420p", {"g": "8", "deadline": "realtime"}),
    "intra.avi": ("mjpeg", "yuvj420p", {}),
    "stream.ts": ("mpeg2video", "yuv420p", {"g": "10"}),
    "looped.gif": ("gif", "rgb8", {}),
}


def picture(i: int) -> NDArray[np.uint8]:
    rgb = np.full((96, 128, 3), 40, np.uint8)
    rgb[20:60, 4 * i : 4 * i + 20] = (200, 30 + 6 * i, 60)
    return rgb


def write(path: Path, codec: str, pixel_format: str, options: dict[str, str], first: int = 0) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, pixel_format
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame.pts, frame.time_base = first + i + i // 7, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", KINDS)
def test_every_sampled_frame_is_found_again_by_its_time(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, *KINDS[name])
    sampled = list(sample_frames(path, "every:4"))
    assert len(sampled) > 4
    for ref, rgb in sampled:
        assert np.array_equal(frame_at(path, ref.pts_seconds, PIXELS), rgb)


def test_times_count_from_the_first_frame_wherever_the_stream_starts(tmp_path: Path) -> None:
    path = write(tmp_path / "late.mkv", "libx264", "yuv420p", {"g": "5"}, first=300)
    for ref, rgb in sample_frames(path, "uniform:5"):
        assert np.array_equal(frame_at(path, ref.pts_seconds, PIXELS), rgb)


def test_a_time_that_no_frame_has_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", *KINDS["b-frames.mp4"])
    with pytest.raises(BadVideo, match=r"shows no frame at 99\.000 s"):
        frame_at(path, 99.0, PIXELS)


def test_a_file_cut_off_in_the_middle_still_shows_what_it_has(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.mkv", *KINDS["one-keyframe.mkv"])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    ref, rgb = list(sample_frames(path, "all"))[-3]
    assert np.array_equal(frame_at(path, ref.pts_seconds, PIXELS), rgb)
