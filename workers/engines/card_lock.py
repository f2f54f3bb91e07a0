"""One worker per card: a file lock that the kernel gives back whatever way its holder ends. Knows no runtime."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from pathlib import Path
from typing import IO

from farm.errors import BadInput, EngineBusy


def lock_folder(configured: str) -> Path:
    """The folder of the lock files, made if it is not there. Raises BadInput where it cannot be."""
    folder = Path(configured) if configured else Path(tempfile.gettempdir()) / "deepfake-farm-cards"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"lock folder {folder} cannot be made ({error.strerror}): set FARM_VART_LOCK_FOLDER") from error
    return folder


def lock_card(folder: Path, device: str) -> IO[str]:
    """Take the card for this process until the returned file is closed.

    Raises EngineBusy, naming the holder, while another has it; BadInput where the lock file cannot be written.
    """
    path = folder / f"{re.sub(r'[^0-9A-Za-z.@_-]', '_', device)}.lock"
    try:
        file = path.open("a+")
    except OSError as error:
        raise BadInput(
            f"lock {path} of card {device} cannot be written ({error.strerror}): set FARM_VART_LOCK_FOLDER"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        holder = file.read().strip() or "unknown"
        file.close()
        raise EngineBusy(
            f"card {device} is already driven by process {holder} of this host: a card takes one worker; "
            "stop that one or give this worker another card (FARM_VART_DEVICE)"
        ) from error
    file.truncate(0)
    file.write(str(os.getpid()))
    file.flush()
    return file
