"""Frames out of video files: the right ones, at the right times, upright, and no more decoded than needed."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numbered_clips import number_of, write_clip

from farm.errors import BadInput, BadVideo
from farm.media.video import probe, sample_frames

KINDS = {
    "h264.mp4": "libx264",
    "h264.mov": "libx264",
    "h264.mkv": "libx264",
    "h265.mp4": "libx265",
    "vp9.webm": "libvpx-vp9",
    "av1.mkv": "libsvtav1",
    "mjpeg.avi": "mjpeg",
    "mpeg4.avi": "mpeg4",
    "looped.gif": "gif",
}


def numbers(path: Path, policy: str) -> list[int]:
    return [number_of(rgb) for _, rgb in sample_frames(path, policy)]


@pytest.mark.parametrize("name", KINDS)
def test_every_container_and_codec_gives_all_its_frames_in_order(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, KINDS[name], frames=30)
    source = sample_frames(path, "all")
    seen = [(ref.index, round(ref.pts_seconds, 3), number_of(rgb)) for ref, rgb in source]
    assert seen == [(n, round(n / 25, 3), n) for n in range(30)]
    assert source.notes == ()
    assert source.frames_read == source.expected_frames == 30


@pytest.mark.parametrize("name", KINDS)
def test_every_container_and_codec_says_what_it_is(tmp_path: Path, name: str) -> None:
    info = probe(write_clip(tmp_path / name, KINDS[name], frames=30))
    assert (info.width, info.height, info.frames_found, info.rotation_degrees) == (160, 96, 30, 0)
    assert info.duration_seconds == pytest.approx(1.2, abs=0.05)
    assert info.frame_rate == pytest.approx(25)
    codecs = {"libx264": "h264", "libx265": "hevc", "libvpx-vp9": "vp9", "libsvtav1": "av1"}
    assert info.codec == codecs.get(KINDS[name], KINDS[name])


@pytest.mark.parametrize("name", KINDS)
def test_a_frame_shows_what_its_time_says_under_every_policy(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, KINDS[name], frames=60)
    for policy in ("keyframes", "fps:5", "every:7", "uniform:6"):
        seen = [(round(ref.pts_seconds * 25), number_of(rgb)) for ref, rgb in sample_frames(path, policy)]
        assert all(time == number for time, number in seen), policy
        assert [n for n, _ in seen] == sorted({n for n, _ in seen}), policy


OPEN_GROUPS = {
    "h264.mkv": ("libx264", {"x264-params": "open-gop=1:bframes=3:b-adapt=0:keyint=12:min-keyint=12:scenecut=0"}),
    "h265.mkv": ("libx265", {"x265-params": "log-level=none:pools=none:open-gop=1:bframes=4:keyint=12:min-keyint=12"}),
    "mpeg4.mkv": ("mpeg4", {"bf": "2"}),
}


@pytest.mark.parametrize("name", OPEN_GROUPS)
def test_a_sampled_frame_is_the_one_that_decoding_everything_gives_pixel_for_pixel(tmp_path: Path, name: str) -> None:
    codec, options = OPEN_GROUPS[name]
    path = write_clip(tmp_path / name, codec, frames=100, group=12, options=options, size=(320, 192))
    whole = {round(ref.pts_seconds, 3): rgb for ref, rgb in sample_frames(path, "all")}
    for policy in ("keyframes", "fps:7", "uniform:3", "uniform:5", "uniform:13", "uniform:40"):
        source = sample_frames(path, policy)
        for ref, rgb in source:
            assert np.array_equal(rgb, whole[round(ref.pts_seconds, 3)]), (policy, ref)
        assert source.notes == (), "what leans on a group that was passed over is no damage"
        assert source.frames_read == source.expected_frames


def test_every_nth_fps_and_uniform_choose_the_frames_they_name(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=50)
    assert numbers(path, "every:10") == [0, 10, 20, 30, 40]
    assert numbers(path, "fps:5") == list(range(0, 50, 5))
    assert numbers(path, "uniform:5") == [5, 15, 25, 35, 45]
    assert numbers(path, "fps:100") == list(range(50))
    assert numbers(path, "uniform:400") == list(range(50))


def test_key_frames_alone_are_decoded_where_they_lie_close_enough(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=200, group=20)
    source = sample_frames(path, "keyframes")
    assert [number_of(rgb) for _, rgb in source] == list(range(0, 200, 20))
    assert source.packets_decoded == 10
    assert source.info.frames_found == 200
    source = sample_frames(write_clip(tmp_path / "b.mp4", frames=100, group=12), "keyframes")
    assert [number_of(rgb) for _, rgb in source] == list(range(0, 100, 12))
    assert source.packets_decoded == 9


def test_the_decoder_is_given_key_packets_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=200, group=20)
    source = sample_frames(path, "keyframes")
    given: list[bool] = []
    decode = av.VideoStream.decode

    class Spy:
        """The decoder, watched: PyAV's own classes take no patches."""

        def __init__(self, stream: av.VideoStream) -> None:
            self._stream = stream

        def __getattr__(self, name: str) -> object:
            return getattr(self._stream, name)

        def decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
            if packet is not None:
                given.append(packet.is_keyframe)
            return decode(self._stream, packet)

    real = type(source)._decode
    monkeypatch.setattr(type(source), "_decode", lambda self, stream, packet: real(self, Spy(stream), packet))
    assert len(list(source)) == 10
    assert given == [True] * 10


def test_sparse_key_frames_are_filled_in_evenly(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=250, group=1000)
    seen = [ref.pts_seconds for ref, _ in sample_frames(path, "keyframes")]
    assert len(seen) >= 8
    assert max(np.diff([*seen, 10.0])) <= 2.0
    assert np.diff(seen).std() < 0.06


def test_dense_key_frames_are_thinned(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", "mjpeg", frames=250)
    source = sample_frames(path, "keyframes")
    seen = [ref.pts_seconds for ref, _ in source]
    assert min(np.diff(seen)) >= 0.5 - 1e-6
    assert source.packets_decoded == len(seen) == 20


def test_a_short_file_gives_all_it_has(tmp_path: Path) -> None:
    assert numbers(write_clip(tmp_path / "a.mp4", frames=5), "keyframes") == [0, 1, 2, 3, 4]
    one = write_clip(tmp_path / "b.mp4", frames=1)
    for policy in ("keyframes", "fps:3", "every:9", "uniform:4", "all"):
        assert numbers(one, policy) == [0], policy


def test_uneven_frames_keep_their_own_times(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.08, 1.0, 1.5, 1.54, 3.0, 3.2, 4.0, 5.0]
    path = write_clip(tmp_path / "a.mkv", frames=10, times=times)
    assert [ref.pts_seconds for ref, _ in sample_frames(path, "all")] == pytest.approx(times, abs=0.002)
    at = [(ref.pts_seconds, number_of(rgb)) for ref, rgb in sample_frames(path, "fps:1")]
    assert [n for _, n in at] == [0, 3, 6, 8, 9], "the first frame at or after each full second"


def test_one_time_stamp_years_off_costs_no_memory_and_hides_no_frame(tmp_path: Path) -> None:
    times = [n / 25 for n in range(30)] + [3e10]
    path = write_clip(tmp_path / "a.mkv", frames=31, times=times)
    for policy in ("keyframes", "fps:240"):
        assert set(range(31)) >= set(numbers(path, policy)) >= set(range(30)), policy


def test_of_several_pictures_at_once_the_one_that_players_show_is_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(path, "w") as file:
        streams = [file.add_stream("libx264", rate=25, options={"preset": "veryfast"}) for _ in range(2)]
        for stream, size in zip(streams, (64, 96), strict=True):
            stream.width = stream.height = size
            stream.pix_fmt = "yuv420p"
        streams[0].disposition = av.stream.Disposition(0)
        streams[1].disposition = av.stream.Disposition.default
        for stream in streams:
            grey = av.VideoFrame.from_ndarray(np.full((stream.height, stream.width, 3), 90, np.uint8))
            file.mux(stream.encode(grey))
            file.mux(stream.encode())
    source = sample_frames(path, "all")
    assert source.info.width == 96
    assert any("2 video streams" in note for note in source.notes)


def test_times_count_from_the_first_frame_wherever_the_clock_starts(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", frames=10, times=[100 + n / 10 for n in range(10)])
    refs = [ref.pts_seconds for ref, _ in sample_frames(path, "all")]
    assert refs == pytest.approx([n / 10 for n in range(10)], abs=0.002)
    assert probe(path).duration_seconds < 1.5


@pytest.mark.parametrize("degrees", [0, 90, 180, -90])
def test_a_turned_video_is_shown_as_opencv_shows_it(tmp_path: Path, degrees: int) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=3, rotation=degrees)
    other = cv2.VideoCapture(str(path))
    expected = cv2.cvtColor(other.read()[1], cv2.COLOR_BGR2RGB)
    other.release()
    _, rgb = next(iter(sample_frames(path, "all")))
    assert rgb.shape == expected.shape
    assert np.abs(rgb.astype(int) - expected.astype(int)).mean() < 5
    info = probe(path)
    assert (info.height, info.width) == rgb.shape[:2]
    assert info.rotation_degrees == degrees % 360


def test_iterating_twice_gives_the_same_pixels(tmp_path: Path) -> None:
    source = sample_frames(write_clip(tmp_path / "a.mp4", frames=60, group=1000), "keyframes")
    first, second = list(source), list(source)
    assert [ref for ref, _ in first] == [ref for ref, _ in second]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(first, second, strict=True))


def test_a_file_cut_off_gives_what_decodes_and_says_so(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=100, container={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    source = sample_frames(path, "all")
    seen = [number_of(rgb) for _, rgb in source]
    assert 20 < len(seen) < 90
    # Where the cut falls depends on the encoder's bytes: a last P-frame may be whole while the B-frames shown before it are gone.
    assert seen[:-1] == list(range(len(seen) - 1)) and seen[-1] - seen[-2] <= 3
    assert any("cut off" in note and "of the 4.00 s" in note for note in source.notes)


def test_a_stream_cut_off_in_the_middle_of_a_packet_gives_what_decodes(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mkv", frames=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    source = sample_frames(path, "keyframes")
    assert 1 <= len(list(source)) < 12
    assert any("cut off" in note for note in source.notes)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_damaged_frames_and_those_built_on_them_are_left_out_and_counted(tmp_path: Path, seed: int) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=100, group=20, options={"crf": "4"}, size=(320, 192))
    whole = {round(ref.pts_seconds, 3): rgb for ref, rgb in sample_frames(path, "all")}
    content = bytearray(path.read_bytes())
    start = content.find(b"mdat") + 4
    length = int.from_bytes(content[start - 8 : start - 4], "big")
    for at in np.random.default_rng(seed).integers(start + length // 4, start + length - 400, 2):
        content[at : at + 300] = bytes(300)
    path.write_bytes(content)
    source = sample_frames(path, "all")
    good = list(source)
    assert 20 < len(good) < 100
    for ref, rgb in good:
        assert np.abs(rgb.astype(int) - whole[round(ref.pts_seconds, 3)]).mean() < 2, ref
    assert any("damaged" in note for note in source.notes)


def test_a_file_of_which_no_frame_decodes_is_bad(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", "mpeg4", frames=10)
    content = bytearray(path.read_bytes())
    start, end = content.find(b"movi"), content.find(b"idx1")
    for at in range(start + 12, end):
        content[at] = 0 if content[at : at + 4] != b"00dc" else content[at]
    path.write_bytes(content)
    with pytest.raises(BadVideo, match=r"not one frame|no video|without a single frame|no frame size"):
        list(sample_frames(path, "all"))


def write_audio(path: Path) -> Path:
    with av.open(path, "w") as file:
        stream = file.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(BadVideo, match="no video in it, only audio"):
        probe(write_audio(tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"these are words, no pictures\n" * 40, "no video file"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(500), "no video file|no video in it"),
        (os.urandom(5000), "no video file"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/a.ts\n", "no video file"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "no video file"),
    ],
    ids=["empty", "text", "header alone", "noise", "playlist", "concat list"],
)
def test_what_is_no_video_is_refused_with_a_reason(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(BadVideo, match=message):
        probe(path)


def test_a_list_of_other_files_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_clip(tmp_path / "secret.mkv", frames=3)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "a.mp4"
    path.write_bytes(b"ffconcat version 1.0\nfile secret.mkv\n")
    with pytest.raises(BadVideo, match="no video file"):
        probe(path)


def test_a_missing_path_a_folder_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(BadVideo, match="No such file"):
        probe(tmp_path / "missing.mp4")
    with pytest.raises(BadVideo, match="is not a file"):
        probe(tmp_path)
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(BadVideo, match="is not a file"):
        probe(tmp_path / "pipe.mp4")


@pytest.mark.parametrize(
    "name",
    ["two\nlines.mp4", "concat:a|b.mp4", "http:nowhere.mp4", "%05d.mp4", "ünï😀.mp4", "-i.mp4", "x" * 251 + ".mp4"],
)
def test_a_name_is_only_a_name(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=3).rename(tmp_path / name)
    assert numbers(path, "all") == [0, 1, 2]


def test_a_name_that_is_no_text_is_only_a_name(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff\xfe.mp4")
    write_clip(tmp_path / "a.mp4", frames=3).rename(path)
    assert numbers(path, "all") == [0, 1, 2]
    path.write_bytes(b"")
    with pytest.raises(BadVideo) as refused:
        probe(path)
    str(refused.value).encode()


def test_a_name_of_300_characters_is_refused_and_stays_on_one_line(tmp_path: Path) -> None:
    with pytest.raises(BadVideo, match="too long"):
        probe(tmp_path / ("x" * 300))
    with pytest.raises(BadVideo, match=r"two\\nlines"):
        probe(tmp_path / "two\nlines.mp4")


def enlarged(path: Path, width: int, height: int) -> Path:
    """A GIF whose header claims another size."""
    content = bytearray(path.read_bytes())
    content[6:10] = struct.pack("<HH", width, height)
    path.write_bytes(content)
    return path


def test_enormous_frames_are_refused_before_memory_is_taken(tmp_path: Path) -> None:
    gif = write_clip(tmp_path / "a.gif", "gif", frames=3)
    with pytest.raises(BadVideo, match=r"15000 x 15000 px, more than the\s+100,000,000"):
        probe(enlarged(gif, 15000, 15000))
    with pytest.raises(BadVideo, match="far larger than the 100,000,000"):
        probe(enlarged(gif, 20000, 20000))


def test_the_bound_on_frames_can_be_set(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", frames=3)
    with pytest.raises(BadVideo, match="160 x 96 px, more than the 10,000"):
        sample_frames(path, "all", max_frame_pixels=10_000)


def test_a_bad_policy_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="uniform:N"):
        sample_frames(write_clip(tmp_path / "a.mp4", frames=1), "sometimes")
