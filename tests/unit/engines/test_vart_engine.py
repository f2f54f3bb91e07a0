"""The VART engine on the stand-in card: its numbers against the integer reference, and every way of opening it wrongly."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from card_stand_in import FOLDER, StandInCard, known_network, uynet_network, write_xmodel
from stand_in import integer_network

from farm.contracts import ModelCard
from farm.errors import BadModel, BadObject, CardQuarantined, EngineBusy, EngineMissing, FarmError
from workers.engines.base import sigmoid
from workers.engines.fix_point import input_table
from workers.engines.vart import VartEngine

SIDE = 224
CARD = "card 0000:3b:00.0"


def crops(count: int, seed: int = 0) -> np.ndarray:
    """Crops of different brightness, smooth enough to look different to a network."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 14, 14, 3)) * rng.uniform(0.2, 1, (count, 1, 1, 1))
    return coarse.astype(np.uint8).repeat(16, 1).repeat(16, 2)


def reference(weights: Path, card: ModelCard, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Logits and mask logits by the integer reference, in real numbers."""
    header, values = integer_network.load(weights)
    table = input_table(card.input_scale, card.input_offset, header["input_fix_point"])
    answers = integer_network.compute(header, values, table[pixels])
    return tuple(
        answers[output["name"]].reshape(len(pixels), *output["dims"][:2]) * 2.0 ** -output["fix_point"]
        for output in header["outputs"]
    )


@pytest.mark.parametrize(
    ("batch", "swapped", "polarity"), [(8, True, "fake"), (6, False, "real"), (4, True, "real"), (8, False, "fake")]
)
def test_logits_and_masks_are_those_of_the_integer_reference(
    stand_in_card: StandInCard, tmp_path: Path, batch: int, swapped: bool, polarity: str
) -> None:
    stand_in_card.behave(swap_outputs=swapped)
    weights, card = write_xmodel(tmp_path, known_network(), batch, logit_polarity=polarity, mask_threshold=0.7)
    engine, pixels = stand_in_card.open((weights, card)), crops(11)
    assert engine.spec.batch == batch
    answer, (logits, mask_logits) = engine.predict(pixels), reference(weights, card, pixels)
    sign = 1 if polarity == "fake" else -1
    np.testing.assert_array_equal(answer.logits, sign * logits.ravel().astype(np.float32))
    np.testing.assert_array_equal(answer.masks, sigmoid(mask_logits) > 0.7)
    assert 0.05 < answer.masks.mean() < 0.95
    assert len(set(answer.logits.tolist())) > 5


def test_a_quantized_u_ynet_comes_through_to_the_bit(stand_in_card: StandInCard, tmp_path: Path) -> None:
    weights, card = write_xmodel(tmp_path, uynet_network(), 4, mask_threshold=0.55)
    pixels = crops(3)
    answer = stand_in_card.open((weights, card)).predict(pixels)
    logits, mask_logits = reference(weights, card, pixels)
    np.testing.assert_array_equal(answer.logits, logits.ravel().astype(np.float32))
    np.testing.assert_array_equal(answer.masks, sigmoid(mask_logits) > 0.55)
    assert 0.01 < answer.masks.mean() < 0.99
    assert len(set(answer.logits.tolist())) == 3


def test_the_canary_of_one_opening_is_the_reference_of_the_next(stand_in_card: StandInCard, tmp_path: Path) -> None:
    weights, card = write_xmodel(tmp_path, known_network())
    first = stand_in_card.open((weights, card))
    found = first.canary
    first.close()
    stand_in_card.open(write_xmodel(tmp_path, known_network(), dpu={**card.dpu, "canary": found})).close()
    other = {**found, "class": [value + 1 for value in found["class"]]}
    with pytest.raises(CardQuarantined, match=f"{CARD} is quarantined: lanes .* in doubt. Reset the card"):
        stand_in_card.open(write_xmodel(tmp_path, known_network(), dpu={**card.dpu, "canary": other}))


def test_closing_frees_the_card_in_order_and_ends_its_process(stand_in_card: StandInCard, tmp_path: Path) -> None:
    engine = stand_in_card.open(write_xmodel(tmp_path, known_network()))
    engine.predict(crops(20))
    engine.close()
    assert [entry["jobs"] for entry in stand_in_card.journal("end")] == [4]
    assert stand_in_card.live_processes() == []
    stand_in_card.open(write_xmodel(tmp_path, known_network())).predict(crops(1))


Broken = Callable[[StandInCard, Path], VartEngine]


def changed(changes: dict, behave: dict | None = None, card: dict | None = None, **options: object) -> Broken:
    """Opening a card with a changed xmodel header, behaviour, model card or options."""

    def open_it(stand_in: StandInCard, folder: Path) -> VartEngine:
        stand_in.behave(**(behave or {}))
        return stand_in.open(write_xmodel(folder, known_network(), changes=changes, **(card or {})), **options)

    return open_it


def with_file(content: bytes | None) -> Broken:
    """Opening a card with another file in the xmodel's place."""

    def open_it(stand_in: StandInCard, folder: Path) -> VartEngine:
        weights, card = write_xmodel(folder, known_network())
        weights.unlink() if content is None else weights.write_bytes(content)
        return stand_in.open((weights, card))

    return open_it


WRONG: dict[str, tuple[Broken, type[FarmError], str]] = {
    "missing xmodel": (with_file(None), BadModel, "cannot be read .*copy it again"),
    "empty xmodel": (with_file(b""), BadModel, "is empty: copy it again"),
    "float ONNX model": (with_file(b"\x08\x0a\x12\x07pytorch"), BadModel, "no xmodel: .*trainer compile"),
    "xmodel of no operator": (with_file(b"\x0a\x03abc"), BadModel, "has no DPU subgraph.*compile it with vai_c_xir"),
    "corrupt xmodel": (
        with_file(b"\x0a\x08stand-in\x12\x01{"),
        BadModel,
        "died of SIGABRT while reading the xmodel; .*cannot parse.*compile it",
    ),
    "float xmodel": (changed({"dtype": "xfloat32"}), BadModel, "xfloat32, expected int8: quantize"),
    "uncompiled xmodel": (changed({"subgraphs": [{"device": "CPU"}]}), BadModel, "no DPU subgraph.*vai_c_xir"),
    "split xmodel": (changed({"subgraphs": [{"device": "DPU"}] * 2}), BadModel, "2 DPU subgraphs"),
    "another DPU": (
        changed({}, card={"dpu": {"fingerprint": "0x1"}}),
        BadModel,
        "fingerprint is 0x501000000140fee, .*0x1",
    ),
    "no hexadecimal": (
        changed({}, card={"dpu": {"fingerprint": "DPU"}}),
        BadModel,
        "dpu.fingerprint 'DPU' is not hexadecimal",
    ),
    "another fix point": (
        changed({}, card={"dpu": {"mask_fix_point": 2}}),
        BadModel,
        "mask fix point is 4, its model card says 2",
    ),
    "no firmware": (changed({}, firmware=""), EngineMissing, "no firmware is set: set FARM_VART_FIRMWARE"),
    "missing firmware": (
        changed({}, firmware="/gone.xclbin"),
        EngineMissing,
        "/gone.xclbin cannot be read .*FARM_VART_FIRMWARE",
    ),
    "no interpreter": (changed({}, python=""), EngineMissing, "set FARM_VART_PYTHON"),
    "missing interpreter": (
        changed({}, python="/gone/python"),
        EngineMissing,
        "/gone/python cannot be started .*FARM_VART_PYTHON",
    ),
    "no runtime": (changed({}, path=()), EngineMissing, "cannot import the vendor's runtime .*FARM_VART_PYTHON"),
    "no card": (
        changed({}, {"no_card": True}),
        EngineMissing,
        "died of SIGABRT while opening the card; .*xbutil examine",
    ),
    "another card": (changed({}, {"device_id": 0}, device_index=1), EngineMissing, "opened card 0 instead of 1: .*XRM"),
    "all the same": (
        changed({}, {"lives": [{"same_at": 1}]}),
        CardQuarantined,
        "is quarantined: it answers four .* the same",
    ),
    "slow start": (
        changed({}, {"lives": [{"slow_start": 9}]}, start_deadline_seconds=0.3),
        EngineBusy,
        "not open after 0.3 s",
    ),
}


@pytest.mark.parametrize(("open_it", "error", "why"), WRONG.values(), ids=WRONG.keys())
def test_opening_it_wrongly_names_the_card_and_the_remedy(
    stand_in_card: StandInCard,
    tmp_path: Path,
    open_it: Broken,
    error: type[FarmError],
    why: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("XLNX_VART_FIRMWARE", raising=False)
    with pytest.raises(error, match=f"(?s)^{CARD}.*{why}"):
        open_it(stand_in_card, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, SIDE, SIDE, 3), np.int8), np.zeros((1, SIDE, SIDE, 3)), np.zeros((1, SIDE, 112, 3), np.uint8)],
    ids=["int8", "float64", "half as wide"],
)
def test_a_batch_of_another_kind_names_the_card_and_never_reaches_it(
    stand_in_card: StandInCard, tmp_path: Path, wrong: np.ndarray
) -> None:
    engine = stand_in_card.open(write_xmodel(tmp_path, known_network()))
    with pytest.raises(BadObject, match=f"^{CARD}: pixels are .*, expected uint8 .*; give it crops"):
        engine.predict(wrong)
    assert engine.predict(crops(1)).logits.shape == (1,)
    assert engine.losses == 0


def test_a_second_worker_on_a_card_is_told_who_has_it(stand_in_card: StandInCard, tmp_path: Path) -> None:
    model = write_xmodel(tmp_path, known_network())
    first = stand_in_card.open(model)
    with pytest.raises(EngineBusy, match=rf"{CARD} is already driven by process \d+ of this host.*another card"):
        stand_in_card.open(model)
    stand_in_card.open(model, device="0000:5e:00.0")
    first.close()
    stand_in_card.open(model)


def test_the_vendors_modules_are_found_where_its_interpreter_finds_them(
    stand_in_card: StandInCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process's script lies beside a vart.py of the farm, which must not be taken for the vendor's."""
    monkeypatch.setenv("PYTHONPATH", str(FOLDER))
    stand_in_card.open(write_xmodel(tmp_path, known_network()), path=())


def test_a_restart_needs_no_file_that_the_store_took_back(stand_in_card: StandInCard, tmp_path: Path) -> None:
    weights, card = write_xmodel(tmp_path, known_network())
    engine = stand_in_card.open((weights, card))
    weights.unlink()
    os.kill(engine.process_id, signal.SIGKILL)
    with suppress(EngineBusy):
        engine.predict(crops(1))
    assert engine.predict(crops(2)).logits.shape == (2,)
    assert len(stand_in_card.journal("start")) == 2


def test_an_xmodel_that_was_changed_in_place_is_not_opened_again(stand_in_card: StandInCard, tmp_path: Path) -> None:
    weights, card = write_xmodel(tmp_path, known_network())
    engine = stand_in_card.open((weights, card))
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"?")
    os.kill(engine.process_id, signal.SIGKILL)
    with suppress(EngineBusy):
        engine.predict(crops(1))
    with pytest.raises(CardQuarantined, match=r"cannot be opened again: .* sha256"):
        engine.predict(crops(1))


def test_the_firmware_in_the_environment_is_taken_where_no_setting_names_one(
    stand_in_card: StandInCard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLNX_VART_FIRMWARE", stand_in_card.options().firmware)
    stand_in_card.open(write_xmodel(tmp_path, known_network()), firmware="")
