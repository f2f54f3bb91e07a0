"""Which arithmetic a device has in hardware."""

from __future__ import annotations

import pytest
import torch

from trainer.precision import choose_channels_last, choose_precision, native_bf16


@pytest.mark.parametrize(
    ("has", "native"),
    [
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({}, False),
    ],
)
def test_a_cpu_computes_in_bf16_only_with_instructions_for_it(
    has: dict[str, bool], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert native_bf16("cpu") is native


def test_a_device_of_another_kind_is_not_said_to_have_it() -> None:
    assert not native_bf16("meta")


@pytest.mark.parametrize(
    ("asked", "native", "taken"),
    [("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("bf16", False, "bf16")],
)
def test_what_is_asked_for_is_obeyed_and_auto_takes_what_the_device_has(
    asked: str, native: bool, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": native})
    assert choose_precision(asked, "cpu") == taken


@pytest.mark.parametrize(
    ("asked", "width", "precision", "device", "taken"),
    [
        ("auto", 64, "fp32", "cpu", False),
        ("auto", 16, "fp32", "cpu", True),
        ("auto", 64, "bf16", "cpu", True),
        ("auto", 64, "fp32", "cuda", True),
        ("yes", 64, "fp32", "cpu", True),
        ("no", 16, "bf16", "cuda", False),
    ],
)
def test_channels_lie_side_by_side_where_that_was_measured_to_be_faster(
    asked: str, width: int, precision: str, device: str, taken: bool
) -> None:
    assert choose_channels_last(asked, width, precision, device) is taken
