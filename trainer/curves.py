"""A training's log: JSON lines always, TensorBoard and Weights & Biases when asked. Knows figures and pictures, no network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from farm.errors import EngineMissing
from trainer.config import TrainConfig


class Curves:
    """Writes one run's figures. Raises EngineMissing where what the configuration asks for is not installed."""

    def __init__(self, config: TrainConfig, run: Path) -> None:
        self._log = run / "log.jsonl"
        self._board: Any = _tensorboard(run) if config.log.tensorboard else None
        self._wandb: Any = _wandb(config, run) if config.log.wandb != "off" else None

    def add(self, images: int, figures: dict[str, Any]) -> None:
        """Figures after so many pictures."""
        with self._log.open("a") as file:
            file.write(json.dumps({"images": images} | figures) + "\n")
        numbers = {key: value for key, value in figures.items() if isinstance(value, int | float)}
        if self._board is not None:
            for key, value in numbers.items():
                self._board.add_scalar(key, value, images)
            self._board.flush()
        if self._wandb is not None:
            self._wandb.log(numbers | {"images": images})

    def show(self, images: int, grid: NDArray[np.uint8]) -> None:
        """A picture (H, W, 3) uint8 RGB of samples: input | predicted | actual."""
        if self._board is not None:
            self._board.add_image("input | predicted | actual", grid, images, dataformats="HWC")
        if self._wandb is not None:
            import wandb

            self._wandb.log({"input | predicted | actual": wandb.Image(grid), "images": images})

    def close(self) -> None:
        """Flush everything."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def sample_grid(
    crops: NDArray[np.uint8], predicted: NDArray[np.float32], actual: NDArray[np.float32], side: int = 112
) -> NDArray[np.uint8]:
    """(n, S, S, 3) crops and their (n, S', S') masks in [0, 1] as one picture, a row per crop: (n * side, 3 * side, 3)."""
    rows = []
    for crop, said, true in zip(crops, predicted, actual, strict=True):
        masks = [cv2.cvtColor((m.clip(0, 1) * 255).astype(np.uint8), cv2.COLOR_GRAY2RGB) for m in (said, true)]
        rows.append(np.hstack([cv2.resize(np.asarray(x, np.uint8), (side, side)) for x in (crop, *masks)]))
    return np.vstack(rows)


def _tensorboard(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise EngineMissing(
            f"TensorBoard cannot be used ({error}): run `make install-trainer`, or set log.tensorboard = false"
        ) from error
    return SummaryWriter(str(run))


def _wandb(config: TrainConfig, run: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise EngineMissing(
            f'Weights & Biases cannot be used ({error}): `pip install "wandb>=0.31"`, or set log.wandb = "off"'
        ) from error
    begun = wandb.init(
        project="deepfake-farm", name=config.name, dir=str(run), mode=config.log.wandb, config=config.to_values()
    )
    # Else the curves run over calls of `log`, of which an epoch makes two or more.
    begun.define_metric("images")
    begun.define_metric("*", step_metric="images")
    return begun
