"""What batches are made of: kinds, twins, masks, balance; and that batch n is always batch n."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from unit.trainer.conftest import crop_row, write_portraits

from farm.errors import BadInput
from trainer import resynth
from trainer.augment import PLAIN
from trainer.dataset import INPUT_OFFSET, INPUT_SCALE, Batches, to_input
from trainer.generators import Generator
from trainer.manifest import CropSet, write_manifest
from trainer.material import Material, Pool, Source
from trainer.twins import draw_pair, draw_row, make_pair


def source(folder: Path, weight: float = 1.0, **kinds: float) -> Source:
    crops = CropSet.open(folder)
    return Source(crops, np.arange(len(crops)), kinds or {"self": 1.0, "donor": 1.0}, weight)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_batch_n_is_the_same_whether_or_not_one_starts_there(portraits: Path) -> None:
    material = Material.of([source(portraits)])
    whole, late = iter(Batches(material, 2, seed=5)), iter(Batches(material, 2, seed=5, first=2))
    first, second, third = (next(whole) for _ in range(3))
    assert all(torch.equal(a, b) for a, b in zip(third, next(late), strict=True))
    assert not torch.equal(first.crops, second.crops) and not torch.equal(second.crops, third.crops)


def test_two_spawned_processes_give_the_batches_of_one(aligned: Path) -> None:
    material = pickle.loads(pickle.dumps(Material.of([source(aligned, pair=1.0, self=1.0)])))
    batches = Batches(material, 1, seed=3)
    loader = DataLoader(batches, batch_size=None, num_workers=2, multiprocessing_context="spawn")
    alone = iter(batches)
    for batch, _ in zip(loader, range(4), strict=False):
        assert all(torch.equal(a, b) for a, b in zip(batch, next(alone), strict=True))


def test_a_batch_holds_reals_with_empty_masks_and_then_their_fakes(portraits: Path) -> None:
    batch = next(iter(Batches(Material.of([source(portraits)]), 3, seed=1)))
    assert batch.crops.shape == (6, 3, 224, 224) and batch.crops.dtype == torch.uint8
    assert batch.crops.is_contiguous(memory_format=torch.channels_last)
    assert batch.masks.shape == (6, 1, 224, 224)
    assert not batch.masks[:3].any()
    assert batch.masks[3:].flatten(1).any(dim=1).all()
    assert batch.mask_known.tolist() == [True] * 6


def test_without_augmentation_a_blend_differs_only_around_its_mask(portraits: Path) -> None:
    pair = make_pair(source(portraits), 0, "donor", rng(), PLAIN)
    differs = (pair.real != pair.fake).any(axis=2)
    assert differs[pair.mask].mean() > 0.9
    assert differs[~pair.mask].mean() < 0.15


def test_a_data_sets_own_fake_comes_with_its_original_and_mask(aligned: Path) -> None:
    own = source(aligned, pair=1.0)
    row = draw_row(own, "pair", rng())
    pair = make_pair(own, row, "pair", rng(), PLAIN)
    assert np.array_equal(pair.fake, own.crops.crop(row))
    assert np.array_equal(pair.real, own.crops.crop(int(own.crops.original_rows[row])))
    mask = own.crops.mask(row)
    assert mask is not None and np.array_equal(pair.mask, mask) and pair.mask_known


def test_twins_are_augmented_alike(aligned: Path) -> None:
    own = source(aligned, pair=1.0)
    for seed in range(6):
        pair = make_pair(own, draw_row(own, "pair", rng(seed)), "pair", rng(seed))
        outside = ~(
            np.asarray(torch.nn.functional.max_pool2d(torch.tensor(pair.mask[None].astype(np.float32)), 41, 1, 20))[0]
            > 0
        )
        difference = np.abs(pair.real.astype(int) - pair.fake)[outside].mean()
        assert difference < 6, "away from the mask the twins differ by the codecs' noise alone"


def test_a_fake_without_original_stands_beside_a_real_and_its_mask_is_unknown(with_unpaired: Path) -> None:
    batch = next(iter(Batches(Material.of([source(with_unpaired, unpaired=1.0)]), 2, seed=0)))
    assert batch.mask_known.tolist() == [True, True, False, False]
    assert not batch.masks.any()


def test_an_unpaired_fake_and_its_real_are_augmented_each_for_itself(with_unpaired: Path) -> None:
    lost = source(with_unpaired, unpaired=1.0)
    row = draw_row(lost, "unpaired", rng())
    pair = make_pair(lost, row, "unpaired", rng(4), PLAIN)
    assert np.array_equal(pair.fake, lost.crops.crop(row))
    fakes = {make_pair(lost, row, "unpaired", rng(seed)).fake.tobytes() for seed in range(4)}
    assert len(fakes) == 4


def test_a_fake_whose_original_is_on_another_side_is_no_pair(aligned: Path) -> None:
    crops = CropSet.open(aligned)
    keep = np.flatnonzero(crops.videos != "real0.mp4")
    own = Source(crops, keep, {"pair": 1.0, "unpaired": 1.0})
    lonely = {str(crops.videos[row]) for pool in own.fakes["unpaired"] for row in pool.rows}
    assert lonely == {"swap0.mp4", "mix0.mp4"}
    assert make_pair(own, int(own.fakes["unpaired"][0].rows[0]), "unpaired", rng()).mask_known


def test_rows_outside_the_side_are_never_used(aligned: Path) -> None:
    crops = CropSet.open(aligned)
    side = np.flatnonzero(crops.column("group") == "g1")
    own = Source(crops, side, {"pair": 1.0, "self": 1.0})
    drawn = {draw_row(own, kind, rng(seed)) for seed in range(40) for kind in own.kinds}
    assert drawn <= set(side.tolist()) and len(drawn) > 4


def test_a_donor_is_always_of_another_group(portraits: Path) -> None:
    from trainer.twins import _donor

    own = source(portraits)
    assert all(own.groups[_donor(own, 3, rng(seed))] != own.groups[3] for seed in range(30))


def test_the_kinds_come_in_their_shares_and_the_sources_by_their_weights(portraits: Path, aligned: Path) -> None:
    material = Material.of([source(portraits, 3.0, self=1.0), source(aligned, 1.0, pair=3.0, resampled=1.0)])
    random = rng(1)
    counted = Counter(material.draw(random)[1] for _ in range(4000))
    assert counted["self"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert counted["pair"] / counted["resampled"] == pytest.approx(3, rel=0.25)


def test_methods_of_fakes_are_drawn_evenly(aligned: Path, tmp_path: Path) -> None:
    table = CropSet.open(aligned).table.to_pylist()
    rare = [row for row in table if row["method"] != "mix" or row["video"] == "mix0.mp4"]
    (tmp_path / "crops").symlink_to(aligned / "crops")
    (tmp_path / "masks").symlink_to(aligned / "masks")
    write_manifest(tmp_path, rare)
    own, random = source(tmp_path, pair=1.0), rng(2)
    methods = Counter(str(own.crops.column("method")[draw_row(own, "pair", random)]) for _ in range(600))
    assert methods["mix"] / 600 == pytest.approx(0.5, abs=0.07)


def test_a_group_counts_as_much_as_another_however_many_videos_and_frames_it_has() -> None:
    groups, videos = np.array([0] * 90 + [1] * 10), np.array([0] * 80 + [1] * 10 + [2] * 10)
    pool, random = Pool.of(np.arange(100), groups, videos), rng()
    drawn = np.array([pool.draw(random) for _ in range(2000)])
    assert (groups[drawn] == 1).mean() == pytest.approx(0.5, abs=0.05)
    assert (videos[drawn] == 1).mean() == pytest.approx(0.25, abs=0.05)
    assert set(drawn) == set(range(100))


def test_an_empty_pool_has_no_row() -> None:
    assert len(Pool.of(np.array([], np.intp), np.arange(3), np.arange(3))) == 0


def test_monochrome_faces_come_in_their_share(portraits: Path) -> None:
    crops = CropSet.open(portraits)
    own = Source(crops, np.arange(24), {"self": 1.0}, mono_share=0.4)
    random = rng()
    drawn = [draw_row(own, "self", random) for _ in range(1000)]
    assert np.mean([row >= 22 for row in drawn]) == pytest.approx(0.4, abs=0.05)
    as_they_come = Source(crops, np.arange(24), {"self": 1.0}, mono_share=None)
    assert np.mean([draw_row(as_they_come, "self", random) >= 22 for _ in range(1000)]) == pytest.approx(
        1 / 12, abs=0.03
    )


def test_faces_without_points_give_no_blends_and_are_counted(tmp_path: Path) -> None:
    write_portraits(tmp_path)
    rows = CropSet.open(tmp_path).table.to_pylist()
    write_manifest(tmp_path, [row | {"points": None} if i < 5 else row for i, row in enumerate(rows)])
    own = source(tmp_path)
    assert own.without_points == 5
    assert min(draw_row(own, "self", rng(seed)) for seed in range(60)) >= 5
    write_manifest(tmp_path, [row | {"points": None} for row in rows])
    with pytest.raises(BadInput, match="24 have no five points"):
        source(tmp_path)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("pair", "none of its 0 usable fakes"),
        ("unpaired", "no usable fake"),
        ("redrawn", "trainer redraw"),
        ("morph", "not morph"),
    ],
)
def test_a_kind_a_set_cannot_give_is_refused_at_the_start(portraits: Path, kind: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason):
        source(portraits, **{kind: 1.0})


def test_one_person_alone_has_no_donor(tmp_path: Path) -> None:
    write_manifest(tmp_path, [crop_row("a", group="x"), crop_row("b", group="x")])
    with pytest.raises(BadInput, match="nobody can lend a face"):
        source(tmp_path, donor=1.0)


@pytest.mark.parametrize("kinds", [{"self": 0.0}, {"self": -1.0}, {}])
def test_shares_must_be_positive(portraits: Path, kinds: dict[str, float]) -> None:
    with pytest.raises(BadInput, match=r"kind|above 0"):
        Source(CropSet.open(portraits), np.arange(24), kinds)


#: one for training and one kept out of it, of another side
TWO = (
    Generator("seen", 32, (4, 4), "nearest", critic=True),
    Generator("kept-out", 48, (4,), "shuffle", unseen=True),
)


def test_the_generators_faces_follow_the_manifests_rows(portraits_copy: Path) -> None:
    crops = CropSet.open(portraits_copy)
    resynth.redraw(crops, np.arange(16), steps=4, batch=4, generators=TWO)
    for unseen, side in ((False, 32), (True, 48)):
        (drawn,) = resynth.open_redrawn(crops, unseen)
        assert drawn.shape == (24, side, side, 3) and drawn.reshape(24, -1).any(axis=1).all()
    for kind in ("redrawn", "unseen"):
        own = source(portraits_copy, **{kind: 1.0})
        assert {draw_pair(Material.of([own]), rng(seed)).kind for seed in range(3)} == {kind}
        assert [len(own.redrawn[name]) for name in (kind, *({"redrawn", "unseen"} - {kind}))] == [1, 0]


def test_what_only_unseen_generators_drew_is_not_trained_on(portraits_copy: Path) -> None:
    resynth.redraw(CropSet.open(portraits_copy), np.arange(16), steps=1, batch=4, generators=TWO[1:])
    with pytest.raises(BadInput, match="nothing of a generator for training"):
        source(portraits_copy, redrawn=1.0)


def test_faces_drawn_for_another_manifest_or_split_are_stale(portraits_copy: Path) -> None:
    crops = CropSet.open(portraits_copy)
    resynth.redraw(crops, np.arange(16), steps=1, batch=4, generators=TWO)
    (portraits_copy / "split.parquet").write_bytes(b"another split")
    with pytest.raises(BadInput, match=r"stale, split\.parquet changed"):
        resynth.open_redrawn(crops)
    (portraits_copy / "split.parquet").unlink()
    write_manifest(portraits_copy, crops.table.to_pylist()[::-1])
    with pytest.raises(BadInput, match=r"stale, manifest\.parquet changed"):
        resynth.open_redrawn(CropSet.open(portraits_copy))


def test_generators_learn_from_the_training_sides_reals_alone(portraits_copy: Path, aligned: Path) -> None:
    crops = CropSet.open(portraits_copy)
    resynth.redraw(crops, np.arange(12), steps=3, batch=4, generators=TWO)
    once = [np.array(resynth.open_redrawn(crops, unseen)[0][:2]) for unseen in (False, True)]
    changed = np.load(portraits_copy / "crops" / "20.jpg.npy") // 2
    np.save(portraits_copy / "crops" / "20.jpg.npy", changed)
    resynth.redraw(crops, np.arange(12), steps=3, batch=4, generators=TWO)
    for unseen, before in enumerate(once):
        again = resynth.open_redrawn(crops, bool(unseen))[0][:2]
        assert np.array_equal(before, again), "row 20 is held out, so it changes nothing for rows 0 and 1"
    own = CropSet.open(aligned)
    with pytest.raises(BadInput, match="no real"):
        resynth.redraw(own, np.flatnonzero(own.fake), steps=1, batch=4, generators=TWO)


def test_the_networks_input_is_what_the_card_says() -> None:
    levels = to_input(torch.tensor([0, 128, 255], dtype=torch.uint8))
    assert levels.tolist() == [INPUT_OFFSET, 128 * INPUT_SCALE + INPUT_OFFSET, 255 * INPUT_SCALE + INPUT_OFFSET]
