"""What a worker is called in Flower, and in the leases it holds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from farm.queue import INFER_QUEUE, SPLIT_QUEUE, TRAIN_QUEUE
from workers.app import node_name

NAMED = "import sys; from workers.app import node_name; print(node_name(sys.argv[1], ''))"


@pytest.mark.parametrize("queue", [SPLIT_QUEUE, INFER_QUEUE, TRAIN_QUEUE])
def test_two_workers_of_a_kind_on_one_host_have_two_names(queue: str) -> None:
    ours = node_name(queue, "")
    another = subprocess.run([sys.executable, "-c", NAMED, queue], capture_output=True, text=True, check=True).stdout
    assert ours.endswith(f"-{os.getpid()}")
    assert ours.rpartition("-")[0] == another.strip().rpartition("-")[0]
    assert ours != another.strip()


def test_the_only_worker_of_its_kind_keeps_its_name_so_that_it_frees_what_a_dead_predecessor_held() -> None:
    assert node_name(SPLIT_QUEUE, "", sole=True) == "split-0"
    assert node_name(INFER_QUEUE, "", sole=True) == "cpu-0"


def test_a_card_gives_its_worker_its_name() -> None:
    assert node_name(INFER_QUEUE, "0000:81:00.0") == "vck5000-0000:81:00.0"
    assert node_name(INFER_QUEUE, "simulated-3") == "simulated-3"
