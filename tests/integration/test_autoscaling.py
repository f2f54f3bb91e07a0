"""The backlog that deploy/kubernetes/autoscaling.yaml asks the database for, asked of the real one."""

from __future__ import annotations

from pathlib import Path

import yaml
from farm_rows import Rows
from sqlalchemy import text

from farm.farm import Farm
from farm.jobs.cancel import cancel

FILE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "autoscaling.yaml"


def backlog(farm: Farm) -> dict[str, int]:
    """What the query of each scaled deployment answers."""
    scaled = [each for each in yaml.safe_load_all(FILE.read_text()) if each["kind"] == "ScaledObject"]
    with farm.read() as connection:
        return {
            each["metadata"]["name"]: connection.execute(text(trigger["metadata"]["query"])).scalar_one()
            for each in scaled
            for trigger in each["spec"]["triggers"]
        }


def test_videos_scale_splitters_and_only_the_cards_own_batches_scale_cards(
    farm: Farm, rows: Rows, tmp_path: Path
) -> None:
    assert backlog(farm) == {"splitter": 0, "card-worker": 0}
    on_cards = rows.submit(tmp_path / "a", {"a.mp4": b"a", "b.mp4": b"b"}, engine="vart")
    elsewhere = rows.submit(tmp_path / "c", {"c.mp4": b"c"}, engine="simulated")
    assert backlog(farm) == {"splitter": 3, "card-worker": 0}
    rows.split(rows.videos(on_cards)[0], batches=3)
    rows.split(rows.videos(elsewhere)[0], batches=2)
    assert backlog(farm) == {"splitter": 1, "card-worker": 3}
    rows.score(rows.batches(on_cards)[0])
    assert backlog(farm) == {"splitter": 1, "card-worker": 2}
    cancel(farm, on_cards)
    assert backlog(farm) == {"splitter": 0, "card-worker": 0}
