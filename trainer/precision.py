"""Which arithmetic a device has in hardware, and which one a training takes. Knows no network and no configuration."""

from __future__ import annotations

import torch

AUTO, BF16, FP32 = "auto", "bf16", "fp32"


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
