"""The read side: results per submitted path, sums over many, and how a farm stands. Writes nothing.

Use it in a reading session (`with farm.sessions() as session`). A long list is fetched in pieces, so its length costs no memory.
"""

from farm.db.results.changes import ABSENT, VerdictChange, VideoChange, change_counts, rescan_of, scan_changes
from farm.db.results.status import FailedRow, ScanStatus, scan_status
from farm.db.results.sums import DatasetSum, DaySum, LabelSum, by_dataset, by_day, by_label, verdict_counts
from farm.db.results.videos import (
    ScoredFace,
    VideoResult,
    engines_of,
    engines_of_videos,
    face_scores,
    scan_facts,
    scan_results,
)

__all__ = [
    "ABSENT",
    "DatasetSum",
    "DaySum",
    "FailedRow",
    "LabelSum",
    "ScanStatus",
    "ScoredFace",
    "VerdictChange",
    "VideoChange",
    "VideoResult",
    "by_dataset",
    "by_day",
    "by_label",
    "change_counts",
    "engines_of",
    "engines_of_videos",
    "face_scores",
    "rescan_of",
    "scan_changes",
    "scan_facts",
    "scan_results",
    "scan_status",
    "verdict_counts",
]
