"""Prepared sets in the object store, and configs that name them."""

from __future__ import annotations

import tomllib

import pytest

from farm.errors import BadInput, BadObject
from farm.jobs.training.datasets import mirror_dataset, upload_dataset
from farm.jobs.training.submit import check_config, dataset_folders, models_in, resolved_config
from farm.storage.local import LocalStore

CONFIG = 'w = 2\n[[data]]\nmanifest = "dataset:faces/manifest.parquet"\n[[data]]\nmanifest = "/shared/other"\n'


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "objects")


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "faces"
    (folder / "crops").mkdir(parents=True)
    (folder / "manifest.parquet").write_bytes(b"rows")
    (folder / "crops" / "a.npy").write_bytes(b"pixels")
    return folder


def test_a_mirrored_set_has_the_same_files_and_is_brought_once(store, prepared, tmp_path):
    digest = upload_dataset(store, prepared)
    folder = mirror_dataset(store, digest, tmp_path / "cache")

    assert (folder / "manifest.parquet").read_bytes() == b"rows"
    assert (folder / "crops" / "a.npy").read_bytes() == b"pixels"
    for key in list(store.list("datasets/")):
        store.delete(key)
    assert mirror_dataset(store, digest, tmp_path / "cache") == folder, "nothing was fetched again"


def test_the_same_set_has_one_digest_and_a_new_split_shares_its_pixels(store, prepared):
    first = upload_dataset(store, prepared)
    assert upload_dataset(store, prepared) == first
    files = set(store.list("datasets/files/"))
    (prepared / "split.parquet").write_bytes(b"sides")

    assert upload_dataset(store, prepared) != first
    assert len(set(store.list("datasets/files/")) - files) == 1


def test_a_half_mirrored_set_is_finished_and_a_wrong_file_in_it_replaced(store, prepared, tmp_path):
    digest = upload_dataset(store, prepared)
    half = tmp_path / "cache" / digest
    half.mkdir(parents=True)
    (half / "manifest.parquet").write_bytes(b"swor")

    assert (mirror_dataset(store, digest, tmp_path / "cache") / "manifest.parquet").read_bytes() == b"rows"


def test_a_damaged_object_is_no_data_set(store, prepared, tmp_path):
    digest = upload_dataset(store, prepared)
    for key in list(store.list("datasets/files/")):
        store.put(key, b"other")

    with pytest.raises(BadObject, match="is damaged"):
        mirror_dataset(store, digest, tmp_path / "cache")


def test_a_folder_without_a_manifest_is_refused(store, tmp_path):
    with pytest.raises(BadInput, match="trainer prepare"):
        upload_dataset(store, tmp_path)


def test_names_become_the_workers_paths_and_other_paths_stay(tmp_path):
    config = CONFIG + '[run]\nstart_from = "model:seen@1"\n'
    copies = {"faces": tmp_path / 'a "b"'}
    resolved = tomllib.loads(resolved_config(config, copies, {"seen@1": tmp_path / "card.json"}))

    paths = [each["manifest"] for each in resolved["data"]]
    assert paths == [str(tmp_path / 'a "b"' / "manifest.parquet"), "/shared/other"]
    assert models_in(config) == ["seen@1"] and resolved["run"]["start_from"] == str(tmp_path / "card.json")


@pytest.mark.parametrize(
    ("config", "datasets", "said"),
    [
        ("a = ", {}, "no TOML"),
        (CONFIG, {}, "no --dataset of that name"),
        (CONFIG, {"faces": "x", "idle": "y"}, "dataset:idle"),
        (CONFIG + '[run]\nstart_from = "weights/card.json"', {"faces": "x"}, "no worker finds: register the card"),
    ],
)
def test_a_config_that_cannot_work_is_refused_before_anything_is_sent(config, datasets, said):
    with pytest.raises(BadInput, match=said):
        check_config(config, datasets)


def test_data_sets_are_named_by_their_folder_or_as_told(tmp_path):
    assert dataset_folders([str(tmp_path / "faces"), f"more={tmp_path}"]) == {
        "faces": tmp_path / "faces",
        "more": tmp_path,
    }
    with pytest.raises(BadInput, match="two data sets"):
        dataset_folders(["a/faces", "b/faces"])
