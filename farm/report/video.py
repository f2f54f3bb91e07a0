"""The page of one video: its scores in one pass, its pictures out of the store, its frames out of the stored bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from farm.contracts import ModelCard
from farm.db.results import face_scores
from farm.farm import Farm
from farm.report.evidence import Chooser
from farm.report.gather import ScanFacts, TrackFacts, VideoFacts, top_tracks, video_facts
from farm.report.page import count, length, write_page
from farm.report.pictures import Pictures, take_pictures
from farm.report.timeline import BIN_PX, LINES, WIDTH_PX, Plot, plot

TRACKS_LISTED = 50
THUMBNAILS_KEPT = 256


class VideoPages:
    """Draws each distinct video once, up to a limit, in the order in which it is asked for."""

    def __init__(
        self, farm: Farm, session: Session, folder: Path, scan: ScanFacts, card: ModelCard, limit: int
    ) -> None:
        self._farm, self._session, self._folder = farm, session, folder
        self._scan, self._card, self._limit = scan, card, limit
        self._drawn: set[int] = set()
        self._thumbnails: OrderedDict[int, str | None] = OrderedDict()

    def of(self, scan_video_id: int | None) -> tuple[str | None, str | None]:
        """File name of the video's page and a data URI of its most telling face; None where there is none."""
        if scan_video_id is None:
            return None, None
        if scan_video_id not in self._drawn:
            if len(self._drawn) >= self._limit:
                return None, None
            self._drawn.add(scan_video_id)
            self._thumbnails[scan_video_id] = self._draw(scan_video_id)
            if len(self._thumbnails) > THUMBNAILS_KEPT:
                self._thumbnails.popitem(last=False)
        return _file_name(scan_video_id), self._thumbnails.get(scan_video_id)

    def _draw(self, scan_video_id: int) -> str | None:
        video = video_facts(self._session, scan_video_id)
        tracks, tracks_left = top_tracks(self._session, scan_video_id, self._card, TRACKS_LISTED)
        timeline, pictures = self._scores(video, tracks)
        context = {
            "scan": self._scan,
            "card": self._card,
            "code_version": self._scan.code_version,
            "video": video,
            "paths": video.paths,
            "paths_left": video.paths_left,
            "info": video.info,
            "decided_at": video.decided_at,
            "engines": video.engines or self._scan.engine,
            "facts_line": _facts_line(video, len(tracks) + tracks_left),
            "plot": timeline,
            "plot_words": _plot_words(timeline, tracks),
            "bin_seconds": f"{_end_seconds(video, tracks) * BIN_PX / WIDTH_PX:.2g} s",
            "tracks": tracks,
            "tracks_left": tracks_left,
            "crops": pictures.crops,
            "frames": pictures.frames,
            "complaints": pictures.complaints,
        }
        write_page("video.html", self._folder / _file_name(scan_video_id), context)
        return pictures.thumbnail

    def _scores(self, video: VideoFacts, tracks: list[TrackFacts]) -> tuple[Plot, Pictures]:
        """The timeline and the pictures, from one pass over the scores."""
        end = _end_seconds(video, tracks)
        own = [track.track for track in tracks[:LINES]]
        chooser = Chooser(end, own)

        def points() -> Iterator[tuple[int, float, float]]:
            for scored in face_scores(self._session, video.scan_video_id):
                chooser.add(scored)
                yield scored.track, scored.pts_seconds, scored.p_fake

        bounds = {"threshold": self._card.threshold, "real_below": self._card.real_below}
        timeline = plot(points(), own, end_seconds=end, **bounds)
        largest = self._farm.settings.max_frame_pixels
        return timeline, take_pictures(self._farm.store, self._session, video, chooser, self._card.threshold, largest)


def _file_name(scan_video_id: int) -> str:
    """Made of a number, never of a name from outside."""
    return f"video-{scan_video_id}.html"


def _end_seconds(video: VideoFacts, tracks: list[TrackFacts]) -> float:
    return max([video.duration_seconds or 0.0, 1e-3, *(track.last for track in tracks)])


def _facts_line(video: VideoFacts, faces: int) -> str:
    parts = [length(video.duration_seconds) and f"{length(video.duration_seconds)} long"]
    if video.info.get("width") and video.info.get("height"):
        parts.append(f"{video.info['width']} × {video.info['height']} px")
    if video.frames_read is not None:
        parts.append(f"{count(video.frames_read)} {'frame' if video.frames_read == 1 else 'frames'} read")
        parts.append(f"{count(faces)} {'face' if faces == 1 else 'faces'} judged")
    return ", ".join(part for part in parts if part)


def _plot_words(timeline: Plot, tracks: list[TrackFacts]) -> str:
    """The timeline for those who do not see it."""
    told = [
        f"face {track.track} from {length(track.first)} to {length(track.last)}, score {track.p_fake:.3f}, highest crop {track.highest:.3f}"
        for track in tracks[:LINES]
    ]
    return f"Scores of {count(timeline.points_seen)} crops over time. " + "; ".join(told)
