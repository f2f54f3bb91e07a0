"""Which arithmetic a device has in hardware. Knows no network and no configuration."""

from __future__ import annotations

import torch


def native_bf16(device: torch.device | str) -> bool:
    """Whether a device computes in bfloat16 itself; where it only emulates it, a training step takes about ten times as long as in float32.

    A CPU does with avx512_bf16 or amx_bf16, an NVIDIA GPU from Ampere on. Raises RuntimeError for a name that is no device.
    """
    kind = torch.device(device).type
    if kind == "cpu":
        has = torch.cpu.get_capabilities()
        return bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    return kind == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
