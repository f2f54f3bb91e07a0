"""Submissions: bytes stored once, a row per path, and a path that cannot be read disturbs no other."""

from __future__ import annotations

import os
from hashlib import sha256

import pytest
from sqlalchemy import func, select

from farm.db.models import Dataset, Model, Scan, ScanVideo, Video
from farm.errors import BadInput, BadModel, NothingToScan, StorageAway
from farm.jobs import submit as submitting
from farm.jobs.cancel import cancel
from farm.jobs.claim import LeaseLost, claim
from farm.jobs.models import find_model, register_model
from farm.jobs.progress import progress, unfinished, wait
from farm.jobs.record import finish_split
from farm.jobs.rescan import rescan
from farm.jobs.sources import Source
from farm.jobs.submit import open_scan, submit
from farm.jobs.work import adopt, adoptable, split_work
from farm.split import Recipe


def test_the_same_bytes_under_three_names_are_stored_and_split_once_and_give_three_results(farm, rows, tmp_path):
    scan_id = rows.submit(tmp_path / "in", {"a.mp4": b"same", "b.mp4": b"same", "c.mp4": b"same", "d.mp4": b"other"})

    videos, paths = rows.videos(scan_id), rows.paths(scan_id)
    assert len(videos) == rows.scan(scan_id).videos_total == 2
    assert [path.name for path in paths] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    assert len({path.scan_video_id for path in paths[:3]}) == 1
    assert sorted(farm.store.list("videos/")) == sorted(f"videos/{sha256(b).hexdigest()}" for b in (b"same", b"other"))


def test_a_path_that_cannot_be_read_is_a_row_with_its_reason_and_the_others_go_on(farm, rows, tmp_path):
    (tmp_path / "good.mp4").write_bytes(b"x")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ["missing.mp4", "good.mp4", "folder.mp4", "pipe.mp4", "nul\x00.mp4", "x" * 300 + ".mp4"]
    scan_id = submit(farm, [Source(str(tmp_path / name), name) for name in names], recipe=Recipe())

    errors = [path.error for path in rows.paths(scan_id)]
    assert errors[0] == "cannot be read: No such file or directory"
    assert errors[1] is None
    assert errors[2:4] == ["is a folder", "is not a file"]
    assert errors[4].startswith("cannot be read") and errors[5] == "cannot be read: File name too long"
    assert rows.scan(scan_id).videos_total == 1


def test_a_scan_of_nothing_but_unreadable_paths_ends_at_once(farm, rows):
    scan_id = submit(farm, [Source("/no/such.mp4", "such.mp4")], recipe=Recipe())

    assert rows.scan(scan_id).state == "done"


def test_names_with_newlines_and_undecodable_bytes_are_kept_readable(farm, rows, tmp_path):
    odd = os.fsdecode(b"a\nb\xff.mp4")
    (tmp_path / odd).write_bytes(b"x")
    scan_id = submit(farm, [Source(str(tmp_path / odd), odd)], recipe=Recipe())

    assert rows.paths(scan_id)[0].name == "a\nb\\xff.mp4"
    assert rows.paths(scan_id)[0].error is None


def test_a_file_that_changes_while_it_is_read_is_not_taken(farm, rows, tmp_path, monkeypatch):
    path = tmp_path / "growing.mp4"
    path.write_bytes(b"x")
    store = farm.store.put_file

    def grow(key, file):
        stored = store(key, file)
        path.write_bytes(b"x and more")
        return stored

    monkeypatch.setattr(type(farm.store), "put_file", lambda _self, key, file: grow(key, file))
    scan_id = submit(farm, [Source(str(path), "growing.mp4")], recipe=Recipe())

    assert "changed while it was read" in rows.paths(scan_id)[0].error


def test_rows_come_in_chunks_and_work_may_begin_before_the_submission_ends(farm, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(submitting, "CHUNK_PATHS", 2)
    seen = []
    contents = {f"{i}.mp4": bytes([i]) for i in range(5)}
    scan_id = rows.submit(tmp_path / "in", contents, on_progress=lambda n: seen.append((n, unfinished(farm))))

    assert [n for n, _ in seen] == [2, 4, 5]
    assert rows.scan(scan_id).videos_total == 5
    assert [path.position for path in rows.paths(scan_id)] == list(range(5))


def test_a_scan_cannot_end_while_paths_are_still_added(farm, rows, card_path):
    model_id = register_model(farm, card_path)
    scan_id = open_scan(farm, model_id, "simulated", Recipe(), dataset=None, priority=6)
    submitting._add(farm, scan_id, 0, [submitting._Stored(Source("a", "a"), "0" * 64, 1)])
    rows.split(rows.videos(scan_id)[0], batches=0)

    assert (rows.scan(scan_id).state, rows.scan(scan_id).videos_done) == ("submitting", 1)
    submitting.close_submission(farm, scan_id)
    assert rows.scan(scan_id).state == "done"


def test_a_full_disk_stops_the_submission_with_its_reason_and_leaves_no_open_scan(
    farm, rows, card_path, tmp_path, monkeypatch
):
    def full(_self, _key, _path):
        raise StorageAway("the disk is full")

    register_model(farm, card_path)
    monkeypatch.setattr(type(farm.store), "put_file", full)
    with pytest.raises(StorageAway, match="the disk is full"):
        rows.submit(tmp_path / "in", {"a.mp4": b"a"}, model="test-net")
    assert unfinished(farm) == []


def test_datasets_labels_and_the_recipe_stand_with_the_scan(farm, rows, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    source = Source(str(tmp_path / "a.mp4"), "a.mp4", "FAKE", {"original": "b.mp4"})
    first, second = (submit(farm, [source], recipe=Recipe(), dataset="pairs") for _ in range(2))

    with farm.sessions() as session:
        assert session.scalars(select(Dataset.name)).all() == ["pairs"]
        scans = session.scalars(select(Scan).order_by(Scan.id)).all()
    assert scans[0].dataset_id == scans[1].dataset_id is not None
    assert scans[0].recipe == Recipe().to_json() and scans[0].recipe_sha256 == Recipe().sha256
    assert (rows.paths(first)[0].label, rows.paths(second)[0].attributes) == ("FAKE", {"original": "b.mp4"})
    with farm.sessions() as session:
        assert session.scalar(select(func.count()).select_from(Video)) == 1


def test_wrong_arguments_are_refused(farm, rows, tmp_path):
    with pytest.raises(BadInput, match="priority is 10"):
        rows.submit(tmp_path / "in", {"a.mp4": b"a"}, priority=10)
    with pytest.raises(BadInput, match="no model 'nosuch' is registered; known: none"):
        rows.submit(tmp_path / "in", {"a.mp4": b"a"}, model="nosuch")
    with pytest.raises(NothingToScan):
        submit(farm, [], recipe=Recipe())
    assert unfinished(farm) == []


def test_a_model_is_registered_once_and_found_by_name_and_version(farm, card_path):
    model_id = register_model(farm, card_path)

    assert register_model(farm, card_path) == find_model(farm, "test-net") == find_model(farm, "test-net@1") == model_id
    with farm.sessions() as session:
        assert farm.store.get(session.get_one(Model, model_id).object_key) == b"no weights at all"


def test_other_weights_under_a_known_version_are_refused(farm, card_path):
    register_model(farm, card_path)
    weights = card_path.with_name("test-net.onnx")
    weights.write_bytes(b"others")
    with pytest.raises(BadModel, match="their card says"):
        register_model(farm, card_path)
    card_path.write_text(
        card_path.read_text().replace(sha256(b"no weights at all").hexdigest(), sha256(b"others").hexdigest())
    )
    with pytest.raises(BadModel, match="give the new ones a new version"):
        register_model(farm, card_path)


def test_a_rescan_names_the_same_paths_and_stores_no_bytes_again(farm, rows, tmp_path):
    old = rows.submit(tmp_path / "in", {"a.mp4": b"same", "b.mp4": b"same", "c.mp4": b"c"}, dataset="pairs")
    submit(farm, [Source("/no.mp4", "no.mp4")], recipe=Recipe())
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / "in" / name).unlink()
    new = rescan(farm, old)

    assert [(p.position, p.name, p.error) for p in rows.paths(new)] == [
        (p.position, p.name, p.error) for p in rows.paths(old)
    ]
    assert {v.video_id for v in rows.videos(new)} == {v.video_id for v in rows.videos(old)}
    assert {p.scan_video_id for p in rows.paths(new)} == {v.id for v in rows.videos(new)}
    scan, before = rows.scan(new), rows.scan(old)
    assert (scan.rescan_of, scan.dataset_id, scan.state) == (old, before.dataset_id, "active")
    assert (scan.videos_total, scan.recipe_sha256) == (2, before.recipe_sha256)


def test_a_rescan_keeps_the_errors_of_paths_that_were_unreadable(farm, rows, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")
    old = submit(farm, [Source("/no.mp4", "no.mp4"), Source(str(tmp_path / "a.mp4"), "a.mp4")], recipe=Recipe())

    assert [bool(path.error) for path in rows.paths(rescan(farm, old))] == [True, False]


def test_an_unknown_scan_can_be_neither_rescanned_nor_cancelled_nor_watched(farm):
    for action in (rescan, cancel, progress):
        with pytest.raises(BadInput, match="there is no scan 99"):
            action(farm, 99)


def test_a_split_of_the_same_bytes_and_recipe_is_adopted_with_its_crops(farm, rows, tmp_path):
    old = rows.submit(tmp_path / "in", {"a.mp4": b"a"})
    rows.split(rows.videos(old)[0], batches=3)
    for batch in rows.batches(old):
        rows.score(batch)
    new = rescan(farm, old)
    lease = claim(farm, ScanVideo, rows.videos(new)[0].id, "splitter")
    found = adoptable(farm, split_work(farm, lease))
    adopt(farm, lease, found)
    finish_split(farm, lease, found.summary)
    for batch in rows.batches(new):
        rows.score(batch)

    assert [b.object_key for b in rows.batches(new)] == [b.object_key for b in rows.batches(old)]
    assert rows.effect(new) == rows.effect(old)


@pytest.mark.parametrize("why", ["another recipe", "an object is gone", "it never ended"])
def test_a_split_is_not_adopted_where(why, farm, rows, tmp_path):
    old = rows.submit(tmp_path / "in", {"a.mp4": b"a"})
    if why != "it never ended":
        rows.split(rows.videos(old)[0], batches=2)
    new = rescan(farm, old, sampling="fps:1" if why == "another recipe" else "")
    if why == "an object is gone":
        farm.store.delete(rows.batches(old)[1].object_key)
    lease = claim(farm, ScanVideo, rows.videos(new)[0].id, "splitter")

    assert adoptable(farm, split_work(farm, lease)) is None


def test_a_cancelled_scan_starts_nothing_drops_what_is_held_and_keeps_what_is_decided(farm, rows, tmp_path):
    scan_id = rows.submit(tmp_path / "in", {"a.mp4": b"a", "b.mp4": b"b", "c.mp4": b"c"})
    decided, held, ready = rows.videos(scan_id)
    rows.split(decided, batches=0)
    lease = claim(farm, ScanVideo, held.id, "splitter")

    assert cancel(farm, scan_id)
    assert not cancel(farm, scan_id)
    assert [video.state for video in rows.videos(scan_id)] == ["done", "cancelled", "cancelled"]
    assert claim(farm, ScanVideo, ready.id, "late") is None
    with pytest.raises(LeaseLost):
        finish_split(farm, lease, {})
    now = wait(farm, scan_id)
    assert (now.state, now.videos_done, now.verdicts["NO_FACE"]) == ("cancelled", 1, 1)


def test_an_engine_that_does_not_exist_is_refused_before_anything_is_stored(farm, rows):
    with pytest.raises(BadInput, match="no engine 'abacus'"):
        submit(farm, [Source("/no/such.mp4", "such.mp4")], engine="abacus", recipe=Recipe())
    with farm.sessions() as session:
        assert session.scalar(select(func.count()).select_from(Scan)) == 0
