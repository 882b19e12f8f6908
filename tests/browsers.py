"""A real browser without a window, where one is installed: what a page looks like, and does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any, Literal

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_PROBE = """
<script>
// The browser runs on virtual time, which videos do not play by: each is asked for a frame.
const seek = video => new Promise(done => {
  video.addEventListener("seeked", () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth; canvas.height = video.videoHeight;
    const context = canvas.getContext("2d");
    context.drawImage(video, 0, 0);
    const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
    done({
      width: video.videoWidth, height: video.videoHeight, shown: video.clientWidth,
      playing: !video.paused, seconds: video.currentTime,
      brightest: pixels.reduce((a, b, i) => i % 4 < 3 ? Math.max(a, b) : a, 0),
    });
  }, {once: true});
  video.currentTime = video.duration / 2;
});
addEventListener("load", () => setTimeout(async () => {
  document.body.dataset.probe = JSON.stringify({
    overflow: document.documentElement.scrollWidth - innerWidth,
    background: getComputedStyle(document.body).backgroundColor,
    requests: performance.getEntriesByType("resource").map(entry => entry.name.slice(0, 60)),
    videos: await Promise.all([...document.querySelectorAll("video")].map(seek)),
  });
}, 1000));
</script>
"""


def browser() -> str | None:
    """The path of a Chromium of any name."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


requires_browser = pytest.mark.skipif(browser() is None, reason="needs Chromium (apt: chromium)")


@dataclass(frozen=True)
class Looked:
    """What a browser made of a page.

    Attributes:
        probe: What the page says of itself after a while.
        picture: A PNG of the window.
    """

    probe: dict[str, Any]
    picture: Path


def look(
    page: Path, picture: Path, *, size: tuple[int, int], theme: Literal["light", "dark"] = "light"
) -> Looked:
    """Open a local page, let it play for a while, and take its picture."""
    probed = picture.with_suffix(".html")
    probed.write_text(page.read_text().replace("</body>", f"{_PROBE}</body>"))
    dom = _run(probed, "--dump-dom", size=size, theme=theme)
    _run(page, f"--screenshot={picture}", size=size, theme=theme)
    found = re.search(r'data-probe="([^"]*)"', dom)
    assert found, "the page did not come to rest"
    return Looked(json.loads(unescape(found[1])), picture)


def _run(page: Path, what: str, *, size: tuple[int, int], theme: str) -> str:
    path = browser()
    assert path is not None
    with tempfile.TemporaryDirectory() as profile:
        command = [
            path, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}",
            f"--blink-settings=preferredColorScheme={0 if theme == 'dark' else 1}",
            f"--window-size={size[0]},{size[1]}", "--virtual-time-budget=6000", what,
            page.resolve().as_uri(),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return done.stdout
