"""How a worker's process keeps its memory. Knows glibc's allocator; elsewhere it changes nothing."""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger(__name__)

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""malloc.h"""
LARGEST_KEPT_BYTES = 32 << 20
"""glibc's own limit of the second parameter; a batch of 64 crops takes 9.2 MiB."""
IDLE_BYTES = 256 << 20
"""Freed memory that the process may hold on to."""


def keep_freed_memory() -> bool:
    """Let what a crop batch took be used again by the next one, rather than given back to the kernel; False where that cannot be set.

    By default every batch's pages are mapped, zeroed and faulted in anew, in every thread: of the CPU time that a worker on a simulated
    card spends, that was 60 %.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        log.info("this C library has no mallopt: each batch's memory is mapped anew")
        return False
    wanted = ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, LARGEST_KEPT_BYTES), (_TRIM_THRESHOLD, IDLE_BYTES))
    return all(mallopt(option, value) == 1 for option, value in wanted)
