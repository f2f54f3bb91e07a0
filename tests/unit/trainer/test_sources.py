from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from farm.errors import BadInput
from trainer.sources import celebdf, dfdc, ffpp, pictures, table
from trainer.sources.listing import Listing, Source, tie


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def by_video(found: Listing) -> dict[str, Source]:
    return {source.video: source for source in found.sources}


def reasons(found: Listing) -> Counter[tuple[str, bool]]:
    return Counter((remark.reason, remark.kept) for remark in found.remarks)


def write_metadata(folder: Path, rows: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metadata.json").write_text(json.dumps(rows))


def test_dfdc_fakes_name_their_original_in_their_own_part_and_the_part_is_the_group(tmp_path: Path) -> None:
    for part in ("dfdc_train_part_0", "dfdc_train_part_1"):
        touch(tmp_path, f"{part}/a.mp4", f"{part}/b.mp4")
        write_metadata(
            tmp_path / part,
            {"b.mp4": {"label": "FAKE", "split": "train", "original": "a.mp4"}, "a.mp4": {"label": "REAL"}},
        )
    found = by_video(dfdc.read(tmp_path))
    assert len(found) == 4
    assert found["dfdc_train_part_1/b.mp4"] == Source(
        "dfdc_train_part_1/b.mp4", "FAKE", "dfdc_train_part_1/a.mp4", "dfdc_train_part_1", "dfdc"
    )
    assert found["dfdc_train_part_0/a.mp4"].original == "dfdc_train_part_0/a.mp4"


def test_a_flat_dfdc_folder_is_read_too(tmp_path: Path) -> None:
    touch(tmp_path / "flat", "a.mp4")
    write_metadata(tmp_path / "flat", {"a.mp4": {"label": "REAL"}})
    assert by_video(dfdc.read(tmp_path / "flat"))["a.mp4"].group == "flat"


def test_odd_dfdc_rows_are_counted_by_reason(tmp_path: Path) -> None:
    touch(tmp_path, "real.mp4", "maybe.mp4", "orphan.mp4", "no_dict.mp4", "of_a_fake.mp4")
    write_metadata(
        tmp_path,
        {
            "real.mp4": {"label": "REAL"},
            "gone.mp4": {"label": "REAL"},
            "maybe.mp4": {"label": "MAYBE"},
            "no_dict.mp4": "FAKE",
            "../elsewhere/real.mp4": {"label": "REAL"},
            "orphan.mp4": {"label": "FAKE", "original": "gone.mp4"},
            "of_a_fake.mp4": {"label": "FAKE", "original": "orphan.mp4"},
        },
    )
    found = dfdc.read(tmp_path)
    assert sorted(by_video(found)) == ["of_a_fake.mp4", "orphan.mp4", "real.mp4"]
    assert reasons(found) == {
        ("file is missing", False): 1,
        ("label is neither REAL nor FAKE", False): 2,
        ("name leads out of its folder", False): 1,
        ("fake without its original: mask unknown", True): 2,
    }
    assert by_video(found)["orphan.mp4"].original == "gone.mp4", "two fakes of one missing video still belong together"


@pytest.mark.parametrize("content", ['{"a.mp4": {"label": "REAL"', "[]", "\udcff"])
def test_a_broken_metadata_json_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "metadata.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=r"metadata\.json"):
        dfdc.read(tmp_path)


def test_an_empty_root_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="dfdc_train_part"):
        dfdc.read(tmp_path)
    with pytest.raises(BadInput, match="original_sequences"):
        ffpp.read(tmp_path)
    with pytest.raises(BadInput, match="Celeb-real"):
        celebdf.read(tmp_path)
    with pytest.raises(BadInput, match="portraits"):
        pictures.read(tmp_path)


def test_a_metadata_json_whose_files_are_all_missing_is_refused(tmp_path: Path) -> None:
    write_metadata(tmp_path, {"gone.mp4": {"label": "REAL"}})
    with pytest.raises(BadInput, match="file is missing"):
        dfdc.read(tmp_path)


def test_ffpp_groups_tie_the_target_and_the_source_of_every_fake(tmp_path: Path) -> None:
    reals = "original_sequences/youtube/c23/videos"
    touch(tmp_path, *(f"{reals}/{name}.mp4" for name in ("000", "003", "007")))
    touch(tmp_path, "manipulated_sequences/Deepfakes/c23/videos/003_000.mp4")
    touch(tmp_path, "manipulated_sequences/Deepfakes/c40/videos/003_000.mp4")
    found = by_video(ffpp.read(tmp_path))
    fake = found["manipulated_sequences/Deepfakes/c23/videos/003_000.mp4"]
    assert len(found) == 4
    assert (fake.original, fake.method) == (f"{reals}/003.mp4", "Deepfakes")
    assert found[f"{reals}/000.mp4"].group == found[f"{reals}/003.mp4"].group == fake.group
    assert found[f"{reals}/007.mp4"].group != fake.group


def test_deepfakedetection_names_tie_actors_and_keep_the_scene(tmp_path: Path) -> None:
    reals = "original_sequences/actors/raw/videos"
    touch(tmp_path, f"{reals}/01__walking.mp4", f"{reals}/02__talking.mp4", f"{reals}/03__talking.mp4")
    fake = "manipulated_sequences/DeepFakeDetection/raw/videos/01_02__walking__AB12CD34.mp4"
    touch(tmp_path, fake, "manipulated_sequences/DeepFakeDetection/raw/videos/notes.mp4")
    listed = ffpp.read(tmp_path, "raw")
    found = by_video(listed)
    assert found[fake].original == f"{reals}/01__walking.mp4"
    assert found[fake].group == found[f"{reals}/02__talking.mp4"].group != found[f"{reals}/03__talking.mp4"].group
    assert reasons(listed) == {("name tells no target and source", False): 1}


def test_a_compression_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    touch(tmp_path, "original_sequences/youtube/c40/videos/000.mp4")
    with pytest.raises(BadInput, match="it has c40"):
        ffpp.read(tmp_path, "c23")


@pytest.fixture
def celeb(tmp_path: Path) -> Path:
    touch(tmp_path, "Celeb-real/id0_0001.mp4", "Celeb-real/id1_0002.mp4", "Celeb-real/id5_0000.mp4")
    touch(tmp_path, "YouTube-real/00170.mp4", "Celeb-synthesis/id1_id0_0002.mp4", "Celeb-synthesis/odd.mp4")
    (tmp_path / "List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id1_id0_0002.mp4\n1 Celeb-real/id9_0009.mp4\n"
    )
    return tmp_path


def test_celebdf_fakes_name_the_video_and_tie_both_people(celeb: Path) -> None:
    listed = celebdf.read(celeb)
    found = by_video(listed)
    fake = found["Celeb-synthesis/id1_id0_0002.mp4"]
    assert fake.original == "Celeb-real/id1_0002.mp4"
    assert fake.group == found["Celeb-real/id0_0001.mp4"].group == found["Celeb-real/id1_0002.mp4"].group
    assert fake.group != found["Celeb-real/id5_0000.mp4"].group
    assert reasons(listed) == {("name tells no identity", False): 1}


def test_celebdf_test_list_parts_the_set_in_two(celeb: Path) -> None:
    test, rest = celebdf.read(celeb, "test"), celebdf.read(celeb, "rest")
    assert sorted(by_video(test)) == ["Celeb-synthesis/id1_id0_0002.mp4", "YouTube-real/00170.mp4"]
    assert sorted(by_video(rest)) == [f"Celeb-real/{n}.mp4" for n in ("id0_0001", "id1_0002", "id5_0000")]
    assert reasons(test)["file is missing", False] == 1
    with pytest.raises(BadInput, match="not one of"):
        celebdf.read(celeb, "tset")


def test_a_csv_finds_an_original_beside_its_fake_or_by_its_whole_path(tmp_path: Path) -> None:
    touch(tmp_path, "a/real.mp4", "a/near.mp4", "b/far.mp4")
    file = tmp_path / "videos.csv"
    file.write_text(
        "file, label ,original,group,note\na/real.mp4,real,,g,x\na/near.mp4,FAKE,real.mp4,g,\nb/far.mp4,FAKE,a/real.mp4\n"
    )
    found = by_video(table.read(file))
    assert found["a/near.mp4"].original == found["b/far.mp4"].original == "a/real.mp4"
    assert (found["a/real.mp4"].group, found["b/far.mp4"].group, found["b/far.mp4"].method) == ("g", "", "unknown")


def test_odd_csv_rows_are_counted_by_reason(tmp_path: Path) -> None:
    touch(tmp_path, "real.mp4", "unlabelled.mp4", "odd.mp4")
    file = tmp_path / "videos.csv"
    file.write_text("path,label\nreal.mp4,REAL\nreal.mp4,FAKE\nunlabelled.mp4,\nodd.mp4,2\n,REAL\ngone.mp4,FAKE\n")
    found = table.read(file)
    assert [source.video for source in found.sources] == ["real.mp4"]
    assert reasons(found) == {
        (reason, False): 1
        for reason in ("listed twice", "no label", "label is neither REAL nor FAKE", "no path", "file is missing")
    }


@pytest.mark.parametrize("content", [b"", b"path,kind\na.mp4,REAL\n", b"label\nREAL\n", b"path,label\n\xff\xfe,REAL\n"])
def test_a_csv_without_its_columns_or_text_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "videos.csv").write_bytes(content)
    with pytest.raises(BadInput, match=r"videos\.csv"):
        table.read(tmp_path / "videos.csv")


def test_portraits_of_one_person_share_a_group_and_other_files_are_left_alone(tmp_path: Path) -> None:
    touch(tmp_path, "x_A000001.jpg", "y_A000001.png", "someone.jpeg", "notes.txt")
    found = by_video(pictures.read(tmp_path))
    assert {video: source.group for video, source in found.items()} == {
        "x_A000001.jpg": "A000001",
        "y_A000001.png": "A000001",
        "someone.jpeg": "someone.jpeg",
    }


def test_tied_names_answer_the_smallest_of_all_they_reach() -> None:
    assert tie([("d", "c"), ("b", "c"), ("x", "x"), ("a", "d")]) == {"a": "a", "b": "a", "c": "a", "d": "a", "x": "x"}
