"""A farm as racks run it: PostgreSQL, S3, Redis, and one process per part, each started by its own command."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import services
from command_line import CommandLine, wait_for


@pytest.fixture
def environment(
    postgres_url: str,
    s3_endpoint: str,
    s3_server: services.S3Server,
    s3_bucket: str,
    redis_server: services.RedisServer,
) -> dict[str, str]:
    return {
        "FARM_DATABASE_URL": postgres_url,
        "FARM_STORAGE_URL": f"s3://{s3_bucket}/objects",
        "FARM_S3_ENDPOINT_URL": s3_endpoint,
        "FARM_REDIS_URL": redis_server.url,
        "AWS_ACCESS_KEY_ID": s3_server.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_server.secret_key,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def part(line: CommandLine, environment: dict[str, str], *command: str) -> Iterator[subprocess.Popen[str]]:
    """A part of the farm, stopped as a service manager stops it."""
    process = line.start(*command, env=environment)
    try:
        yield process
        assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, f"{command}: {process.returncode}\n{out}\n{err}"
    finally:
        process.kill()
        process.communicate()


@pytest.mark.timeout(300)
@pytest.mark.postgres
@pytest.mark.s3
def test_parts_started_one_by_one_scan_what_is_submitted(
    environment: dict[str, str], line: CommandLine, clips: Path, tmp_path: Path
) -> None:
    refused = line.run("submit", clips / "portrait.mp4", env=environment)
    assert refused.code == 1 and "farm db upgrade" in refused.err
    assert line.run("db", "upgrade", env=environment).code == 0

    def results(scan: int) -> list[dict[str, object]]:
        return json.loads(line.run("results", str(scan), "--format", "json", env=environment).out)

    with ExitStack() as farm:
        for command in (("dispatch",), ("worker", "--queue", "split"), ("worker", "--queue", "infer")):
            farm.enter_context(part(line, environment, *command))
        submitted = line.run(
            "submit", clips / "portrait.mp4", clips / "empty.mp4", "--dataset", "rack", "--json", env=environment
        )
        assert submitted.code == 0, submitted.err
        scan = submitted.last_line["scan"]
        wait_for(lambda: all(row["verdict"] for row in results(scan)), seconds=200)
        shown = line.run("status", env=environment).out

    portrait, empty = results(scan)
    assert portrait["faces"] and portrait["p_fake"] is not None and portrait["engine"] == "onnx fp32 on cpu"
    assert empty["verdict"] == "UNREADABLE"
    assert "rack" in shown and "2 of 2" in shown
    report = line.run("report", str(scan), "--out", tmp_path / "report", env=environment)
    assert report.code == 0, report.err
    assert line.left_behind() == []
