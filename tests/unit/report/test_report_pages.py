"""The report of a scan: every file it writes, read as a browser, a spreadsheet and a hostile name would."""

import csv
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from farm.db.models import Scan
from farm.errors import BadInput, StorageAway
from farm.report import write_report

FAKE = [8.0] * 10
REAL = [-8.0] * 10
UNSURE = [0.2] * 10


class Page(HTMLParser):
    """What a browser would find: tags with attributes, and the text that is shown."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._silent = 0
        self.feed(path.read_text("utf-8"))
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {key: value or "" for key, value in attrs}))
        self._silent += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        self.text += "" if self._silent else data

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]


def listed(index: Path) -> list[str]:
    """Names in the table of videos, in its order."""
    return [cell["data-key"] for cell in Page(index).all("td") if cell.get("class") == "name"]


@pytest.fixture
def scan(report_scan: Callable[..., object]) -> object:
    return report_scan()


def test_a_scan_becomes_an_index_a_page_per_video_and_three_tables(scan, seen, tmp_path: Path) -> None:
    second = scan.add("in/real.mp4", [seen(0, REAL)])
    first = scan.add("in/fake.mp4", [seen(0, FAKE), seen(1, REAL)])
    index = write_report(scan.farm, scan.scan_id, tmp_path / "out")
    assert index == tmp_path / "out" / "index.html"
    assert sorted(path.name for path in index.parent.iterdir()) == [
        "index.html", "results.csv", "results.json", "results.parquet", *sorted([f"video-{first}.html", f"video-{second}.html"]),
    ]  # fmt: skip
    rows = json.loads((index.parent / "results.json").read_text())
    assert [(row["name"], row["verdict"]) for row in rows] == [("real.mp4", "REAL"), ("fake.mp4", "FAKE")]
    assert listed(index) == ["fake.mp4", "real.mp4"]
    needed = {
        "name",
        "sha256",
        "verdict",
        "p_fake",
        "faces",
        "tracks",
        "frames_read",
        "duration_seconds",
        "reasons",
        "model",
        "engine",
    }
    assert needed <= rows[0].keys()
    assert rows[0]["engine"] == "onnx fp32 on cpu"


def test_pages_load_nothing_and_run_no_script_but_their_own(scan, seen, tmp_path: Path) -> None:
    scan.add("in/fake.mp4", [seen(0, FAKE)])
    folder = write_report(scan.farm, scan.scan_id, tmp_path).parent
    for path in folder.glob("*.html"):
        page = Page(path)
        assert not page.all("link") + page.all("iframe") + [tag for tag in page.all("script") if tag]
        assert all(image["src"].startswith("data:image/jpeg;base64,") for image in page.all("img"))
        assert all(
            re.fullmatch(r"(index|video-\d+)\.html|results\.(csv|json|parquet)", link["href"]) for link in page.all("a")
        )
        policy = next(
            meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy.startswith("default-src 'none'; img-src data:")
        assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", path.read_text())


HOSTILE = [
    "<script>alert(1)</script>.mp4",
    '"><img src=x onerror=alert(1)>.mp4',
    "{{ 7001 * 7003 }}{% raw %}.mp4",
    "two\nlines\r\n\t.mp4",
    "x" * 300 + ".mp4",
    "exe\u202e4pm.evil",
    "caf\udce9.mp4",
    "=cmd|' /C calc'!A0.mp4",
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_hostile_name_stays_text_everywhere(scan, seen, tmp_path: Path, hostile: str) -> None:
    hostile_on_disk = hostile.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    scan.add("in\\" + hostile_on_disk, [seen(0, UNSURE)], notes=[hostile_on_disk])
    folder = write_report(scan.farm, scan.scan_id, tmp_path).parent
    for path in folder.glob("*.html"):
        page = Page(path)
        assert len(page.all("script")) == (1 if path.name == "index.html" else 0)
        assert not any(key.startswith("on") for _, attrs in page.tags for key in attrs)
        assert str(7001 * 7003) not in page.text
        assert "\u202e" not in path.read_text()
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        assert len(list(csv.DictReader(file))) == 1


def test_a_demonstration_model_is_announced_and_its_words_are_weak(report_scan, seen, tmp_path: Path) -> None:
    for demonstration in (True, False):
        scan = report_scan(demonstration=demonstration)
        number = scan.add("in/fake.mp4", [seen(0, FAKE)])
        folder = write_report(scan.farm, scan.scan_id, tmp_path / str(demonstration)).parent
        for name in ("index.html", f"video-{number}.html"):
            text = Page(folder / name).text
            assert ("Demonstration model: nothing here is a finding." in text) is demonstration
            assert ("weak hint" in text) is demonstration


def test_a_video_page_shows_timeline_crops_masks_frames_and_how_it_was_made(scan, seen, tmp_path: Path) -> None:
    number = scan.add("in/fake.mp4", [seen(0, FAKE), seen(1, REAL)], rejected={"too_small": 3})
    page = Page(write_report(scan.farm, scan.scan_id, tmp_path).parent / f"video-{number}.html")
    assert len([tag for tag in page.all("path") if tag.get("class") == "line"]) == 2
    assert any(tag.get("class") == "limit" for tag in page.all("path"))
    assert len(page.all("img")) == 2 * 8 + 1
    assert all(image["alt"] for image in page.all("img"))
    for told in (
        "3 too small",
        "ab" * 32,
        "cd" * 32,
        "keyframes",
        "uynet-w16 0.1",
        "onnx fp32 on cpu",
        "0.1.0+test",
        "1 % per real face",
    ):
        assert told in page.text


def test_a_mask_is_painted_on_the_crop(scan, seen, tmp_path: Path) -> None:
    number = scan.add("in/fake.mp4", [seen(0, FAKE)])
    page = Page(write_report(scan.farm, scan.scan_id, tmp_path).parent / f"video-{number}.html")
    plain, masked = (image["src"] for image in page.all("img")[:2])
    assert plain != masked


def test_objects_that_are_gone_become_a_sentence_and_the_verdict_stands(scan, seen, tmp_path: Path) -> None:
    number = scan.add("in/fake.mp4", [seen(0, FAKE)])
    for key in list(scan.farm.store.list("")):
        scan.farm.store.delete(key)
    page = Page(write_report(scan.farm, scan.scan_id, tmp_path).parent / f"video-{number}.html")
    assert "could not be shown" in page.text
    assert "FAKE" in page.text
    assert not page.all("img")


def test_unreadable_missing_and_faceless_videos_have_their_reason_and_no_score(scan, seen, tmp_path: Path) -> None:
    scan.add("in/damaged.mp4", error="The file cannot be opened as video.")
    scan.add("in/landscape.mp4", faces_found=0)
    scan.add_path("in/missing.mp4", error="There is no file at this path.")
    folder = write_report(scan.farm, scan.scan_id, tmp_path).parent
    rows = {row["name"]: row for row in json.loads((folder / "results.json").read_text())}
    assert listed(folder / "index.html") == ["landscape.mp4", "damaged.mp4", "missing.mp4"]
    assert rows["damaged.mp4"]["verdict"] == "UNREADABLE"
    assert rows["landscape.mp4"]["verdict"] == "NO_FACE"
    assert rows["missing.mp4"]["verdict"] == "UNREADABLE"
    assert rows["missing.mp4"]["reasons"] == ["There is no file at this path."]
    assert all(row["p_fake"] is None for row in rows.values())
    text = Page(folder / "index.html").text
    assert "There is no file at this path." in text
    assert "The file cannot be opened as video." in text


def test_two_paths_of_the_same_bytes_share_a_page_and_keep_their_rows(scan, seen, tmp_path: Path) -> None:
    number = scan.add("in/a.mp4", [seen(0, REAL)])
    scan.add_path("in/copy of a.mp4", scan_video_id=number)
    folder = write_report(scan.farm, scan.scan_id, tmp_path).parent
    links = [link["href"] for link in Page(folder / "index.html").all("a")]
    assert links.count(f"video-{number}.html") == 2
    assert "in/copy of a.mp4" in Page(folder / f"video-{number}.html").text


def test_labels_of_a_manifest_are_held_against_the_verdicts(scan, seen, tmp_path: Path) -> None:
    scan.add("in/a.mp4", [seen(0, FAKE)], label="FAKE")
    scan.add("in/b.mp4", [seen(0, FAKE)], label="REAL")
    scan.add("in/c.mp4", [seen(0, UNSURE)], label="FAKE")
    text = Page(write_report(scan.farm, scan.scan_id, tmp_path)).text
    assert "Labelled FAKE 1 FAKE, 1 UNCERTAIN" in text
    assert "Labelled REAL 1 FAKE" in text
    assert "Decided 2 of 3" in text
    assert "Right among the decided 50 %" in text


def test_a_running_scan_gets_a_report_that_says_so(scan, seen, tmp_path: Path) -> None:
    scan.add("in/done.mp4", [seen(0, REAL)])
    scan.add("in/waiting.mp4", decided=False)
    with scan.farm.sessions.begin() as session:
        session.get_one(Scan, scan.scan_id).state = "active"
    text = Page(write_report(scan.farm, scan.scan_id, tmp_path)).text
    assert "This scan is not finished." in text
    assert "1 of 2 videos are decided" in text
    assert "PENDING" in text


def test_many_videos_are_split_into_parts_and_only_the_most_telling_get_a_page(scan, seen, tmp_path: Path) -> None:
    telling = scan.add("in/fake.mp4", [seen(0, FAKE)])
    for n in range(24):
        scan.add_path(f"in/missing-{n}.mp4", error="There is no file at this path.")
    scan.add("in/real.mp4", [seen(0, REAL)])
    folder = write_report(scan.farm, scan.scan_id, tmp_path, rows_per_part=10, pages_drawn=1).parent
    parts = [Page(folder / name) for name in ("index.html", "index-2.html", "index-3.html")]
    assert [len([tag for tag in part.all("tr") if "data-verdict" in tag]) for part in parts] == [10, 10, 6]
    assert "index-3.html" in [link["href"] for link in parts[0].all("a")]
    assert [path.name for path in folder.glob("video-*.html")] == [f"video-{telling}.html"]
    assert "1 stand in the table only" in parts[0].text


def test_an_unknown_scan_is_refused_before_anything_is_written(scan, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no scan 77"):
        write_report(scan.farm, 77, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_told_in_words(scan, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(StorageAway, match="the report cannot be written to"):
        write_report(scan.farm, scan.scan_id, tmp_path / "out")


def test_a_full_disk_is_told_in_words(scan, seen, tmp_path: Path) -> None:
    scan.add("in/a.mp4", [seen(0, FAKE)])
    tmp_path.joinpath("out").mkdir()
    tmp_path.joinpath("out", "index.html").symlink_to("/dev/full")
    with pytest.raises(StorageAway, match="No space left on device"):
        write_report(scan.farm, scan.scan_id, tmp_path / "out")


def test_the_text_contrast_of_both_colour_schemes_is_readable() -> None:
    css = (Path(write_report.__code__.co_filename).parent / "style.css").read_text()
    light, dark = (
        dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)[:2]
    )
    for scheme in (light, light | dark):
        for tone in ("ink", "muted", "fake", "real", "uncertain", "no-face", "unreadable"):
            for ground in ("paper", "panel"):
                assert contrast(scheme[tone], scheme[ground]) >= 4.5, (tone, ground, scheme[tone])


def contrast(one: str, other: str) -> float:
    """WCAG 2 contrast ratio of two #rrggbb colours."""
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    channels = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
