"""One suite over every object store: a local folder, and a real S3 server."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import socket
import sys
import threading
import time
import tracemalloc
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.errors import BadInput, BadObject, StorageAway
from farm.storage import SCRATCH, ObjectStore, open_store
from farm.storage.local import LocalStore
from farm.storage.s3 import S3Store

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # children of a test end by themselves

ODD_KEYS = [
    "masks/1/2/000003/uynet-w16-0.1",
    "a b/c+d&e=f?g#h%20i",
    "umlaut ä/日本語/emoji 🎭",
    "line\nbreak/tab\t",
    "quote'\"<tag>&amp;",
    "..a/b../...",
    "~tilde/$HOME/*",
    "x" * 255,
]


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return open_store((tmp_path / "objects").as_uri())
    bucket, endpoint = request.getfixturevalue("s3_bucket"), request.getfixturevalue("s3_endpoint")
    return open_store(f"s3://{bucket}/some/prefix", endpoint_url=endpoint)


def test_what_was_put_is_got(store: ObjectStore) -> None:
    store.put("videos/abc", b"bytes \x00\xff")
    assert store.get("videos/abc") == b"bytes \x00\xff"
    assert store.size("videos/abc") == 8
    assert store.exists("videos/abc")


def test_an_empty_object_is_an_object(store: ObjectStore) -> None:
    store.put("empty", b"")
    assert store.get("empty") == b""
    assert store.size("empty") == 0


def test_a_view_of_an_array_is_stored_as_its_bytes(store: ObjectStore) -> None:
    store.put("view", memoryview(bytearray(b"0123456789"))[2:5])
    assert store.get("view") == b"234"


def test_put_replaces_an_older_object(store: ObjectStore) -> None:
    store.put("key", b"a long first version")
    store.put("key", b"second")
    assert store.get("key") == b"second"


def test_put_if_absent_keeps_the_first_object_and_says_who_stored_it(store: ObjectStore) -> None:
    assert store.put_if_absent("key", b"first") is True
    assert store.put_if_absent("key", b"second") is False
    assert store.get("key") == b"first"


def test_of_racers_for_an_absent_key_exactly_one_wins_and_its_bytes_stay(store: ObjectStore) -> None:
    for attempt in range(5):
        start = threading.Barrier(8)

        def race(racer: int, key: str = f"race/{attempt}", start: threading.Barrier = start) -> bool:
            start.wait()
            return store.put_if_absent(key, b"%d" % racer * 5000)

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(race, range(8)))
        assert won.count(True) == 1
        assert store.get(f"race/{attempt}") == b"%d" % won.index(True) * 5000


def test_a_reader_never_sees_half_an_object(store: ObjectStore) -> None:
    versions = [bytes([letter]) * 300_000 for letter in b"ab"]
    store.put("key", versions[0])
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for version in versions:
                store.put("key", version)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(40):
            assert store.get("key") in versions
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [(0, 4, b"0123"), (3, 4, b"3456"), (8, 100, b"89"), (9, 1, b"9"), (10, 5, b""), (50, 5, b""), (3, 0, b"")],
)
def test_a_range_is_cut_at_the_objects_end(store: ObjectStore, start: int, length: int, expected: bytes) -> None:
    store.put("digits", b"0123456789")
    assert store.get_range("digits", start, length) == expected


def test_a_negative_range_is_bad_input(store: ObjectStore) -> None:
    store.put("digits", b"0123456789")
    with pytest.raises(BadInput, match="range"):
        store.get_range("digits", -1, 4)
    with pytest.raises(BadInput, match="range"):
        store.get_range("digits", 0, -4)


READS: list[Callable[[ObjectStore], object]] = [
    lambda store: store.get("no/such"),
    lambda store: store.get_range("no/such", 0, 4),
    lambda store: store.get_range("no/such", 0, 0),
    lambda store: store.size("no/such"),
    lambda store: store.get_file("no/such").__enter__(),
]


@pytest.mark.parametrize("read", READS, ids=["get", "get_range", "empty range", "size", "get_file"])
def test_a_missing_object_is_bad_object_and_named(store: ObjectStore, read: Callable[[ObjectStore], object]) -> None:
    assert not store.exists("no/such")
    with pytest.raises(BadObject, match="no/such"):
        read(store)


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(store: ObjectStore) -> None:
    store.put("a/b", b"x")
    store.delete("a/b")
    assert not store.exists("a/b")
    assert list(store.list()) == []
    store.delete("a/b")


def test_listing_is_by_prefix_as_a_string_in_the_order_of_bytes(store: ObjectStore) -> None:
    keys = ["a", "a!", "a/1", "a/10", "a/2/x", "a0", "b/1", "z/ä", "z/z"]
    for key in reversed(keys):
        store.put(key + ("/leaf" if key == "a" else ""), b"")
    keys = sorted(["a/leaf", *keys[1:]], key=str.encode)
    assert list(store.list()) == keys
    assert list(store.list("a/")) == [key for key in keys if key.startswith("a/")]
    assert list(store.list("a/1")) == ["a/1", "a/10"]
    assert list(store.list("a")) == [key for key in keys if key.startswith("a")]
    assert list(store.list("a/2/")) == ["a/2/x"]
    assert list(store.list("nothing")) == list(store.list("nothing/at/all")) == []


def test_listing_goes_on_over_many_pages(store: ObjectStore) -> None:
    if isinstance(store, S3Store):
        store.page_keys = 7  # the server's own page is 1000 keys
    keys = [f"crops/{number:03d}" for number in range(30)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: store.put(key, b""), keys))
    assert list(store.list("crops/")) == keys


@pytest.mark.parametrize("key", ODD_KEYS)
def test_odd_keys_are_kept_as_they_are(store: ObjectStore, key: str) -> None:
    store.put(key, key.encode())
    assert store.get(key) == key.encode()
    assert store.size(key) == len(key.encode())
    assert list(store.list()) == [key]
    store.delete(key)
    assert not store.exists(key)


BAD_KEYS = [
    "",
    "/etc/passwd",
    "../x",
    "a/../../x",
    "a//b",
    "a/",
    "./a",
    "a/.",
    "a\0b",
    "\ud800",
    f"{SCRATCH}/x",
    "x" * 256,
    "x/" * 600 + "x",
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_that_leaves_its_folder_or_fits_no_store_is_bad_input_everywhere(store: ObjectStore, key: str) -> None:
    for call in (
        store.get,
        store.size,
        store.exists,
        store.delete,
        lambda key: store.put(key, b"x"),
        lambda key: store.presign(key, 9),
    ):
        with pytest.raises(BadInput, match="object key"):
            call(key)


@given(key=st.text(st.sampled_from("ab./\\\n\0~ ä"), max_size=12))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_key_reaches_beyond_the_local_folder(tmp_path: Path, key: str) -> None:
    shutil.rmtree(tmp_path / "root", ignore_errors=True)
    store = LocalStore(tmp_path / "root")
    try:
        store.put(key, b"x")
    except BadInput:
        return
    assert list(store.list()) == [key]
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_file_is_stored_once_and_read_back_as_a_file(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(os.urandom(100_000))
    assert store.put_file("videos/1", source) is True
    source.write_bytes(b"changed later")
    assert store.put_file("videos/1", source) is False
    with store.get_file("videos/1") as path:
        assert path.stat().st_size == 100_000
        assert path.read_bytes() == store.get("videos/1")
        downloaded = path
    assert downloaded.exists() == isinstance(store, LocalStore)


def test_a_large_file_goes_both_ways_without_being_held_in_memory(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "large"
    chunk = os.urandom(1 << 20)
    with source.open("wb") as file:
        for _ in range(60):
            file.write(chunk)
    tracemalloc.start()
    try:
        assert store.put_file("large", source) is True
        with store.get_file("large") as path:
            assert path.stat().st_size == 60 << 20
            with path.open("rb") as file:
                file.seek(59 << 20)
                assert file.read() == chunk
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 45 << 20
    assert store.get_range("large", 30 << 20, 100) == chunk[:100]


@pytest.mark.parametrize("name", ["missing", "folder"])
def test_a_file_that_cannot_be_read_is_the_callers_bad_input(store: ObjectStore, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput, match=name):
        store.put_file("key", tmp_path / name)
    assert not store.exists("key")


@pytest.mark.parametrize("key", ["masks/1", "a b/ä+%?#"])
def test_a_presigned_url_reads_the_object_without_credentials(store: ObjectStore, key: str) -> None:
    store.put(key, b"masked")
    url = store.presign(key, 60)
    assert url.startswith("file:///" if isinstance(store, LocalStore) else "http://127.0.0.1")
    with urllib.request.urlopen(url) as answer:
        assert answer.read() == b"masked"


def test_a_presigned_s3_url_reads_that_object_alone_and_expires(s3_bucket: str, s3_endpoint: str) -> None:
    store = open_store(f"s3://{s3_bucket}", endpoint_url=s3_endpoint)
    store.put("a", b"a")
    store.put("b", b"b")
    url = store.presign("a", 1)
    for refused in (url.replace("/a?", "/b?"), url.partition("?")[0]):
        with pytest.raises(urllib.error.HTTPError, match=r"40[03]"):
            urllib.request.urlopen(refused)
    time.sleep(2.1)
    with pytest.raises(urllib.error.HTTPError, match=r"40[03]"):
        urllib.request.urlopen(url)


def test_two_prefixes_of_one_bucket_do_not_see_each_other(s3_bucket: str, s3_endpoint: str) -> None:
    one, two = (open_store(f"s3://{s3_bucket}/{prefix}", endpoint_url=s3_endpoint) for prefix in ("one", "two/"))
    one.put("key", b"1")
    assert not two.exists("key")
    assert list(two.list()) == []
    assert list(open_store(f"s3://{s3_bucket}", endpoint_url=s3_endpoint).list()) == ["one/key"]


def test_a_full_disk_is_storage_away_and_leaves_no_half_object(tmp_path: Path) -> None:
    """In a child whose files may hold 64 KiB: the kernel refuses the write as a full disk does."""
    store = LocalStore(tmp_path / "objects")
    (tmp_path / "large").write_bytes(bytes(1 << 20))

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (65_536, 65_536))
        for write in (
            lambda: store.put("key", bytes(1 << 20)),
            lambda: store.put_if_absent("key", bytes(1 << 20)),
            lambda: store.put_file("key", tmp_path / "large"),
        ):
            with pytest.raises(StorageAway, match="is full"):
                write()

    assert in_child(fill) == 0
    assert not store.exists("key")
    assert list((tmp_path / "objects" / SCRATCH).iterdir()) == []


def test_a_full_file_system_is_storage_away_and_works_again_with_room(tmp_path: Path) -> None:
    """On a real file system of 1 MiB, mounted in a name space of the child's own."""
    root = tmp_path / "small"
    root.mkdir()

    def fill() -> None:
        mount_small(root)
        store = LocalStore(root)
        store.put("first", bytes(600_000))
        with pytest.raises(StorageAway, match="is full"):
            store.put("second", bytes(600_000))
        assert list(store.list()) == ["first"]
        store.delete("first")
        store.put("second", bytes(600_000))

    if in_child(fill) == CANNOT_MOUNT:
        pytest.skip("this kernel lets us mount nothing")
    assert in_child(fill) == 0


CANNOT_MOUNT = 77


def in_child(work: Callable[[], None]) -> int:
    """Exit status of the work done in a fork: 0 if it raised nothing."""
    return exit_status(fork(work))


def fork(work: Callable[[], None]) -> int:
    """The process id of a child that does the work and ends."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except SystemExit as stop:
            status = int(stop.code or 0)
        except BaseException as error:  # noqa: BLE001
            sys.stderr.write(f"{error!r}\n")
        os._exit(status)
    return child


def exit_status(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def mount_small(folder: Path) -> None:
    """Mount a tmpfs of 1 MiB for this process alone; exits with CANNOT_MOUNT where that is not allowed."""
    libc = ctypes.CDLL(None)
    new_mounts, new_user, private_recursive = 0x00020000, 0x10000000, (1 << 18) | (1 << 14)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(new_mounts | (new_user if user else 0)):
        sys.exit(CANNOT_MOUNT)
    if user:  # files need an owner who exists in the new name space
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
            Path("/proc/self/gid_map").write_text(f"0 {group} 1")
        except PermissionError:
            sys.exit(CANNOT_MOUNT)
    private = libc.mount(b"none", b"/", None, private_recursive, None)
    if private or libc.mount(b"small", os.fsencode(folder), b"tmpfs", 0, b"size=1m,mode=777"):
        sys.exit(CANNOT_MOUNT)


def test_a_local_folder_that_was_unmounted_is_away_and_its_objects_are_not_missing(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "objects")
    store.put("key", b"x")
    (tmp_path / "objects").rename(tmp_path / "elsewhere")
    calls = [
        *READS,
        lambda store: store.exists("key"),
        lambda store: list(store.list()),
        lambda store: store.put("key", b""),
    ]
    for call in calls:
        with pytest.raises(StorageAway, match="gone"):
            call(store)
    assert not (tmp_path / "objects").exists()


def test_a_folder_that_cannot_be_made_is_storage_away(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageAway, match="cannot be used"):
        open_store((tmp_path / "file" / "objects").as_uri())


def test_what_a_killed_writer_left_is_swept_after_a_day_and_never_listed(tmp_path: Path) -> None:
    scratch = tmp_path / SCRATCH
    scratch.mkdir()
    old, fresh = scratch / "old", scratch / "fresh"
    old.touch()
    fresh.touch()
    os.utime(old, (time.time() - 2 * 86_400,) * 2)
    store = LocalStore(tmp_path)
    assert list(scratch.iterdir()) == [fresh]
    assert list(store.list()) == []


CALLS: list[Callable[[ObjectStore], object]] = [
    *READS,
    lambda store: store.put("key", b"x"),
    lambda store: store.put_if_absent("key", b"x"),
    lambda store: store.exists("key"),
    lambda store: list(store.list()),
    lambda store: store.delete("key"),
    lambda store: store.put_file("key", Path(__file__)),
]


@pytest.mark.usefixtures("s3_server")
def test_an_endpoint_that_nobody_listens_on_is_storage_away_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    store = open_store("s3://farm", endpoint_url=f"http://127.0.0.1:{port}")
    begin = time.monotonic()
    with ThreadPoolExecutor(len(CALLS)) as pool:
        for outcome in [pool.submit(call, store) for call in CALLS]:
            with pytest.raises(StorageAway, match="did not answer"):
                outcome.result()
    assert time.monotonic() - begin < 30


@pytest.mark.usefixtures("s3_server")
def test_an_endpoint_that_accepts_and_falls_silent_is_storage_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.storage.s3.ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = open_store("s3://farm", endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(StorageAway, match="did not answer"):
            store.get("key")


def test_a_bucket_that_is_not_there_is_storage_away_and_says_what_to_mend(s3_endpoint: str) -> None:
    store = open_store("s3://no-such-bucket", endpoint_url=s3_endpoint)
    for call in (lambda: store.put("key", b"x"), lambda: store.get("key"), lambda: list(store.list())):
        with pytest.raises(StorageAway, match=r"NoSuchBucket.*make the bucket"):
            call()


def test_wrong_keys_are_storage_away_and_say_which_to_check(
    s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_store(f"s3://{s3_bucket}", endpoint_url=s3_endpoint)
    with pytest.raises(StorageAway, match="AWS_SECRET_ACCESS_KEY"):
        store.put("key", b"x")


def test_an_s3_store_is_safe_in_forked_children_that_work_at_once(s3_bucket: str, s3_endpoint: str) -> None:
    store = open_store(f"s3://{s3_bucket}", endpoint_url=s3_endpoint)
    for number in range(3):
        store.put(f"{number}", b"%d" % number * 100_000)

    def read_own(number: int) -> None:
        for _ in range(15):
            assert store.get(f"{number}") == b"%d" % number * 100_000

    children = [fork(lambda number=number: read_own(number)) for number in range(3)]
    assert [exit_status(child) for child in children] == [0, 0, 0]


@pytest.mark.parametrize("url", ["", "objects", "file://relative", "s3://", "ftp://host/x", "/absolute"])
def test_a_url_that_is_no_storage_is_bad_input(url: str) -> None:
    with pytest.raises(BadInput, match="storage URL"):
        open_store(url)


def test_a_folders_url_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "a b#c?d%20ä"
    open_store(folder.as_uri()).put("key", b"x")
    assert (folder / "key").read_bytes() == b"x"
