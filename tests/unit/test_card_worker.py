"""deploy/card-worker: which card a container was given, told by the device nodes in it. Run as it is, on a /dev and /sys made here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "card-worker"
HOST = {
    "renderD128": ("0000:3b:00.1", "0x10ee"),
    "renderD129": ("0000:5e:00.1", "0x10ee"),
    "renderD130": ("0000:04:00.0", "0x102b"),
}
"""Two cards and a server's own graphics chip, as every container of the host sees them in /sys."""


@pytest.fixture
def started(tmp_path: Path):
    """Runs the script in a container that was given these device nodes; what it says and what it would run."""
    for node, (address, vendor) in HOST.items():
        device = tmp_path / "sys/devices" / address
        device.mkdir(parents=True)
        (device / "vendor").write_text(f"{vendor}\n")
        (tmp_path / "sys/class/drm" / node).mkdir(parents=True)
        (tmp_path / "sys/class/drm" / node / "device").symlink_to(device)
    stub = tmp_path / "bin/farm"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\necho "farm $*"\n')
    stub.chmod(0o755)

    def run(*nodes: str, arguments: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        (tmp_path / "dev/dri").mkdir(parents=True)
        for node in nodes:
            (tmp_path / "dev/dri" / node).touch()
        places = {"CARD_WORKER_DEV": str(tmp_path / "dev"), "CARD_WORKER_SYS": str(tmp_path / "sys")}
        environment = {"PATH": f"{stub.parent}:{os.environ['PATH']}", **places}
        return subprocess.run([SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_worker_is_pinned_to_the_one_card_that_the_container_was_given(started) -> None:
    ran = started("renderD129", arguments=("--no-events",))
    assert ran.stdout == "farm worker --queue infer --engine vart --card 0000:5e:00.1 --no-events\n"
    assert ran.returncode == 0


@pytest.mark.parametrize("nodes", [(), ("renderD128", "renderD129")])
def test_no_card_and_several_cards_are_refused(started, nodes: tuple[str, ...]) -> None:
    ran = started(*nodes)
    assert (ran.returncode, ran.stdout) == (64, "")
    assert f"{len(nodes)} cards" in ran.stderr and "map one card's" in ran.stderr


@pytest.mark.parametrize("node", ["renderD130", "renderD140"])
def test_another_graphics_device_is_not_taken_for_a_card(started, node: str) -> None:
    ran = started(node)
    assert (ran.returncode, ran.stdout) == (64, "")
    assert "is no Xilinx card" in ran.stderr
