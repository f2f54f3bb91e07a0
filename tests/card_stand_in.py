"""Networks for the stand-in card (`stand_in/`), their model cards, and a handle to set what the card does and to read what it did."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cards import model_card
from stand_in import integer_network

from farm.contracts import CROP_SIDE_PX, ModelCard
from farm.settings import settings
from workers.engines.card_options import CardOptions
from workers.engines.vart import VartEngine

FOLDER = Path(integer_network.__file__).parent
VARIANTS = {
    8: ("DPUCVDX8H_ISA1_F2W2_8PE", 0x501000000140FEE),
    6: ("DPUCVDX8H_ISA1_F2W4_6PE_aieDWC", 0x501000000160C2F),
    4: ("DPUCVDX8H_ISA1_F2W4_4PE", 0x5010000001E082F),
}
"""DPU name and fingerprint by batch, as the vendor's table has them."""
INPUT_FIX_POINT = 7


def python() -> str:
    """The interpreter of the card's process: the vendor's where the environment names one, else this one."""
    return os.environ.get("FARM_VART_PYTHON") or sys.executable


def header(layers: list[dict[str, Any]], batch: int, **changes: Any) -> dict[str, Any]:
    """The attributes of a compiled network whose last class and mask layers are `class_fix` and `mask_fix`."""
    fix = {layer["name"]: layer.get("fix_point") for layer in layers}
    name, fingerprint = VARIANTS[batch]
    attributes = {"device": "DPU", "runner": {"run": "stand-in"}, "dpu_name": name, "dpu_fingerprint": fingerprint}
    made = {
        "subgraphs": [{"device": "USER"}, attributes],
        "batch": batch,
        "input_name": "crops_fix",
        "input_dims": [CROP_SIDE_PX, CROP_SIDE_PX, 3],
        "input_fix_point": INPUT_FIX_POINT,
        "outputs": [
            {"name": "class_fix", "dims": [1, 1, 1], "fix_point": fix["class_fix"]},
            {"name": "mask_fix", "dims": [CROP_SIDE_PX, CROP_SIDE_PX, 1], "fix_point": fix["mask_fix"]},
        ],
        "layers": layers,
    }
    return {**made, **changes}


def known_network() -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Class logit 8 * (mean brightness - 0.5), mask logit 8 * (red - 0.5), both on the [0, 1] scale; cheap to compute."""
    mask = np.zeros((1, 1, 3, 1))
    mask[..., 0, 0] = 8
    weights = {
        "class_fix.kernel": integer_network.rounded_weights(np.full((1, 1, 3, 1), 8 / 3), 5),
        "mask_fix.kernel": integer_network.rounded_weights(mask, 3),
        # a bias stands at the fix point of the sums: input + weight
        "class_fix.bias": np.array([-4 * 2 ** (7 + 5)]),
        "mask_fix.bias": np.array([-4 * 2 ** (INPUT_FIX_POINT + 3)]),
    }
    layers = [
        {"kind": "mean", "name": "mean_14", "of": ["input"], "size": 14, "fix_point": 7},
        {"kind": "mean", "name": "mean_224", "of": ["mean_14"], "size": 16, "fix_point": 7},
        {"kind": "conv", "name": "class_fix", "of": ["mean_224"], "weight_fix_point": 5, "fix_point": 5},
        {"kind": "conv", "name": "mask_fix", "of": ["input"], "weight_fix_point": 3, "fix_point": 4},
    ]
    return layers, weights


def uynet_network(width: int = 2, seed: int = 4) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """A U-YNet of random weights: four levels down, class head, four levels up with skips; fix points set on two pictures."""
    rng, layers, weights = np.random.default_rng(seed), [], {}
    picture = np.clip(
        rng.normal(60, 25, (2, 28, 28, 3)).repeat(8, 1).repeat(8, 2) + rng.normal(0, 8, (2, 224, 224, 3)), -128, 127
    )
    values = {"input": (picture.astype(np.int8), INPUT_FIX_POINT)}

    def add(kind: str, name: str, of: list[str], c_out: int = 0, size: int = 0, relu: bool = False) -> str:
        layer: dict[str, Any] = {"kind": kind, "name": name, "of": of, "relu": relu, "size": size, "fix_point": 4}
        if c_out:
            c_in = values[of[0]][0].shape[3]
            real = rng.normal(0, (2 / (size * size * c_in)) ** 0.5, (size, size, c_in, c_out))
            layer["weight_fix_point"] = fix = int(np.floor(np.log2(127 / np.abs(real).max())))
            weights[name + ".kernel"] = integer_network.rounded_weights(real, fix)
            weights[name + ".bias"] = rng.integers(-200, 200, c_out)
            sums = (integer_network.raised if kind == "raise" else integer_network.conv)(
                values[of[0]][0], weights[name + ".kernel"], weights[name + ".bias"]
            )
            peak = np.ldexp(np.percentile(np.abs(sums), 99.5), -(values[of[0]][1] + fix))
            layer["fix_point"] = int(np.floor(np.log2(127 / peak)))
        elif kind == "concat":
            layer["fix_point"] = min(values[source][1] for source in of)
        elif kind in ("max", "mean"):
            layer["fix_point"] = values[of[0]][1]
        layers.append(layer)
        values[name] = integer_network.apply(layer, weights, values)
        return name

    at = "input"
    for level in range(5):
        at = add("conv", f"down{level}a", [at], width << level, 3, relu=True)
        at = add("conv", f"down{level}b", [at], width << level, 3, relu=True)
        if level < 4:
            at = add("max", f"half{level}", [at], size=2)
    pooled = add("mean", "pool7", [add("max", "pool2", [at], size=2)], size=7)
    add("conv", "class_fix", [add("conv", "dense", [pooled], 4 * width, 1, relu=True)], 1, 1)
    for level in (3, 2, 1, 0):
        raised = add("raise", f"raise{level}", [at], width << level, 2)
        at = add("concat", f"skip{level}", [raised, f"down{level}b"])
        at = add("conv", f"up{level}a", [at], width << level, 3, relu=True)
        at = add("conv", f"up{level}b", [at], width << level, 3, relu=True)
    add("conv", "mask_fix", [at], 1, 1)
    return layers, weights


def write_xmodel(
    folder: Path,
    network: tuple[list[dict[str, Any]], dict[str, Any]],
    batch: int = 8,
    changes: dict[str, Any] | None = None,
    **card: Any,
) -> tuple[Path, ModelCard]:
    """The network as a compiled model of the DPU with that batch, and its model card; `changes` go to the file's header."""
    layers, weights = network
    path = folder / "known.xmodel"
    integer_network.save(path, header(layers, batch, **(changes or {})), weights)
    made = model_card(
        weights=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        width=2,
        input_name="crops_fix",
        class_output="class_fix",
        mask_output="mask_fix",
        dpu={"fingerprint": hex(VARIANTS[batch][1])},
    )
    return path, replace(made, **card)


def write_quantized(
    folder: Path, network: tuple[list[dict[str, Any]], dict[str, Any]], outputs: tuple[str, str], **changes: Any
) -> Path:
    """A quantized network that was not compiled, as the vendor's quantizer exports it, with its card; `changes` go to the file's
    header. `outputs` are the layers of the class and of the mask. The card's path."""
    layers, weights = network
    path = folder / "known_int.xmodel"
    fix = {layer["name"]: layer.get("fix_point") for layer in layers}
    made = {
        "subgraphs": [],
        "operators": ["data", "const", "fix", "conv2d", "relu", "maxpool2d", "concat"],
        "input_name": "crops_fix",
        "input_dims": [CROP_SIDE_PX, CROP_SIDE_PX, 3],
        "input_fix_point": INPUT_FIX_POINT,
        "outputs": [
            {"name": name, "dims": dims, "fix_point": fix[name]}
            for name, dims in zip(outputs, ([1, 1, 1], [CROP_SIDE_PX, CROP_SIDE_PX, 1]), strict=True)
        ],
        "layers": layers,
    }
    integer_network.save(path, {**made, **changes}, weights)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    card = model_card(weights=path.name, sha256=digest, training={"quantized_from": "0" * 64})
    path.with_suffix(".json").write_text(card.to_json())
    return path.with_suffix(".json")


@dataclass
class StandInCard:
    """A card that is not there: its behaviour in a file that its process reads at every start, and a journal of its lives."""

    folder: Path
    engines: list[VartEngine] = field(default_factory=list)

    def behave(self, **settings: Any) -> None:
        """Set what the card does from its next life on; see `stand_in/vart.py`."""
        (self.folder / "stand-in.json").write_text(json.dumps({"journal": str(self.folder / "journal"), **settings}))

    def journal(self, what: str) -> list[dict[str, Any]]:
        """The entries "start" or "end" of the card's lives so far."""
        path = self.folder / "journal"
        entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [entry for entry in entries if entry["what"] == what]

    def options(self, **changes: Any) -> CardOptions:
        firmware = self.folder / "dpu.xclbin"
        firmware.write_bytes(b"firmware")
        made = CardOptions(
            python=python(),
            path=(str(FOLDER),),
            firmware=str(firmware),
            device="0000:3b:00.0",
            start_deadline_seconds=30,
            job_deadline_seconds=20,
            lock_folder=str(self.folder / "locks"),
            pause_seconds=0.05,
        )
        return replace(made, **changes)

    def open(self, model: tuple[Path, ModelCard], **options: Any) -> VartEngine:
        """Open an engine on the card; it is closed after the test."""
        engine = VartEngine(*model, self.options(**options))
        self.engines.append(engine)
        return engine

    def live_processes(self) -> list[int]:
        return [entry["pid"] for entry in self.journal("start") if is_alive(entry["pid"])]


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def vart_model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Weights and card for the engine "vart" as the settings of the environment open it: the known network on the stand-in, or with
    `--real-vart CARD` that card's xmodel on the real card that FARM_VART_* names."""
    real = request.config.getoption("--real-vart")
    if real:
        card = ModelCard.load(Path(real))
        yield lambda **changes: (Path(real).with_name(card.weights), replace(card, **changes))
        return
    stand_in = request.getfixturevalue("stand_in_card")
    options = stand_in.options()
    monkeypatch.setenv("FARM_VART_PYTHON", options.python)
    monkeypatch.setenv("FARM_VART_PATH", ":".join(options.path))
    monkeypatch.setenv("FARM_VART_FIRMWARE", options.firmware)
    monkeypatch.setenv("FARM_VART_DEVICE", options.device)
    monkeypatch.setenv("FARM_VART_LOCK_FOLDER", options.lock_folder)
    settings.cache_clear()
    yield lambda **changes: write_xmodel(tmp_path, known_network(), **changes)
    settings.cache_clear()


@pytest.fixture
def stand_in_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A `StandInCard`; after the test its engines are closed and none of its processes is left."""
    card = StandInCard(tmp_path)
    monkeypatch.setenv("STAND_IN", str(tmp_path / "stand-in.json"))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    card.behave()
    yield card
    for engine in card.engines:
        engine.close()
    assert card.live_processes() == []
