"""A folder of everything that goes wrong, through a whole farm: a result with its reason for each, and the good clip undisturbed."""

from __future__ import annotations

import av
import numpy as np
import pytest

from farm.db.results import scan_results
from farm.embedded import EmbeddedFarm
from farm.jobs.recipe import recipe_of
from farm.jobs.sources import Source, expand
from farm.jobs.submit import submit
from farm.samples import write_samples


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Name -> result of one scan of good and bad paths."""
    folder = tmp_path_factory.mktemp("in")
    clips = tmp_path_factory.mktemp("clips")
    write_samples(clips)
    good = (clips / "portrait.mp4").read_bytes()
    (folder / "good.mp4").write_bytes(good)
    (folder / "the same.mp4").write_bytes(good)
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video\n" * 50)
    (folder / "half.mp4").write_bytes(good[: len(good) // 2])
    (folder / ("n" * 251 + ".mp4")).write_bytes(b"x")
    (folder / "two\nlines.mp4").write_bytes(b"y")
    write_sound(folder / "sound.mp4")
    write_frame(folder / "one frame.mp4")
    missing = Source(str(folder / "missing.mp4"), "missing.mp4")
    with EmbeddedFarm(
        tmp_path_factory.mktemp("home"), engine="simulated", simulated_crops_per_second=5000.0
    ) as embedded:
        scan_id = submit(embedded.farm, [*expand([folder]), missing], recipe=recipe_of(embedded.farm))
        embedded.wait(scan_id)
        with embedded.farm.sessions() as session:
            return {result.name: result for result in scan_results(session, scan_id)}


def write_sound(path):
    with av.open(str(path), "w") as target:
        stream = target.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        target.mux(stream.encode(frame))
        target.mux(stream.encode(None))


def write_frame(path):
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx264", rate=25, width=320, height=240, pix_fmt="yuv420p")
        target.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((240, 320, 3), 90, np.uint8), format="rgb24")))
        target.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("empty.mp4", "empty"),
        ("text.mp4", "no video"),
        ("n" * 251 + ".mp4", ""),
        ("two\nlines.mp4", ""),
        ("sound.mp4", "no video"),
        ("missing.mp4", "No such file"),
    ],
)
def test_what_cannot_be_read_is_unreadable_with_its_reason(results, name, said):
    assert results[name].verdict == "UNREADABLE"
    assert said in " ".join([*(results[name].reasons or ()), results[name].error or ""])


def test_a_single_frame_without_a_face_has_no_face(results):
    assert (results["one frame.mp4"].verdict, results["one frame.mp4"].frames_read) == ("NO_FACE", 1)


def test_the_good_clip_is_not_disturbed_and_counts_under_each_of_its_names(results):
    good, again = results["good.mp4"], results["the same.mp4"]

    assert good.faces > 0 and good.p_fake is not None
    assert (again.verdict, again.p_fake, again.sha256) == (good.verdict, good.p_fake, good.sha256)


def test_half_a_file_is_a_result_whatever_it_is(results):
    assert results["half.mp4"].verdict in ("FAKE", "REAL", "UNCERTAIN", "NO_FACE", "UNREADABLE")
    assert results["half.mp4"].reasons


def test_every_path_has_its_row(results):
    assert len(results) == 10
