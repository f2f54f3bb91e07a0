"""What a rescan with another network shows, on both databases: verdicts and scores before and after, and their sums."""

from __future__ import annotations

import tracemalloc

import pytest
from model_cards import write_card
from sqlalchemy import insert

from farm.db.models import ScanPath
from farm.db.results import VerdictChange, change_counts, rescan_of, scan_changes
from farm.errors import BadInput
from farm.jobs.models import register_model
from farm.jobs.rescan import rescan
from farm.jobs.sources import Source
from farm.jobs.submit import submit
from farm.split import Recipe


@pytest.fixture
def scored(farm, rows, tmp_path):
    """Scans a folder's videos with logits by content, and repeats that with another network and other logits."""
    register_model(farm, write_card(tmp_path / "newer", "newer", b"newer"))

    def score(scan_id: int, logits: dict[str, float]) -> None:
        named = {path.scan_video_id: path.name for path in rows.paths(scan_id) if path.name in logits}
        for video in rows.videos(scan_id):
            rows.split(video, batches=1, crops=16)
        for batch in rows.batches(scan_id):
            rows.score(batch, [logits[named[batch.scan_video_id]]] * 16)

    def scans(before: dict[str, float], after: dict[str, float]) -> tuple[int, int]:
        (tmp_path / "in").mkdir()
        for name, content in (("a", b"a"), ("b", b"b"), ("same as a", b"a")):
            (tmp_path / "in" / name).write_bytes(content)
        sources = [Source(str(tmp_path / "in" / name), name, "FAKE") for name in ("a", "gone", "b", "same as a")]
        first = submit(farm, sources, recipe=Recipe())
        score(first, before)
        second = rescan(farm, first, model="newer")
        score(second, after)
        return first, second

    return scans


def test_every_path_has_its_verdict_and_score_before_and_after(farm, scored):
    first, second = scored({"a": -20.0, "b": 0.5}, {"a": 20.0, "b": 0.5})
    with farm.sessions() as session:
        changes = list(scan_changes(session, second, first))

    assert [(each.name, each.verdict_before, each.verdict_after) for each in changes] == [
        ("a", "REAL", "FAKE"),
        ("gone", "UNREADABLE", "UNREADABLE"),
        ("b", "UNCERTAIN", "UNCERTAIN"),
        ("same as a", "REAL", "FAKE"),
    ]
    assert [each.changed for each in changes] == [True, False, False, True]
    assert changes[0].p_fake_before is not None and changes[0].p_fake_after is not None
    assert changes[0].p_fake_before < 0.01 and changes[0].p_fake_after > 0.99
    assert (changes[1].p_fake_before, changes[1].p_fake_after, changes[1].sha256) == (None, None, None)
    assert (changes[2].model_before, changes[2].model_after, changes[2].label) == ("test-net@1", "newer@1", "FAKE")
    assert (changes[2].scan_before, changes[2].scan_after, changes[2].position) == (first, second, 2)


def test_the_sums_say_from_which_verdict_to_which_with_the_changed_ones_first(farm, scored):
    first, second = scored({"a": -20.0, "b": 0.5}, {"a": 20.0, "b": 0.5})
    with farm.sessions() as session:
        assert change_counts(session, second, first) == [
            VerdictChange("REAL", "FAKE", 2),
            VerdictChange("UNCERTAIN", "UNCERTAIN", 1),
            VerdictChange("UNREADABLE", "UNREADABLE", 1),
        ]
        assert change_counts(session, first, second)[0] == VerdictChange("FAKE", "REAL", 2)
        assert (rescan_of(session, second), rescan_of(session, first)) == (first, None)


def test_what_is_undecided_or_not_in_the_other_scan_says_so(farm, rows, tmp_path):
    first = rows.submit(tmp_path / "in", {"a.mp4": b"a"})
    second = rows.submit(tmp_path / "in", {"a.mp4": b"a", "new.mp4": b"new"})
    with farm.sessions() as session:
        changes = [
            (each.name, each.verdict_before, each.verdict_after) for each in scan_changes(session, second, first)
        ]
    assert changes == [("a.mp4", "PENDING", "PENDING"), ("new.mp4", "ABSENT", "PENDING")]


def test_an_unknown_scan_is_named(farm, rows, tmp_path):
    scan_id = rows.submit(tmp_path / "in", {"a.mp4": b"a"})
    with farm.sessions() as session:
        for pair in ((scan_id, 99), (99, scan_id)):
            with pytest.raises(BadInput, match="no scan 99"):
                list(scan_changes(session, *pair))
            with pytest.raises(BadInput, match="no scan 99"):
                change_counts(session, *pair)


def test_a_long_comparison_is_read_in_pieces(farm, rows, tmp_path):
    count, name_bytes = 5000, 2000
    scans = [rows.submit(tmp_path / "in", {"a.mp4": b"a"}) for _ in range(2)]
    row = {"path": "/in", "name": "x" * name_bytes, "error": "gone"}
    with farm.sessions.begin() as session:
        for scan_id in scans:
            lost = [row | {"scan_id": scan_id, "position": position} for position in range(1, count)]
            session.execute(insert(ScanPath), lost)
    tracemalloc.start()
    try:
        with farm.sessions() as session:
            positions = [each.position for each in scan_changes(session, scans[1], scans[0])]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert positions == list(range(count))
    assert peak < count * name_bytes * 0.7
