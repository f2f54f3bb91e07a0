"""Verdicts -> a report: index.html, one page per video, results.csv, results.json, results.parquet.

Every page is one file that needs no other: pictures lie in it, nothing is loaded. Rows and scores are streamed, so that a report
over a million paths costs time and files, not memory.
"""

from farm.report.write import PAGES_DRAWN, ROWS_PER_PART, write_report

__all__ = ["PAGES_DRAWN", "ROWS_PER_PART", "write_report"]
