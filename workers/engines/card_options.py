"""What the farm's side tells a card's process, and how patient it is with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farm.contracts import CROP_SIDE_PX, ModelCard
from farm.errors import BadModel
from farm.settings import Settings


@dataclass(frozen=True, slots=True)
class CardOptions:
    """Where a card is and how patient to be with it. Times in seconds."""

    #: the vendor's interpreter
    python: str
    #: folders put on its module path
    path: tuple[str, ...] = ()
    #: the xclbin; empty takes XLNX_VART_FIRMWARE from the environment
    firmware: str = ""
    #: the card's name in records, locks and messages
    device: str = "card-0"
    #: the runtime's number of the card; None where it sees only one
    device_index: int | None = None
    contexts: int = 4
    #: jobs in flight
    jobs: int = 4
    job_deadline_seconds: float = 5.0
    start_deadline_seconds: float = 120.0
    canary_jobs: int = 512
    #: pause before the second restart in a row; the first has none, later ones double
    pause_seconds: float = 0.5
    #: lost so often within this window, the card is quarantined
    losses: int = 5
    loss_window_seconds: float = 600.0
    lock_folder: str = ""

    @classmethod
    def of(cls, given: Settings, device: str | None) -> CardOptions:
        """The options that the settings say, for another card than theirs if `device` names one."""
        return cls(
            python=given.vart_python,
            path=tuple(folder for folder in given.vart_path.split(":") if folder),
            firmware=given.vart_firmware or given.xlnx_vart_firmware,
            device=device or given.vart_device,
            device_index=given.vart_device_index,
            contexts=given.vart_device_contexts,
            jobs=given.vart_jobs,
            job_deadline_seconds=given.vart_job_deadline_seconds,
            start_deadline_seconds=given.vart_start_deadline_seconds,
            canary_jobs=given.vart_canary_jobs,
            lock_folder=given.vart_lock_folder,
            losses=given.vart_losses,
            loss_window_seconds=given.vart_loss_window_seconds,
        )


def first_order(card: ModelCard, options: CardOptions, locks: Path) -> dict[str, Any]:
    """The order that opens the card, all but the xmodel. Raises BadModel for a fingerprint in the model card that is no number."""
    fingerprint = card.dpu.get("fingerprint")
    try:
        expected = None if fingerprint is None else int(str(fingerprint), 16)
    except ValueError as error:
        raise BadModel(f"model card {card.name}: dpu.fingerprint {fingerprint!r} is not hexadecimal") from error
    return {
        "do": "open",
        "class_output": card.class_output,
        "mask_output": card.mask_output,
        "side": CROP_SIDE_PX,
        "fingerprint": expected,
        "firmware": options.firmware,
        "path": list(options.path),
        "device_index": options.device_index,
        "contexts": options.contexts,
        "slots": options.jobs,
        "create_lock": str(locks / "create-runner.lock"),
        "beat_seconds": min(1.0, options.job_deadline_seconds / 4),
    }
