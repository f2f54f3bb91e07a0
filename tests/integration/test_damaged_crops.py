"""Crops that were damaged in the store cost the scan that met them, not the next one."""

from __future__ import annotations

import pytest

from farm.db.results import scan_results
from farm.embedded import EmbeddedFarm
from farm.jobs.recipe import recipe_of
from farm.jobs.sources import expand
from farm.jobs.submit import submit
from farm.samples import write_samples


@pytest.fixture
def clip(tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    write_samples(folder)
    return folder / "portrait.mp4"


def scanned(embedded, clip):
    scan_id = submit(embedded.farm, expand([clip]), recipe=recipe_of(embedded.farm))
    embedded.wait(scan_id)
    with embedded.farm.sessions() as session:
        return next(iter(scan_results(session, scan_id)))


def test_a_damaged_crop_batch_is_said_and_cut_anew_by_the_next_scan(tmp_path, clip):
    with EmbeddedFarm(tmp_path / "home", engine="simulated", simulated_crops_per_second=5000.0) as embedded:
        first = scanned(embedded, clip)
        for crops in (path for path in (tmp_path / "home" / "objects" / "crops").rglob("*") if path.is_file()):
            crops.write_bytes(crops.read_bytes()[:1000])
        damaged = scanned(embedded, clip)
        healed = scanned(embedded, clip)
    assert first.faces > 0
    assert damaged.faces == 0 and any("could not be scored" in reason for reason in damaged.reasons)
    assert (healed.faces, healed.p_fake) == (first.faces, first.p_fake)
