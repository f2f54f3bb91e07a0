"""The read side on SQLite and PostgreSQL, against a small farm whose sums were worked out by hand."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.orm import Session, sessionmaker

from farm.contracts import Box
from farm.db.models import CropBatchRow, Dataset, FaceScore, Model, Scan, ScanPath, ScanVideo, Video
from farm.db.results import (
    FailedRow,
    by_dataset,
    by_day,
    by_label,
    face_scores,
    scan_results,
    scan_status,
    verdict_counts,
)
from farm.db.session import open_engine, sessions, upgrade
from farm.errors import BadInput

NEW_YEAR = 1_767_225_600.0  # 2026-01-01T00:00:00Z
DAY = 86_400.0
Factory = sessionmaker[Session]


@pytest.fixture
def factory(database_url: str) -> Iterator[Factory]:
    engine = open_engine(database_url)
    upgrade(engine)
    yield sessions(engine)
    engine.dispose()


def add_scan(session: Session, number: int, **changed: Any) -> None:
    values = {
        "model_id": 1, "engine": "onnx", "recipe": {"sampling": "keyframes"}, "recipe_sha256": "r" * 64, "code_version": "0.1.0",
        "created_at": NEW_YEAR,
    }  # fmt: skip
    session.add(Scan(id=number, **values | changed))
    session.flush()


def add_video(
    session: Session, number: int, scan: int, paths: dict[str, str | None], verdict: str | None, **changed: Any
) -> None:
    """A video of a scan under one or more names, each with its label."""
    session.add(
        Video(id=number, sha256=f"{number:064d}", size_bytes=9, object_key=f"videos/{number:064d}", created_at=NEW_YEAR)
    )
    session.flush()
    values = {
        "state": "done",
        "summary": {"frames_read": 30, "tracks": 2, "duration_seconds": 1.5},
        "decided_at": NEW_YEAR + 60,
    }
    session.add(ScanVideo(id=number, scan_id=scan, video_id=number, verdict=verdict, **values | changed))
    session.flush()
    for name, label in paths.items():
        add_path(session, scan, name, label, scan_video_id=number)


def add_path(session: Session, scan: int, name: str, label: str | None = None, **values: Any) -> None:
    position = session.query(ScanPath).filter_by(scan_id=scan).count()
    session.add(ScanPath(scan_id=scan, position=position, path=f"/in/{name}", name=name, label=label, **values))
    session.flush()


@pytest.fixture
def farm(factory: Factory) -> Factory:
    """Scan 1 (data set street, model uynet@1) and scan 2 (no data set, model uynet@2)."""
    with factory.begin() as session:
        session.add(Dataset(id=1, name="street", created_at=NEW_YEAR))
        for number in (1, 2):
            session.add(
                Model(
                    id=number,
                    name="uynet",
                    version=str(number),
                    sha256=f"{number}" * 64,
                    card={},
                    object_key="m",
                    created_at=0.0,
                )
            )
        session.flush()
        add_scan(session, 1, dataset_id=1, videos_total=5, videos_done=4, crops_total=200, crops_done=170, videos_fake=2, videos_real=1,
                 videos_uncertain=1)  # fmt: skip
        add_video(
            session,
            1,
            1,
            {"a.mp4": "FAKE", "copy of a.mp4": "FAKE"},
            "FAKE",
            p_fake=0.9,
            crops_done=100,
            reasons=["Track 0."],
        )
        add_video(session, 2, 1, {"b.mp4": "REAL"}, "REAL", p_fake=0.1, crops_done=64)
        add_video(session, 3, 1, {"c.mp4": "FAKE"}, "UNCERTAIN", p_fake=0.5, crops_done=6, decided_at=NEW_YEAR + DAY)
        add_video(session, 4, 1, {"d.mp4": "REAL"}, "FAKE", p_fake=0.6, decided_at=NEW_YEAR + DAY - 0.5)
        add_path(session, 1, "missing.mp4", "REAL", error="no such file")
        add_video(session, 5, 1, {"e.mp4": None}, None, state="leased", summary=None, decided_at=None)
        add_scan(session, 2, model_id=2, engine="simulated", crops_done=3)
        add_video(session, 6, 2, {"f.mp4": "REAL"}, "NO_FACE")
        add_video(session, 7, 2, {"g.mp4": None}, None, decided_at=None)
    return factory


def test_every_submitted_path_has_a_result_in_the_order_of_submission(farm: Factory) -> None:
    with farm() as session:
        results = list(scan_results(session, 1))
    assert [result.name for result in results] == [
        "a.mp4",
        "copy of a.mp4",
        "b.mp4",
        "c.mp4",
        "d.mp4",
        "missing.mp4",
        "e.mp4",
    ]
    assert [result.verdict for result in results] == ["FAKE", "FAKE", "REAL", "UNCERTAIN", "FAKE", "UNREADABLE", None]
    assert [result.sha256 and int(result.sha256) for result in results] == [1, 1, 2, 3, 4, None, 5]


def test_a_result_says_what_made_it(farm: Factory) -> None:
    with farm() as session:
        result = next(scan_results(session, 1))
    assert (result.path, result.label, result.p_fake, result.faces) == ("/in/a.mp4", "FAKE", 0.9, 100)
    assert (result.tracks, result.frames_read, result.duration_seconds) == (2, 30, 1.5)
    assert (result.model, result.model_sha256, result.sampling) == ("uynet@1", "1" * 64, "keyframes")
    assert (result.recipe, result.code_version, result.reasons) == ("r" * 64, "0.1.0", ("Track 0.",))
    assert (result.scan, result.position, result.state, result.error) == (1, 0, "done", None)


def test_a_path_that_could_not_be_had_is_unreadable_for_its_reason(farm: Factory) -> None:
    with farm() as session:
        missing = list(scan_results(session, 1))[5]
    assert (missing.verdict, missing.reasons, missing.error, missing.state) == (
        "UNREADABLE",
        ("no such file",),
        "no such file",
        "failed",
    )
    assert (missing.faces, missing.tracks, missing.frames_read, missing.p_fake) == (0, None, None, None)


def test_an_undecided_result_says_how_far_it_is(farm: Factory) -> None:
    with farm() as session:
        states = {result.name: result.state for scan in (1, 2) for result in scan_results(session, scan)}
    assert states["e.mp4"] == "leased"
    assert states["g.mp4"] == "scoring"


def test_a_crashing_video_shows_its_workers_error(farm: Factory) -> None:
    with farm.begin() as session:
        add_video(session, 8, 2, {"h.mp4": None}, "UNREADABLE", state="failed", error="the decoder crashed 3 times")
    with farm() as session:
        crashed = list(scan_results(session, 2))[-1]
    assert (crashed.state, crashed.error) == ("failed", "the decoder crashed 3 times")


def add_batches(
    session: Session, scan_video: int, *scored_by: dict[str, Any] | None, state: str = "done", **values: Any
) -> None:
    for by in scored_by:
        position = session.query(CropBatchRow).filter_by(scan_video_id=scan_video).count()
        batch = {
            "scan_id": 1,
            "scan_video_id": scan_video,
            "position": position,
            "crops": 64,
            "object_key": "k",
            "state": state,
        }
        session.add(CropBatchRow(**batch, scored_by=by, **values))
        session.flush()


def test_the_engine_is_the_one_that_scored_with_its_device_and_the_one_asked_for_until_then(farm: Factory) -> None:
    cpu = {"engine": "onnx", "device": "cpu", "precision": "fp32", "seconds": 1.0}
    card = {"engine": "vart", "device": "0000:3b:00.0", "precision": "int8", "seconds": 0.2}
    with farm.begin() as session:
        add_batches(session, 1, card, cpu | {"seconds": 2.0}, cpu)
        add_batches(session, 2, None, state="ready")
    with farm() as session:
        engines = {result.name: result.engine for result in scan_results(session, 1)}
    assert engines["a.mp4"] == engines["copy of a.mp4"] == "onnx fp32 on cpu, vart int8 on 0000:3b:00.0"
    assert engines["b.mp4"] == "onnx"


def test_a_scan_that_does_not_exist_is_bad_input(farm: Factory) -> None:
    with farm() as session, pytest.raises(BadInput, match="no scan 99"):
        next(scan_results(session, 99))


def test_a_long_scan_is_read_in_pieces_and_none_is_lost_between_them(farm: Factory) -> None:
    count, name_bytes = 5000, 2000
    with farm.begin() as session:
        add_scan(session, 3)
        row = {"scan_id": 3, "path": "/in", "name": "x" * name_bytes, "error": "gone"}
        session.execute(insert(ScanPath), [row | {"position": position} for position in range(count)])
    tracemalloc.start()
    try:
        with farm() as session:
            assert [result.position for result in scan_results(session, 3)] == list(range(count))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < count * name_bytes * 0.7


def test_face_scores_come_in_the_order_of_frames_with_both_boxes(farm: Factory) -> None:
    with farm.begin() as session:
        add_batches(session, 1, {})
        batch = session.query(CropBatchRow.id).scalar()
        places = [(7, 1), (3, 0), (7, 0)]
        for row, (frame, track) in enumerate(places):
            session.add(FaceScore(crop_batch_id=batch, scan_video_id=1, row=row, track=track, frame_index=frame, pts_seconds=frame / 25,
                                  x0=1, y0=2, x1=3, y1=4, crop_x0=-1, crop_y0=0, crop_x1=5, crop_y1=6, confidence=0.9, logit=row - 1.0,
                                  p_fake=0.25, mask_area=0.125))  # fmt: skip
    with farm() as session:
        faces = list(face_scores(session, 1))
        assert list(face_scores(session, 2)) == []
    assert [(face.frame_index, face.track, face.logit) for face in faces] == [(3, 0, 0.0), (7, 0, 1.0), (7, 1, -1.0)]
    assert (faces[0].face_box, faces[0].crop_box) == (Box(1, 2, 3, 4), Box(-1, 0, 5, 6))
    assert (faces[0].pts_seconds, faces[0].p_fake, faces[0].mask_area, faces[0].confidence) == (0.12, 0.25, 0.125, 0.9)


def test_verdicts_are_counted_per_path(farm: Factory) -> None:
    with farm() as session:
        assert verdict_counts(session, 1) == {"FAKE": 3, "REAL": 1, "UNCERTAIN": 1, "UNREADABLE": 1, "PENDING": 1}
        assert list(verdict_counts(session, 2).items()) == [("NO_FACE", 1), ("PENDING", 1)]
        assert verdict_counts(session, 99) == {}


def test_data_sets_are_summed_over_their_scans(farm: Factory) -> None:
    with farm.begin() as session:
        add_scan(session, 3, dataset_id=1, crops_done=30)
        add_video(session, 9, 3, {"again.mp4": None}, "FAKE")
    with farm() as session:
        sums = by_dataset(session)
        assert [row.scans for row in by_dataset(session, 3)] == [1]
    assert [(row.dataset, row.scans, row.videos, row.crops) for row in sums] == [(None, 1, 2, 3), ("street", 2, 8, 200)]
    assert sums[1].verdicts == {"FAKE": 4, "REAL": 1, "UNCERTAIN": 1, "UNREADABLE": 1, "PENDING": 1}


def test_days_are_those_of_utc_and_undecided_videos_have_none(farm: Factory) -> None:
    with farm() as session:
        sums = by_day(session)
        assert [row.videos for row in by_day(session, 2)] == [1]
    assert [(row.day, row.videos) for row in sums] == [(date(2026, 1, 1), 6), (date(2026, 1, 2), 1)]
    assert sums[0].verdicts == {"FAKE": 3, "REAL": 1, "NO_FACE": 1, "UNREADABLE": 1}
    assert sums[1].verdicts == {"UNCERTAIN": 1}


def test_labels_are_met_per_model_with_the_undecided_counted_apart(farm: Factory) -> None:
    with farm() as session:
        first, second = by_label(session)
        assert by_label(session, 2) == [second]
    assert (first.model, first.videos) == ("uynet@1", 6)
    assert first.labelled_fake == {"FAKE": 2, "UNCERTAIN": 1}
    assert first.labelled_real == {"FAKE": 1, "REAL": 1, "UNREADABLE": 1}
    # decided: a, its copy, b, d; right: all but d. Scored FAKE .9 .9 .5, REAL .1 .6: five of six pairs in order
    assert (first.decided, first.accuracy, first.scored) == (4, 0.75, 5)
    assert first.auc == pytest.approx(5 / 6)
    assert first.eer == pytest.approx(1 / 3)
    assert (second.model, second.videos, second.labelled_real) == ("uynet@2", 1, {"NO_FACE": 1})
    assert (second.decided, second.accuracy, second.auc, second.eer) == (0, None, None, None)


def test_made_up_scores_of_a_simulated_card_stand_apart_from_the_real_ones(farm: Factory) -> None:
    with farm() as session:
        (before, *_) = by_label(session)
    with farm.begin() as session:
        add_scan(session, 3, engine="simulated")
        add_video(session, 9, 3, {"a.mp4": "FAKE"}, "REAL", p_fake=0.01)
    with farm() as session:
        sums = by_label(session)
    assert before in sums
    assert [(row.engine, row.videos) for row in sums if row.model == "uynet@1"] == [("onnx", 6), ("simulated", 1)]


def test_a_farm_without_labels_has_no_sums_by_label(factory: Factory) -> None:
    with factory() as session:
        assert by_label(session) == by_dataset(session) == by_day(session) == scan_status(session) == []


def test_status_shows_each_scans_rows_by_state_newest_first_and_what_failed(farm: Factory) -> None:
    with farm.begin() as session:
        add_batches(session, 1, {}, {})
        add_batches(session, 3, None, state="ready")
        add_batches(session, 3, None, state="failed", attempts=3, error="the engine died 3 times")
        add_video(
            session,
            8,
            1,
            {"h.mp4": None, "alias of h.mp4": None},
            "UNREADABLE",
            state="failed",
            attempts=3,
            error="crashed",
        )
    with farm() as session:
        second, first = scan_status(session)
        assert [row.scan for row in scan_status(session, limit=1)] == [2]
        assert [len(row.failed) for row in scan_status(session, failed_rows=1)] == [0, 1]
    assert (first.scan, first.dataset, first.state, first.model, first.engine) == (
        1,
        "street",
        "active",
        "uynet@1",
        "onnx",
    )
    assert (first.videos_total, first.videos_done, first.crops_total, first.crops_done) == (5, 4, 200, 170)
    assert first.split == {"done": 4, "leased": 1, "failed": 1}
    assert first.infer == {"done": 2, "ready": 1, "failed": 1}
    assert first.verdicts == {"FAKE": 2, "REAL": 1, "UNCERTAIN": 1}
    batch = first.failed[1].row_id
    assert first.failed == (
        FailedRow("split", 8, "/in/alias of h.mp4", 3, "crashed"),
        FailedRow("infer", batch, "/in/c.mp4", 3, "the engine died 3 times"),
    )
    assert (second.scan, second.dataset, second.infer, second.failed) == (2, None, {}, ())
