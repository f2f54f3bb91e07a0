"""What is known of each submitted path of a scan, and of each scored crop of a video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, select
from sqlalchemy.orm import Session

from farm.contracts import Box, VerdictLabel
from farm.db.models import CropBatchRow, FaceScore, Model, Scan, ScanPath, ScanVideo, Video, WorkState
from farm.errors import BadInput

SCORING = "scoring"
"""State of a result whose video is split while its crops wait for an engine."""

CHUNK = 1000
"""Rows fetched at a time."""


@dataclass(frozen=True, slots=True)
class VideoResult:
    """What is known of one submitted path."""

    scan: int
    #: 0-based order of submission
    position: int
    #: None where the bytes could not be had
    scan_video_id: int | None
    name: str
    path: str
    sha256: str | None
    #: what the manifest said: FAKE, REAL or None
    label: str | None
    #: FAKE, REAL, UNCERTAIN, NO_FACE, UNREADABLE; None while undecided
    verdict: str | None
    #: calibrated probability in [0, 1]; None where nothing was scored
    p_fake: float | None
    #: crops that were scored
    faces: int
    tracks: int | None
    frames_read: int | None
    duration_seconds: float | None
    reasons: tuple[str, ...]
    #: name@version
    model: str
    model_sha256: str
    #: what scored it, such as "onnx fp32 on cpu"; the engine asked for where nothing was scored
    engine: str
    sampling: str
    #: the whole split recipe by its sha256
    recipe: str
    code_version: str
    #: ready, leased, scoring, done, failed or cancelled
    state: str
    error: str | None


@dataclass(frozen=True, slots=True)
class ScoredFace:
    """One scored crop with its place."""

    crop_batch_id: int
    row: int
    track: int
    frame_index: int
    pts_seconds: float
    #: the face's box and the square that was cut, in source pixels
    face_box: Box
    crop_box: Box
    #: the detector's, in [0, 1]
    confidence: float
    #: raw class logit, fake positive
    logit: float
    #: calibrated, in [0, 1]
    p_fake: float
    #: share of the crop that the mask calls manipulated, in [0, 1]
    mask_area: float


def scan_results(session: Session, scan_id: int) -> Iterator[VideoResult]:
    """One result per submitted path in the order of submission, fetched in pieces. Raises BadInput where there is no such scan."""
    scan = scan_facts(session, scan_id)
    last = -1
    while rows := session.execute(_piece(scan_id, last)).all():
        engines = engines_of_videos(session, [row.scan_video_id for row in rows if row.scan_video_id is not None])
        for row in rows:
            yield _result(scan, row, engines.get(row.scan_video_id, scan.engine))
        last = rows[-1].position


def scan_facts(session: Session, scan_id: int) -> Row[Any]:
    """What all results of a scan share: its engine, recipe, code version, and its model's name, version and sha256. Raises BadInput."""
    columns = (
        Scan.id,
        Scan.engine,
        Scan.recipe,
        Scan.recipe_sha256,
        Scan.code_version,
        Model.name,
        Model.version,
        Model.sha256,
    )
    found = session.execute(
        select(*columns).join(Model, Model.id == Scan.model_id).where(Scan.id == scan_id)
    ).one_or_none()
    if found is None:
        raise BadInput(f"there is no scan {scan_id}: `farm status` lists them")
    return found


def _piece(scan_id: int, after: int) -> Select[Any]:
    path = (ScanPath.position, ScanPath.scan_video_id, ScanPath.name, ScanPath.path, ScanPath.label, ScanPath.error)
    video = (
        ScanVideo.verdict,
        ScanVideo.p_fake,
        ScanVideo.crops_done,
        ScanVideo.summary,
        ScanVideo.reasons,
        ScanVideo.state,
    )
    return (
        select(*path, *video, ScanVideo.error.label("video_error"), Video.sha256, Video.info)
        .select_from(ScanPath)
        .outerjoin(ScanVideo, ScanVideo.id == ScanPath.scan_video_id)
        .outerjoin(Video, Video.id == ScanVideo.video_id)
        .where(ScanPath.scan_id == scan_id, ScanPath.position > after)
        .order_by(ScanPath.position)
        .limit(CHUNK)
    )


def engines_of_videos(session: Session, scan_video_ids: Sequence[int]) -> dict[int, str]:
    """What scored each of these videos, in words; videos without a scored batch are left out."""
    mine = (CropBatchRow.scan_video_id.in_(set(scan_video_ids)), CropBatchRow.state == WorkState.DONE)
    found: dict[int, list[str]] = defaultdict(list)
    for scan_video_id, engine, precision, device in session.execute(
        select(CropBatchRow.scan_video_id, *_scored_by()).where(*mine).distinct()
    ):
        found[scan_video_id] += _in_words(engine, precision, device)
    return {scan_video_id: ", ".join(sorted(engines)) for scan_video_id, engines in found.items() if engines}


def engines_of(session: Session, scan_id: int) -> str:
    """What scored the batches of a scan, in words; empty where none is scored."""
    mine = (CropBatchRow.scan_id == scan_id, CropBatchRow.state == WorkState.DONE)
    rows = session.execute(select(*_scored_by()).where(*mine).distinct())
    return ", ".join(sorted(words for by in rows for words in _in_words(*by)))


def _scored_by() -> tuple[ColumnElement[Any], ColumnElement[Any], ColumnElement[Any]]:
    by = CropBatchRow.scored_by
    return by["engine"].as_string(), by["precision"].as_string(), by["device"].as_string()


def _in_words(engine: str | None, precision: str | None, device: str | None) -> list[str]:
    if engine is None:
        return []
    return [f"{engine} {precision or ''}".strip() + (f" on {device}" if device else "")]


def _result(scan: Row[Any], row: Row[Any], engine: str) -> VideoResult:
    seen, info = row.summary or {}, row.info or {}
    lost = row.scan_video_id is None
    return VideoResult(
        scan=scan.id,
        position=row.position,
        scan_video_id=row.scan_video_id,
        name=row.name,
        path=row.path,
        sha256=row.sha256,
        label=row.label,
        verdict=VerdictLabel.UNREADABLE.value if lost else row.verdict,
        p_fake=row.p_fake,
        faces=row.crops_done or 0,
        tracks=seen.get("tracks"),
        frames_read=seen.get("frames_read"),
        duration_seconds=seen.get("duration_seconds", info.get("duration_seconds")),
        reasons=tuple(row.reasons or ((row.error,) if lost and row.error else ())),
        model=f"{scan.name}@{scan.version}",
        model_sha256=scan.sha256,
        engine=engine,
        sampling=str(scan.recipe.get("sampling", "")),
        recipe=scan.recipe_sha256,
        code_version=scan.code_version,
        state=_state(row),
        error=row.error or row.video_error,
    )


def _state(row: Row[Any]) -> str:
    if row.scan_video_id is None:
        return WorkState.FAILED.value
    return SCORING if row.state == WorkState.DONE and row.verdict is None else str(row.state)


def face_scores(session: Session, scan_video_id: int) -> Iterator[ScoredFace]:
    """Every scored crop of one video in the order of frames, then tracks; streamed."""
    f = FaceScore
    boxes = (f.x0, f.y0, f.x1, f.y1, f.crop_x0, f.crop_y0, f.crop_x1, f.crop_y1)
    columns = (
        f.crop_batch_id,
        f.row,
        f.track,
        f.frame_index,
        f.pts_seconds,
        f.confidence,
        f.logit,
        f.p_fake,
        f.mask_area,
        *boxes,
    )
    query = select(*columns).where(f.scan_video_id == scan_video_id).order_by(f.frame_index, f.track, f.id)
    for batch, row, track, frame, pts, confidence, logit, p_fake, area, *box in session.execute(
        query.execution_options(yield_per=CHUNK)
    ):
        yield ScoredFace(batch, row, track, frame, pts, Box(*box[:4]), Box(*box[4:]), confidence, logit, p_fake, area)
