"""What a report reads: one scan, its results row by row, one video's scores. Every long list is streamed; knows no HTML and no pixels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from farm.contracts import ModelCard
from farm.db.models import Dataset, Model, Scan, ScanPath, ScanVideo, Track, Video
from farm.db.results import engines_of_videos
from farm.db.results.sums import PENDING, RANK, verdict_of_path
from farm.errors import BadInput
from farm.verdict import calibrate

CHUNK = 1000
"""Rows fetched at a time."""


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
class ListedVideo:
    """One submitted path as the table of videos shows it. `shown` is the verdict, or PENDING; `rank` its place in `RANK`."""

    scan_video_id: int | None
    name: str
    label: str | None
    shown: str
    rank: int
    p_fake: float | None
    tracks: int | None
    frames_read: int | None
    duration_seconds: float | None
    why: str


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
    facts = ScanFacts(
        dataset=dataset.name if dataset else None,
        **{name: getattr(scan, name) for name in ScanFacts.__slots__ if name != "dataset"},
    )
    return facts, ModelCard.from_values(model.card)


def listed_videos(session: Session, scan_id: int) -> Iterator[ListedVideo]:
    """Every submitted path, the most telling first: by verdict, then by falling score, then in order of submission."""
    verdict = func.coalesce(verdict_of_path(), PENDING)
    rank = case(RANK, value=verdict)
    columns = (ScanPath.scan_video_id, ScanPath.name, ScanPath.label, ScanPath.error, ScanVideo.p_fake)
    query = (
        select(*columns, ScanVideo.summary, ScanVideo.reasons, verdict.label("shown"), rank.label("rank"))
        .outerjoin(ScanVideo, ScanVideo.id == ScanPath.scan_video_id)
        .where(ScanPath.scan_id == scan_id)
        .order_by(rank, ScanVideo.p_fake.desc().nulls_last(), ScanPath.position)
    )
    for row in session.execute(query.execution_options(yield_per=CHUNK)):
        seen = row.summary or {}
        yield ListedVideo(
            scan_video_id=row.scan_video_id,
            name=row.name,
            label=row.label,
            shown=row.shown,
            rank=row.rank,
            p_fake=row.p_fake,
            tracks=seen.get("tracks"),
            frames_read=seen.get("frames_read"),
            duration_seconds=seen.get("duration_seconds"),
            why=next(iter(row.reasons or ()), row.error or ""),
        )


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
        shown=row.verdict or PENDING,
        p_fake=row.p_fake,
        reasons=tuple(row.reasons or ()),
        frames_read=seen.get("frames_read"),
        duration_seconds=seen.get("duration_seconds"),
        decided_at=row.decided_at,
        engines=engines_of_videos(session, [row.id]).get(row.id, ""),
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
