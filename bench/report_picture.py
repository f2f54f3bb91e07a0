"""The README's picture: the sample clips scanned, and the page of the manipulated portrait photographed by Chromium.

    python -m bench.report_picture docs/report.png

Needs `chromium` on the PATH; the font Inter makes it prettier.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

CLIP = "portrait_manipulated.mp4"
WIDTH_PX, HEIGHT_PX = 1180, 1560
COLOURS = 256
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars", "--disable-sync")
QUIET = ("--disable-background-networking", "--disable-component-update")


def scanned(folder: Path) -> Path:
    """Scan the sample clips; the folder of the report."""
    farm = Path(sys.executable).with_name("farm")
    run = subprocess.run([farm, "demo", folder, "--json"], check=True, stdout=subprocess.PIPE, text=True)
    return Path(json.loads(run.stdout.splitlines()[-1])["report"]).parent


def page_of(report: Path, clip: str) -> Path:
    """The page of one clip's video."""
    link = re.search(rf'href="(video-\d+\.html)"><span[^>]*>{re.escape(clip)}<', (report / "index.html").read_text())
    if link is None:
        raise SystemExit(f"{report}/index.html links no page for {clip}")
    return report / link[1]


def photographed(page: Path, width_px: int, height_px: int) -> Image.Image:
    """The top of a page as Chromium paints it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("chromium is not on the PATH")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "shot.png"
        where = (f"--user-data-dir={folder}/profile", f"--screenshot={shot}", f"--window-size={width_px},{height_px}")
        subprocess.run([browser, *FLAGS, *QUIET, *where, page.resolve().as_uri()], check=True, capture_output=True)
        return Image.open(BytesIO(shot.read_bytes())).convert("RGB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--clip", default=CLIP)
    parser.add_argument("--report", type=Path, help="a report of the sample clips, instead of a new scan")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = asked.report or scanned(Path(folder) / "demo")
        picture = photographed(page_of(report, asked.clip), WIDTH_PX, HEIGHT_PX)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    picture.quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(asked.out, optimize=True)
    print(f"{asked.out}: {asked.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
