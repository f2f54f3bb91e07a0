"""The way of a report: rows out of SQL -> the data files and the table of videos, with a page drawn for each telling video."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from farm.db.session import database_errors
from farm.farm import Farm
from farm.report.gather import ResultRow, engines_of, labelled, result_rows, scan_facts, verdict_counts
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
    Raises BadInput for an unknown scan, DatabaseAway where SQL is gone; an object that is missing or away becomes a sentence on the
    video's page.
    """
    with database_errors(), farm.sessions() as session, farm.sessions() as beside:
        scan, card = scan_facts(session, scan_id)
        counts = verdict_counts(session, scan_id)
        total = sum(counts.values())
        parts = ["index.html", *(f"index-{n}.html" for n in range(2, -(-total // rows_per_part) + 1))]
        shared: dict[str, Any] = {
            "scan": scan,
            "card": card,
            "code_version": scan.code_version,
            "engines": engines_of(session, scan_id) or scan.engine,
            "counts": counts,
            "total": total,
            "parts": parts,
            "labelled": labelled(session, scan_id),
            "drawn": min(pages_drawn, scan.videos_total),
            "undrawn": max(0, scan.videos_total - pages_drawn),
        }
        folder.mkdir(parents=True, exist_ok=True)
        # a second session, so that the stream of rows stays open while a page asks its own questions
        pages = VideoPages(farm, beside, folder, scan, card, pages_drawn)
        with Tables(folder) as tables:
            rows = _recorded(result_rows(session, scan_id, card, shared["engines"]), tables, total, on_progress)
            for number, href in enumerate(parts, 1):
                shown = [
                    _table_row(row, pages, at < THUMBNAILS and number == 1)
                    for at, row in enumerate(islice(rows, rows_per_part))
                ]
                write_page("index.html", folder / href, {**shared, "part": number, "rows": shown})
            for _late in rows:
                pass
    return folder / "index.html"


def _recorded(
    rows: Iterator[ResultRow], tables: Tables, total: int, on_progress: Progress | None
) -> Iterator[ResultRow]:
    """Write each row into the data files on its way to the table."""
    for done, row in enumerate(rows, 1):
        tables.add(row.as_row())
        yield row
        if on_progress:
            on_progress(done, total)


def _table_row(row: ResultRow, pages: VideoPages, with_thumbnail: bool) -> dict[str, Any]:
    href, thumbnail = pages.of(row.scan_video_id)
    return {
        **{
            name: getattr(row, name)
            for name in ("name", "shown", "rank", "p_fake", "tracks", "frames_read", "duration_seconds", "label")
        },
        "why": row.reasons[0] if row.reasons else "",
        "href": href,
        "thumbnail": thumbnail if with_thumbnail else None,
    }
