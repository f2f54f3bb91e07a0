"""The only reader of the environment. Every setting is `FARM_<NAME>`; the embedded farm sets them for the processes it starts."""

from __future__ import annotations

from functools import cache
from typing import Any, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from farm.errors import BadInput


class Settings(BaseSettings):
    """Where the farm's parts stand and how patient they are. Times in seconds, sizes in bytes."""

    model_config = SettingsConfigDict(env_prefix="FARM_", extra="ignore")

    database_url: str = Field(
        "", description="SQLAlchemy URL; empty means no farm is configured (use the embedded one)"
    )
    redis_url: str = Field("", description="redis://, rediss:// or redis+socket:// URL of the doorbell")
    storage_url: str = Field("", description="file:///folder or s3://bucket/prefix")
    s3_endpoint_url: str = Field("", description="any S3 endpoint; empty means AWS")
    s3_region: str = "us-east-1"

    model: str = Field(
        "",
        description="model name, name@version or path of a card; goes before the promoted one, which empty means; --model goes before it",
    )
    engine: str = Field("onnx", description="onnx, openvino, simulated, vart: never replaced by another one silently")
    engine_threads: int = Field(1, ge=1)
    card: str = Field(
        "", description="the card this worker drives: names its Celery node, and the device where an engine has several"
    )
    simulated_crops_per_second: float = Field(316.8, gt=0)

    vart_python: str = Field("", description="interpreter of the vendor's environment (Python 3.8 with vart and xir)")
    vart_path: str = Field("", description="folders for that interpreter's module path, joined by ':'")
    vart_firmware: str = Field("", description="the card's xclbin; empty takes XLNX_VART_FIRMWARE from the environment")
    vart_device: str = Field("card-0", description="the card's name in records, locks and messages, best its BDF")
    vart_device_index: int | None = Field(
        None, description="the runtime's number of this card, to pin and verify; None: it sees one"
    )
    vart_device_contexts: int = Field(
        4, description="device contexts a runner opens (RTENGINE_NUM_WORKERS); the vendor's 64 is wasteful"
    )
    vart_jobs: int = Field(4, ge=1, le=16, description="jobs kept in flight on a card")
    vart_job_deadline_seconds: float = Field(
        5.0, gt=0, description="silence of a card at work after which it counts as hung"
    )
    vart_start_deadline_seconds: float = Field(
        120.0, gt=0, description="longest start of a card, loading its xclbin included"
    )
    vart_canary_jobs: int = Field(
        512, ge=1, description="the card is asked its golden pictures again after so many jobs"
    )
    vart_lock_folder: str = Field(
        "", description="one lock file per card, shared by a host's workers; empty: in the temporary folder"
    )

    vart_losses: int = Field(
        5, ge=1, description="a card whose process died or hung so often within vart_loss_window_seconds is quarantined"
    )
    vart_loss_window_seconds: float = Field(600.0, gt=0)
    xlnx_vart_firmware: str = Field("", validation_alias="XLNX_VART_FIRMWARE", description="the vendor's own variable")

    lspci: str = Field("lspci", description="the program that lists PCI devices (package pciutils)")
    xbutil: str = Field("xbutil", description="the card vendor's program (XRT); often /opt/xilinx/xrt/bin/xbutil")
    card_program_seconds: float = Field(20.0, gt=0, description="longest run of either program")
    card_beat_seconds: float = Field(
        2.0, gt=0, description="a card's worker tells SQL that it lives, and hears of `farm cards drain`, so often"
    )
    card_sample_seconds: float = Field(10.0, gt=0, description="temperature and power are sampled so often")
    card_samples_kept_seconds: float = Field(3 * 86400.0, gt=0, description="older samples are deleted")
    card_drain_celsius: float = Field(85.0, description="a card at or above this takes no new work")
    card_resume_celsius: float = Field(75.0, description="a card drained for its heat works again at or below this")
    card_scan_seconds: float = Field(5.0, gt=0, description="`farm worker --all-cards` looks for cards so often")
    card_stop_seconds: float = Field(
        60.0, gt=0, description="time a worker told to end has for what it holds, before its supervisor kills it"
    )
    card_busy_seconds: float = Field(
        20.0, ge=0, description="a starting worker waits so long for a card that another process drives, then gives up"
    )
    metrics_port: int = Field(0, ge=0, le=65535, description="port of the Prometheus exporter; 0: none")
    metrics_address: str = Field("127.0.0.1", description="where the exporter listens")

    sampling: str = "keyframes"
    detector: str = Field("centerface", description="face detector")
    detector_side_px: int = Field(320, ge=32, description="longer side of the frame given to the detector")
    detector_confidence: float = Field(0.5, gt=0, lt=1)
    batch_crops: int = Field(64, ge=1)
    min_face_px: int = Field(40, description="shorter side of a face box below which a face is too small to judge")
    min_sharpness: float = Field(
        4.0, description="variance of the Laplacian of the grey 224 px crop below which it is too blurred"
    )
    min_brightness: float = Field(20.0, description="mean grey level of 255 below which a crop is too dark")
    max_frame_pixels: int = Field(
        100_000_000, ge=1, description="a video with larger frames is UNREADABLE rather than a memory bomb"
    )

    lease_seconds: float = Field(120.0, gt=0)
    max_attempts: int = Field(3, ge=1)
    retry_seconds: float = Field(
        5.0, ge=0, description="first pause before a failed row is tried again; doubles per attempt"
    )
    dispatch_window: int = Field(64, ge=1, description="messages kept in Redis per queue")
    dispatch_interval_seconds: float = Field(0.2, gt=0)
    ring_again_seconds: float = Field(
        60.0, gt=0, description="a row rung for this long ago and still unclaimed is rung again"
    )
    split_time_limit_seconds: int = Field(3600, ge=1)
    split_memory_limit_bytes: int = Field(4 * 1024**3, ge=1 << 28)

    training_device: str = Field(
        "", description="device that this train worker gives the trainer (cuda:0, cpu): never chosen silently"
    )
    training_folder: str = Field(
        "", description="where a train worker keeps data sets and runs; empty: in the temporary folder"
    )

    flower_password: SecretStr = Field(
        SecretStr(""), description="of Flower's user `farm`; empty means read-only, on this machine alone"
    )

    @model_validator(mode="after")
    def _resumes_below_where_it_drains(self) -> Self:
        if self.card_resume_celsius >= self.card_drain_celsius:
            raise ValueError(
                f"FARM_CARD_RESUME_CELSIUS ({self.card_resume_celsius:g}) must be below "
                f"FARM_CARD_DRAIN_CELSIUS ({self.card_drain_celsius:g})"
            )
        return self


@cache
def settings() -> Settings:
    """The settings of this process, read once. Raises BadInput."""
    return read_settings()


def read_settings(**chosen: Any) -> Settings:
    """The settings that the environment holds, `chosen` before it. Raises BadInput, naming the variables that are wrong."""
    try:
        return Settings(**chosen)
    except ValidationError as error:
        wrong = (
            f"FARM_{each['loc'][0]!s}".upper() + f" is {each['input']!r}: {each['msg']}"
            if each["loc"]
            else each["msg"].removeprefix("Value error, ")
            for each in error.errors()
        )
        raise BadInput("; ".join(wrong)) from error
