from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from unit.trainer.hostile_work import dies_once, doubled, writes_nowhere

from farm.errors import StorageAway
from trainer.processes import Failed, each


def test_a_task_that_kills_its_process_costs_itself_only() -> None:
    outcomes = dict(each(doubled, [1, 13, 2, 7, *range(20, 30)], 2))
    died = outcomes.pop(13)
    assert isinstance(died, Failed) and died.reason == "the process that read it died"
    assert outcomes.pop(7) == Failed("it cannot be worked on", "ValueError: seven")
    assert outcomes == {n: 2 * n for n in (1, 2, *range(20, 30))}
    assert multiprocessing.active_children() == []


def test_a_task_whose_process_was_killed_once_is_done_on_the_second_try(tmp_path: Path) -> None:
    mark = str(tmp_path / "mark")
    assert list(each(dies_once, [mark], 2)) == [(mark, "done")]


def test_an_error_of_the_farm_ends_everything(tmp_path: Path) -> None:
    with pytest.raises(StorageAway, match="disk is full"):
        list(each(writes_nowhere, range(10), 1))
    assert multiprocessing.active_children() == []


def test_leaving_the_loop_ends_the_processes() -> None:
    for _ in each(doubled, list(range(20, 40)), 2):
        break
    assert multiprocessing.active_children() == []
