"""Which arithmetic a device has in hardware, which one a training takes, and how its pictures lie in memory. Knows no configuration."""

from __future__ import annotations

import torch

AUTO, BF16, FP32 = "auto", "bf16", "fp32"
YES, NO = "yes", "no"
NARROW = 16
"""Base width up to which a CPU is no slower in float32 with channels last.

Measured on an AVX2 core, forward and backward at 224 px, CPU-ms per crop with channels last and without: W=8 98 and 111, W=16 372 and
384, W=32 1599 and 1093, W=64 6900 and 4000.
"""


def native_bf16(device: torch.device | str) -> bool:
    """Whether a device computes in bfloat16 itself; where it only emulates it, a training step takes about ten times as long as in float32.

    A CPU does with avx512_bf16 or amx_bf16, an NVIDIA GPU from Ampere on. Raises RuntimeError for a name that is no device.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def choose_precision(asked: str, device: torch.device | str) -> str:
    """BF16 or FP32: what was asked for, and for AUTO bf16 where the device has it. Raises RuntimeError for a name that is no device."""
    if asked != AUTO:
        return asked
    return BF16 if native_bf16(device) else FP32


def choose_channels_last(asked: str, width: int, precision: str, device: torch.device | str) -> bool:
    """Whether the channels of a pixel shall lie side by side: what was asked for, and for AUTO what was measured to be faster."""
    if asked != AUTO:
        return asked == YES
    return torch.device(device).type != "cpu" or precision == BF16 or width <= NARROW
