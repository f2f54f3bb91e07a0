"""Results are stored exactly once, whatever is repeated, and the last piece decides."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select

from farm.db.models import CropBatchRow, FaceScore, ScanVideo, Track, WorkState
from farm.errors import BadObject
from farm.jobs.claim import LeaseLost, claim
from farm.jobs.fail import fail
from farm.jobs.record import finish_split, record_split_batches


@pytest.fixture
def video(rows, tmp_path):
    return rows.videos(rows.submit(tmp_path / "in", {"one.mp4": b"one"}))[0]


def test_the_last_batch_decides_the_video_and_ends_the_scan(rows, video):
    rows.split(video, batches=2, crops=4)
    first, last = rows.batches(video.scan_id)
    rows.score(last, [9.0, -9.0, 9.0, -9.0])
    assert rows.videos(video.scan_id)[0].verdict is None
    rows.score(first, [9.0, -9.0, 9.0, -9.0])

    decided, scan = rows.videos(video.scan_id)[0], rows.scan(video.scan_id)
    assert (decided.verdict, decided.batches_done, decided.crops_done) == ("FAKE", 2, 8)
    assert (scan.state, scan.videos_fake, scan.videos_done, scan.crops_done) == ("done", 1, 1, 8)
    assert scan.finished_at is not None


def test_scores_before_the_end_of_the_split_wait_for_it(farm, rows, video):
    lease = claim(farm, ScanVideo, video.id, "splitter")
    record_split_batches(farm, lease, [rows.store_batch(video, 0)])
    rows.score(rows.batches(video.scan_id)[0])
    assert rows.videos(video.scan_id)[0].verdict is None, "a further batch may come"

    assert finish_split(farm, lease, {"frames_read": 4, "faces_found": 4}) is not None
    assert rows.scan(video.scan_id).state == "done"


def test_a_video_without_a_face_is_decided_by_its_split(rows, video):
    rows.split(video, batches=0)

    assert rows.videos(video.scan_id)[0].verdict == "NO_FACE"


def test_tracks_add_up_over_batches_and_get_their_calibrated_score(farm, rows, video):
    rows.split(video, batches=2, crops=4)
    for batch, logits in zip(rows.batches(video.scan_id), ([1.0, 5.0, 2.0, 6.0], [3.0, 7.0, 4.0, 8.0]), strict=True):
        rows.score(batch, logits)

    with farm.sessions() as session:
        tracks = session.scalars(select(Track).order_by(Track.track)).all()
    assert [(t.track, t.crops, t.logit_sum, t.logit_max) for t in tracks] == [(0, 4, 10.0, 4.0), (1, 4, 26.0, 8.0)]
    assert [(t.first_pts_seconds, t.last_pts_seconds) for t in tracks] == [(0.0, 0.6), (0.1, 0.7)]
    assert tracks[0].mask_area_sum == pytest.approx(2 * 0.5)
    assert 0 < tracks[0].p_fake < tracks[1].p_fake < 1


def test_a_batch_recorded_by_two_attempts_of_a_split_is_one_row_and_counted_once(farm, rows, video):
    lease = claim(farm, ScanVideo, video.id, "splitter")
    for _ in range(2):
        record_split_batches(farm, lease, [rows.store_batch(video, 0)])

    assert len(rows.batches(video.scan_id)) == 1
    assert rows.videos(video.scan_id)[0].crops_total == rows.scan(video.scan_id).crops_total == 4


def test_scores_of_a_stale_worker_are_dropped(farm, impatient, rows, video):
    rows.split(video, batches=1)
    batch = rows.batches(video.scan_id)[0]
    stale = claim(impatient(lease_seconds=-1.0), CropBatchRow, batch.id, "stale")
    rows.score(batch, [1.0, 1.0, 1.0, 1.0])
    before = rows.effect(video.scan_id)

    with pytest.raises(LeaseLost):
        rows.record(stale, batch, [8.0, 8.0, 8.0, 8.0])
    assert rows.effect(video.scan_id) == before


def test_the_two_last_batches_recorded_at_once_decide_exactly_once(farm, rows, tmp_path):
    scan_id = rows.submit(tmp_path / "in", {f"{i}.mp4": bytes([i]) for i in range(6)})
    for video in rows.videos(scan_id):
        rows.split(video, batches=3)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(rows.score, rows.batches(scan_id)))

    scan = rows.scan(scan_id)
    assert (scan.state, scan.videos_done, scan.crops_done) == ("done", 6, 6 * 3 * 4)
    assert all(v.verdict and v.batches_done == 3 for v in rows.videos(scan_id))
    with farm.sessions() as session:
        assert session.scalar(select(func.count()).select_from(FaceScore)) == 6 * 3 * 4


def test_a_batch_that_cannot_be_scored_is_left_out_and_the_verdict_says_so(farm, rows, video):
    rows.split(video, batches=2)
    good, bad = rows.batches(video.scan_id)
    rows.score(good, [0.0, 0.0, 0.0, 0.0])
    fail(farm, claim(farm, CropBatchRow, bad.id, "card"), BadObject("cut off"))

    decided = rows.videos(video.scan_id)[0]
    assert (decided.verdict, decided.batches_failed) == ("UNCERTAIN", 1)
    assert any("could not be scored" in reason for reason in decided.reasons)
    assert rows.batches(video.scan_id)[1].error == "cut off"


def test_a_video_none_of_whose_batches_could_be_scored_is_uncertain(farm, rows, video):
    rows.split(video, batches=1)
    fail(farm, claim(farm, CropBatchRow, rows.batches(video.scan_id)[0].id, "card"), BadObject("cut off"))

    decided = rows.videos(video.scan_id)[0]
    assert (decided.verdict, decided.p_fake) == ("UNCERTAIN", None)


def test_a_split_that_is_given_up_calls_off_the_batches_nobody_scored(farm, rows, video):
    lease = claim(farm, ScanVideo, video.id, "splitter")
    for position in range(2):
        record_split_batches(farm, lease, [rows.store_batch(video, position)])
    first, second = rows.batches(video.scan_id)
    rows.score(first)
    held = claim(farm, CropBatchRow, second.id, "card")
    fail(farm, lease, BadObject("the stored video is gone"))

    assert [batch.state for batch in rows.batches(video.scan_id)] == [WorkState.DONE, WorkState.CANCELLED]
    with pytest.raises(LeaseLost):
        rows.record(held, second)
    assert rows.videos(video.scan_id)[0].verdict == "UNREADABLE"


def test_the_repeated_split_of_a_killed_worker_leaves_what_one_split_leaves(farm, impatient, rows, tmp_path):
    calm = rows.submit(tmp_path / "calm", {"one.mp4": b"the same"})
    rows.split(rows.videos(calm)[0], batches=3)
    for batch in rows.batches(calm):
        rows.score(batch)

    torn = rows.submit(tmp_path / "torn", {"one.mp4": b"the same"})
    video = rows.videos(torn)[0]
    killed = claim(impatient(lease_seconds=-1.0), ScanVideo, video.id, "killed")
    assert killed is not None
    with farm.sessions.begin() as session:  # it still had its lease when it recorded the first batch
        session.get_one(ScanVideo, video.id).lease_until += 60
    record_split_batches(impatient(lease_seconds=-1.0), killed, [rows.store_batch(video, 0)])
    rows.score(rows.batches(torn)[0])
    rows.split(video, batches=3)
    for batch in rows.batches(torn)[1:]:
        rows.score(batch)

    assert rows.effect(torn) == rows.effect(calm)


def test_a_batch_row_never_names_an_object_that_is_not_there(farm, rows, video):
    rows.split(video, batches=2)

    assert all(farm.store.exists(batch.object_key) for batch in rows.batches(video.scan_id))
