"""What a report reads: one scan, its results row by row, one video's scores. Every long list is streamed; knows no HTML and no pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, case, func, select
from sqlalchemy.orm import Session

from farm.contracts import Box, ModelCard, VerdictLabel
from farm.db.models import CropBatchRow, Dataset, FaceScore, Model, Scan, ScanPath, ScanVideo, Track, Video, WorkState
from farm.errors import BadInput
from farm.report.evidence import Scored
from farm.verdict import calibrate

RANK = {label: rank for rank, label in enumerate(["FAKE", "UNCERTAIN", "REAL", "NO_FACE", "UNREADABLE", "PENDING"])}
"""The order in which verdicts are worth a reader's time."""

BATCHES_ASKED = 500
"""Engines are named from this many batches; a scan has one, or a few where cards were mixed."""

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class ScanFacts:
    """The scan's own row, with names in place of numbers."""

    id: int
    dataset: str | None
    state: str
    rescan_of: int | None
    engine: str
    recipe: dict[str, Any]
    recipe_sha256: str
    code_version: str
    created_at: float
    finished_at: float | None
    videos_total: int
    videos_done: int


@dataclass(frozen=True, slots=True)
class ResultRow:
    """One submitted path and what came of it. `shown` is the verdict, or PENDING."""

    scan_video_id: int | None
    name: str
    path: str
    sha256: str | None
    label: str | None
    verdict: str | None
    p_fake: float | None
    faces: int | None
    tracks: int | None
    frames_read: int | None
    duration_seconds: float | None
    reasons: tuple[str, ...]
    model: str
    engine: str
    state: str
    error: str | None

    @property
    def shown(self) -> str:
        return self.verdict or "PENDING"

    @property
    def rank(self) -> int:
        return RANK[self.shown]

    def as_row(self) -> dict[str, Any]:
        """The columns of the data files."""
        values = {name: getattr(self, name) for name in self.__slots__ if name != "scan_video_id"}
        return values | {"reasons": list(self.reasons)}


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """One distinct video of a scan, without its scores."""

    scan_video_id: int
    name: str
    #: some of the submitted paths that hold these bytes, and how many more there are
    paths: tuple[str, ...]
    paths_left: int
    sha256: str
    object_key: str
    info: dict[str, Any]
    shown: str
    p_fake: float | None
    reasons: tuple[str, ...]
    frames_read: int | None
    duration_seconds: float | None
    decided_at: float | None
    engines: str


@dataclass(frozen=True, slots=True)
class TrackFacts:
    """One track's rollup; times in seconds, `highest` the calibrated score of its highest crop."""

    track: int
    p_fake: float
    crops: int
    highest: float
    mask_area: float
    first: float
    last: float


def scan_facts(session: Session, scan_id: int) -> tuple[ScanFacts, ModelCard]:
    """The scan and its model's card. Raises BadInput where there is no such scan."""
    scan = session.get(Scan, scan_id)
    if scan is None:
        raise BadInput(f"there is no scan {scan_id}; `farm status` lists them")
    dataset = session.get(Dataset, scan.dataset_id) if scan.dataset_id is not None else None
    model = session.get_one(Model, scan.model_id)
    card = ModelCard(**{**model.card, "notes": tuple(model.card.get("notes", ()))})
    facts = ScanFacts(
        dataset=dataset.name if dataset else None,
        **{name: getattr(scan, name) for name in ScanFacts.__slots__ if name != "dataset"},
    )
    return facts, card


def verdict_counts(session: Session, scan_id: int) -> dict[str, int]:
    """Submitted paths per verdict; PENDING where there is none yet."""
    verdict = _verdict()
    query = _paths(verdict, func.count()).where(ScanPath.scan_id == scan_id).group_by(verdict)
    return dict.fromkeys(RANK, 0) | {verdict or "PENDING": n for verdict, n in session.execute(query)}


def result_rows(session: Session, scan_id: int, card: ModelCard, engine: str) -> Iterator[ResultRow]:
    """Every submitted path, the most telling first: by verdict, then by falling score, then in order of submission."""
    verdict = _verdict()
    rank = case(RANK, value=verdict, else_=RANK["PENDING"])
    path = (ScanPath.scan_video_id, ScanPath.name, ScanPath.path, ScanPath.label, ScanPath.error)
    columns = (*path, verdict, ScanVideo.p_fake, ScanVideo.summary, ScanVideo.reasons, ScanVideo.state, Video.sha256)
    query = (
        _paths(*columns)
        .outerjoin(Video, Video.id == ScanVideo.video_id)
        .where(ScanPath.scan_id == scan_id)
        .order_by(rank, ScanVideo.p_fake.desc().nulls_last(), ScanPath.position)
        .execution_options(yield_per=_CHUNK)
    )
    for row in session.execute(query):
        seen = row.summary or {}
        yield ResultRow(
            scan_video_id=row.scan_video_id,
            name=row.name,
            path=row.path,
            sha256=row.sha256,
            label=row.label,
            verdict=row.verdict,
            p_fake=row.p_fake,
            faces=seen.get("faces_found"),
            tracks=seen.get("tracks"),
            frames_read=seen.get("frames_read"),
            duration_seconds=seen.get("duration_seconds"),
            reasons=tuple(row.reasons or ()) or ((row.error,) if row.error else ()),
            model=f"{card.name} {card.version}",
            engine=engine,
            state=row.state or WorkState.FAILED,
            error=row.error,
        )


def labelled(session: Session, scan_id: int) -> bool:
    """Whether a manifest gave a label to any path."""
    query = select(ScanPath.id).where(ScanPath.scan_id == scan_id, ScanPath.label.is_not(None)).limit(1)
    return session.execute(query).first() is not None


def engines_of(session: Session, scan_id: int, scan_video_id: int | None = None) -> str:
    """What scored a scan's batches, or those of one video, in words."""
    query = select(CropBatchRow.scored_by).where(CropBatchRow.scan_id == scan_id, CropBatchRow.state == WorkState.DONE)
    if scan_video_id is not None:
        query = query.where(CropBatchRow.scan_video_id == scan_video_id)
    query = query.limit(BATCHES_ASKED)
    known = {f"{by['engine']} {by['precision']} on {by['device']}" for by in session.scalars(query) if by}
    return ", ".join(sorted(known))


def video_facts(session: Session, scan_video_id: int) -> VideoFacts:
    """One video of a scan, with the first of the paths that name it."""
    row, video = session.execute(
        select(ScanVideo, Video).join(Video, Video.id == ScanVideo.video_id).where(ScanVideo.id == scan_video_id)
    ).one()
    mine = ScanPath.scan_video_id == scan_video_id
    paths = session.execute(
        select(ScanPath.name, ScanPath.path).where(mine).order_by(ScanPath.position).limit(10)
    ).all()
    named = session.execute(select(func.count()).select_from(ScanPath).where(mine)).scalar_one()
    seen = row.summary or {}
    return VideoFacts(
        scan_video_id=row.id,
        name=paths[0].name if paths else video.sha256,
        paths=tuple(path.path for path in paths),
        paths_left=named - len(paths),
        sha256=video.sha256,
        object_key=video.object_key,
        info={"size bytes": video.size_bytes, **(video.info or {})},
        shown=row.verdict or "PENDING",
        p_fake=row.p_fake,
        reasons=tuple(row.reasons or ()),
        frames_read=seen.get("frames_read"),
        duration_seconds=seen.get("duration_seconds"),
        decided_at=row.decided_at,
        engines=engines_of(session, row.scan_id, row.id),
    )


def top_tracks(session: Session, scan_video_id: int, card: ModelCard, limit: int) -> tuple[list[TrackFacts], int]:
    """The tracks with the highest scores, and how many more there are."""
    mine = Track.scan_video_id == scan_video_id
    query = (
        select(Track).where(mine, Track.crops > 0).order_by(Track.p_fake.desc().nulls_last(), Track.track).limit(limit)
    )
    total = session.execute(select(func.count()).select_from(Track).where(mine, Track.crops > 0)).scalar_one()
    tracks = [
        TrackFacts(
            track=row.track,
            p_fake=row.p_fake if row.p_fake is not None else calibrate(row.logit_sum / row.crops, card),
            crops=row.crops,
            highest=calibrate(row.logit_max, card),
            mask_area=row.mask_area_sum / row.crops,
            first=row.first_pts_seconds,
            last=row.last_pts_seconds,
        )
        for row in session.scalars(query)
    ]
    return tracks, total - len(tracks)


def scores(session: Session, scan_video_id: int, frame_index: int | None = None) -> Iterator[Scored]:
    """A video's scored crops, streamed, in no order; those of one frame where `frame_index` is given."""
    f = FaceScore
    face, crop = (f.x0, f.y0, f.x1, f.y1), (f.crop_x0, f.crop_y0, f.crop_x1, f.crop_y1)
    columns = (f.crop_batch_id, f.row, f.track, f.frame_index, f.pts_seconds, f.p_fake, f.mask_area, *face, *crop)
    query = select(*columns).where(f.scan_video_id == scan_video_id).execution_options(yield_per=_CHUNK)
    if frame_index is not None:
        query = query.where(f.frame_index == frame_index)
    for batch, row, track, frame, pts_seconds, p_fake, mask_area, *box in session.execute(query):
        yield Scored(batch, row, track, frame, pts_seconds, Box(*box[:4]), Box(*box[4:]), p_fake, mask_area)


def _verdict() -> Any:
    """A path whose bytes could not be had is UNREADABLE without a video."""
    return case((ScanPath.scan_video_id.is_(None), VerdictLabel.UNREADABLE), else_=ScanVideo.verdict).label("verdict")


def _paths(*columns: Any) -> Select[Any]:
    return select(*columns).select_from(ScanPath).outerjoin(ScanVideo, ScanVideo.id == ScanPath.scan_video_id)
