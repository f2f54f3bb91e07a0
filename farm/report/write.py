"""The way of a report: rows out of SQL -> the data files and the table of videos, with a page drawn for each telling video."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from farm.db.results import by_label, engines_of, scan_results, verdict_counts
from farm.db.session import database_errors
from farm.errors import StorageAway
from farm.farm import Farm
from farm.report.gather import ListedVideo, listed_videos, scan_facts
from farm.report.page import write_page
from farm.report.tables import Tables
from farm.report.video import VideoPages

ROWS_PER_PART = 2000
"""Rows of the table of videos in one file: about 2 MB, which a browser sorts at once."""

PAGES_DRAWN = 500
"""Videos with a page of their own, the most telling first; each costs the decoding of two frames and about 0.4 MB."""

THUMBNAILS = 200
"""Rows with a picture of their most telling face."""

Progress = Callable[[int, int], None]


def write_report(
    farm: Farm,
    scan_id: int,
    folder: Path,
    *,
    rows_per_part: int = ROWS_PER_PART,
    pages_drawn: int = PAGES_DRAWN,
    on_progress: Progress | None = None,
) -> Path:
    """Write the report of a scan into `folder` and return the path of its index.html.

    A scan that is still running gets a report of what is decided. `on_progress` is told (rows written, rows in all).
    An object that is missing or away becomes a sentence on the video's page. Raises BadInput for an unknown scan, DatabaseAway where SQL
    is gone, StorageAway where the folder cannot be written.
    """
    try:
        return _write(farm, scan_id, folder, rows_per_part, pages_drawn, on_progress)
    except OSError as error:
        raise StorageAway(f"the report cannot be written to {folder}: {error.strerror or error}") from error


def _write(
    farm: Farm, scan_id: int, folder: Path, rows_per_part: int, pages_drawn: int, on_progress: Progress | None
) -> Path:
    with database_errors(), farm.sessions() as session, farm.sessions() as beside:
        scan, card = scan_facts(session, scan_id)
        counts = verdict_counts(session, scan_id)
        total = sum(counts.values())
        parts = ["index.html", *(f"index-{n}.html" for n in range(2, -(-total // rows_per_part) + 1))]
        agreement = by_label(session, scan_id)
        shared: dict[str, Any] = {
            "scan": scan,
            "card": card,
            "code_version": scan.code_version,
            "engines": engines_of(session, scan_id) or scan.engine,
            "counts": defaultdict(int, counts),
            "total": total,
            "parts": parts,
            "agreement": agreement[0] if agreement else None,
            "drawn": min(pages_drawn, scan.videos_total),
            "undrawn": max(0, scan.videos_total - pages_drawn),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with Tables(folder) as tables:
            for result in scan_results(session, scan_id):
                tables.add({name: getattr(result, name) for name in result.__slots__})
        # a second session, so that the stream of rows stays open while a page asks its own questions
        pages = VideoPages(farm, beside, folder, scan, card, pages_drawn)
        rows = enumerate(listed_videos(session, scan_id), 1)
        for number, href in enumerate(parts, 1):
            shown = []
            for done, video in islice(rows, rows_per_part):
                shown.append(_table_row(video, pages, done <= THUMBNAILS))
                if on_progress:
                    on_progress(done, total)
            write_page("index.html", folder / href, {**shared, "part": number, "rows": shown})
    return folder / "index.html"


def _table_row(video: ListedVideo, pages: VideoPages, with_thumbnail: bool) -> dict[str, Any]:
    href, thumbnail = pages.of(video.scan_video_id)
    return {"video": video, "href": href, "thumbnail": thumbnail if with_thumbnail else None}
