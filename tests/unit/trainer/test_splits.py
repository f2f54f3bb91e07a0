"""No identity lies on two sides, unless somebody asked for a leak, and then it is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.trainer.conftest import crop_row

from farm.errors import BadInput
from trainer.cli.data import _report, _words
from trainer.manifest import CropSet, write_manifest
from trainer.splits import Policy, Split, by_video, count, largest_component, leaks, make_split


def a_set(folder: Path, *rows: dict[str, Any]) -> CropSet:
    folder.mkdir(exist_ok=True)
    write_manifest(folder, list(rows))
    return CropSet.open(folder)


def fake_of(original: str, video: str, **other: Any) -> dict[str, Any]:
    return crop_row(video, label="FAKE", original=original, method="swap", **other)


def families(folder: Path, count: int = 200) -> CropSet:
    """So many originals with three fakes each."""
    rows = [crop_row(f"r{i}") for i in range(count)]
    return a_set(folder, *rows, *(fake_of(f"r{i}", f"f{i}-{j}") for i in range(count) for j in range(3)))


def test_a_fake_goes_where_its_original_goes(tmp_path: Path) -> None:
    crops = families(tmp_path)
    split = make_split([crops], validation=0.3, test=0.2)
    for i in range(200):
        assert {split.side_of(f"f{i}-{j}") for j in range(3)} == {split.side_of(f"r{i}")}
    assert not leaks(split, [crops])


def test_sides_get_about_the_shares_that_were_asked_for(tmp_path: Path) -> None:
    counted = count(make_split([families(tmp_path, 1000)], validation=0.3, test=0.2), [CropSet.open(tmp_path)])
    assert counted["validation"].components == pytest.approx(300, abs=60)
    assert counted["test"].components == pytest.approx(200, abs=50)
    train = counted["train"]
    assert train.videos == train.crops == 4 * train.components and train.fakes == 3 * train.reals


def test_what_hangs_together_over_several_links_is_one_component(tmp_path: Path) -> None:
    crops = a_set(
        tmp_path, crop_row("a", group="x"), fake_of("a", "b", group="y"), crop_row("c", group="y"), crop_row("d")
    )
    split = make_split([crops])
    assert split.components["a"] == split.components["b"] == split.components["c"] == "x"
    assert split.components["d"] == "d"


def test_fakes_of_an_original_that_is_not_in_the_set_stay_together(tmp_path: Path) -> None:
    split = make_split([a_set(tmp_path, fake_of("gone", "f1"), fake_of("gone", "f2"))])
    assert split.components["f1"] == split.components["f2"] == "gone"


def test_fakes_of_unknown_origin_are_not_thrown_together(tmp_path: Path) -> None:
    split = make_split([a_set(tmp_path, fake_of("", "f1"), fake_of("", "f2"))])
    assert split.components["f1"] != split.components["f2"]


def test_faces_found_alike_are_kept_together(tmp_path: Path) -> None:
    crops = a_set(tmp_path, *(crop_row(f"v{i}") for i in range(40)))
    links = [(f"v{i}", f"v{i + 1}") for i in range(0, 40, 2)]
    joined = make_split([crops], validation=0.5, same_faces=links)
    assert all(joined.side_of(a) == joined.side_of(b) for a, b in links)
    assert joined.policy.same_face_links == 20
    assert any(
        make_split([crops], validation=0.5).side_of(a) != make_split([crops], validation=0.5).side_of(b)
        for a, b in links
    )


def test_one_person_in_two_sets_is_on_one_side(tmp_path: Path) -> None:
    sets = [a_set(tmp_path / s, *(crop_row(f"{s}{i}", group=f"p{i}") for i in range(60))) for s in ("one", "two")]
    split = make_split(sets, validation=0.5)
    assert all(split.side_of(f"one{i}") == split.side_of(f"two{i}") for i in range(60))
    assert not leaks(split, sets)


def test_adding_data_moves_nobody(tmp_path: Path) -> None:
    before = make_split([families(tmp_path / "a", 100)], validation=0.3)
    after = make_split([families(tmp_path / "b", 300)], validation=0.3)
    assert all(after.side_of(f"r{i}") == before.side_of(f"r{i}") for i in range(100))


def test_more_fakes_of_an_original_do_not_move_it(tmp_path: Path) -> None:
    lone = make_split([a_set(tmp_path, crop_row("m"))]).components["m"]
    assert make_split([a_set(tmp_path, crop_row("m"), fake_of("m", "a"))]).components["m"] == lone


def test_another_seed_draws_other_sides(tmp_path: Path) -> None:
    crops = families(tmp_path)
    sides = [make_split([crops], validation=0.5, seed=seed).sides(crops) for seed in (0, 0, 1)]
    assert np.array_equal(sides[0], sides[1])
    assert (sides[0] != sides[2]).any()


def test_a_split_by_video_leaks_and_every_leak_is_named(tmp_path: Path) -> None:
    crops = a_set(
        tmp_path, *(crop_row("r", group="ann"), fake_of("r", "f1"), fake_of("r", "f2", group="ann"), crop_row("s"))
    )
    seed = next(s for s in range(99) if make_split([crops], by="video", validation=0.5, seed=s).side_of("f2") == "validation"
                and make_split([crops], by="video", validation=0.5, seed=s).side_of("r") == "train")  # fmt: skip
    split = make_split([crops], by="video", validation=0.5, seed=seed)
    found = {(leak.kind, leak.name): leak.videos for leak in leaks(split, [crops])}
    assert ("group", "ann") in found and ("component", "ann") in found
    assert "f2" in found["original", "r"]["validation"] and "r" in found["original", "r"]["train"]
    assert not any(name == "s" for _, name in found)
    assert any(str(leak) == "group ann: 1 in train, 1 in validation" for leak in leaks(split, [crops]))


def test_a_split_by_frame_leaks_videos_and_has_no_side_for_one(tmp_path: Path) -> None:
    crops = a_set(tmp_path, *(crop_row("r", frame_index=i) for i in range(50)))
    split = make_split([crops], by="frame", validation=0.5)
    assert {leak.kind for leak in leaks(split, [crops])} == {"video", "original", "component"}
    assert 10 < len(split.rows(crops, "validation")) < 40
    with pytest.raises(BadInput, match="every frame"):
        split.side_of("r")


def test_a_split_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    crops = families(tmp_path, 20)
    for split in (make_split([crops], test=0.3, seed=4), make_split([crops], by="frame")):
        split.save(tmp_path)
        again = Split.open(tmp_path)
        assert again == split
        assert np.array_equal(again.sides(crops), split.sides(crops))


def test_a_video_the_split_does_not_know_is_an_error(tmp_path: Path) -> None:
    split = make_split([a_set(tmp_path / "a", crop_row("known"))])
    with pytest.raises(BadInput, match=r"'new'.*trainer split"):
        split.sides(a_set(tmp_path / "b", crop_row("known"), crop_row("new")))


def test_a_missing_or_foreign_split_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="trainer split"):
        Split.open(tmp_path)
    crops = families(tmp_path, 2)
    with pytest.raises(BadInput, match="no split"):
        Split.open(crops.folder / "manifest.parquet")


@pytest.mark.parametrize("shares", [(0.6, 0.4), (-0.1, 0.0), (0.0, 1.0)])
def test_shares_that_leave_no_training_are_refused(shares: tuple[float, float]) -> None:
    with pytest.raises(BadInput, match="leave something to train on"):
        Policy("component", *shares)


def test_the_largest_component_is_named_with_its_share(tmp_path: Path) -> None:
    crops = a_set(tmp_path, crop_row("a"), fake_of("a", "b"), fake_of("a", "c"), crop_row("z"))
    assert largest_component(make_split([crops])) == ("a", 0.75)


def test_rows_come_video_by_video_however_they_lie_in_the_set(tmp_path: Path) -> None:
    crops = a_set(tmp_path, *(crop_row(video, frame_index=i) for i, video in enumerate("bacab")))
    found = {video: rows.tolist() for video, rows in by_video(crops, np.array([4, 3, 1, 0]))}
    assert found == {"a": [1, 3], "b": [0, 4]}


def test_a_side_that_chance_left_empty_is_told_with_a_seed_that_fills_it(tmp_path: Path) -> None:
    crops = a_set(tmp_path, *(crop_row(name) for name in "abcd"))
    split = make_split([crops], validation=0.3, seed=_empty_seed("abcd"))
    told = [line for line in _words(_report(split, [crops])).splitlines() if line.startswith("EMPTY")]
    assert len(told) == 1 and told[0].startswith("EMPTY validation: in a small set chance does that")
    seed = int(told[0].split("--seed ")[1].split("`")[0])
    assert count(make_split([crops], validation=0.3, seed=seed), [crops])["validation"].videos


def _empty_seed(names: str) -> int:
    return next(s for s in range(1, 99) if {Policy(validation=0.3, seed=s).side(name) for name in names} == {"train"})


def test_one_component_cannot_fill_two_sides_and_no_seed_is_promised(tmp_path: Path) -> None:
    crops = a_set(tmp_path, crop_row("a", group="part_0"), crop_row("b", group="part_0"))
    (told,) = [line for line in _words(_report(make_split([crops]), [crops])).splitlines() if line.startswith("EMPTY")]
    assert "100% of the videos hang together in part_0" in told and "--seed" not in told


def test_nothing_is_advised_where_every_side_has_something(tmp_path: Path) -> None:
    assert _report(make_split([families(tmp_path)]), [families(tmp_path)])["advice"] == ""


def test_a_fake_is_not_called_its_own_original(tmp_path: Path) -> None:
    crops = a_set(tmp_path, *(row for i in range(9) for row in (crop_row(f"r{i}"), fake_of(f"r{i}", f"f{i}"))))
    named = {leak.name for leak in leaks(make_split([crops], "video", 0.5), [crops]) if leak.kind == "original"}
    assert named and all(name.startswith("r") for name in named)
