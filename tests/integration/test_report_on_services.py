"""The report of a scan whose rows are in PostgreSQL and whose objects are in S3."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from report_scan import ReportScan, clip, report_scan, seen  # noqa: F401 -- fixtures

from farm.report import write_report


@pytest.fixture
def scan(
    report_scan: Callable[..., ReportScan],  # noqa: F811
    database_url: str,
    s3_endpoint: str,
    s3_bucket: str,
) -> ReportScan:
    s3 = {"storage_url": f"s3://{s3_bucket}/farm", "s3_endpoint_url": s3_endpoint}
    return report_scan(places={"database_url": database_url, **s3})


def test_every_table_and_page_is_written_from_either_database_and_from_s3(
    scan: ReportScan,
    seen: Any,  # noqa: F811
    tmp_path: Path,
) -> None:
    real = scan.add("in/real.mp4", [seen(0, [-8.0] * 10)], label="REAL")
    fake = scan.add("in/fake.mp4", [seen(0, [8.0] * 10), seen(1, [0.0] * 10)], label="FAKE")
    scan.add("in/waiting.mp4", decided=False)
    scan.add_path("in/missing.mp4", error="There is no file at this path.")
    index = write_report(scan.farm, scan.scan_id, tmp_path / "report")
    names = ["real.mp4", "fake.mp4", "waiting.mp4", "missing.mp4"]
    assert [row["name"] for row in json.loads((index.parent / "results.json").read_text())] == names
    assert pq.read_table(index.parent / "results.parquet")["name"].to_pylist() == names
    shown = index.read_text()
    order = [shown.index(name) for name in ("fake.mp4", "real.mp4", "missing.mp4", "waiting.mp4")]
    assert order == sorted(order)
    for number in (real, fake):
        page = (index.parent / f"video-{number}.html").read_text()
        assert page.count("data:image/jpeg;base64,") >= 9
        assert "could not be shown" not in page
