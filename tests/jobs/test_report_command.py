"""``infotok report`` on a real corpus, looked at in a real browser."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import av
import numpy as np
import pytest
from browsers import Browser, requires_browser
from click.testing import CliRunner, Result
from corpora import Corpus, copy_of
from shared import requires_shared
from skimage.io import imread
from video_corpora import SmallCorpus
from videos import write_video

from jobs.cli import main

DECODED = re.compile(r'src="data:video/mp4;base64,([^"]+)"')


def _run(corpus: Path, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", str(corpus), *map(str, arguments)])


@pytest.fixture(scope="module")
def page(small_corpus: SmallCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "page.html"
    result = _run(small_corpus.parquet, "-o", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(path)
    return path


def test_each_video_plays_beside_its_source_with_its_figures(page: Path):
    html = page.read_text()
    films = DECODED.findall(html)
    assert len(films) == 2
    for film in films:
        with av.open(io.BytesIO(base64.b64decode(film))) as container:
            stream = container.streams.video[0]
            assert stream.codec_context.name == "h264"
            # Three panels of 64 columns with gaps between.
            assert (stream.width, stream.height) == (200, 64)
    assert html.count("<span>original</span><span>reconstruction</span>") == 2
    assert len(re.findall(r"<dt>PSNR</dt><dd>\d+\.\d\d dB", html)) == 2
    # Three histograms, the scatter plot, two timelines.
    assert html.count("<svg") == 6
    assert "tokens / s of video" in html


def test_the_page_loads_nothing(page: Path):
    links = re.findall(r'(?:src|href)="([^"]{0,16})', page.read_text())
    assert links
    assert all(link.startswith(("#", "data:video/mp4")) for link in links)
    assert "<script" not in page.read_text()


def test_without_sources_the_reconstruction_stands_alone(small_corpus: SmallCorpus, tmp_path: Path):
    copy = tmp_path / "corpus"
    copy.mkdir()
    for path in small_corpus.parquet.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(small_corpus.parquet)
            target.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_bytes()
            target.write_bytes(text.replace(b"/videos", b"/nowhere"))
    result = _run(copy, "--video", "b.mp4")
    assert result.exit_code == 0, result.output
    html = (copy / "report.html").read_text()
    assert "Without originals" in html
    assert "<span>original</span>" not in html
    assert "PSNR" not in html
    assert len(DECODED.findall(html)) == 1


def test_a_source_that_was_named_has_to_be_there(small_corpus: SmallCorpus, tmp_path: Path):
    write_video(tmp_path / "another.mp4", 9)
    result = _run(small_corpus.parquet, "--against", tmp_path, "-o", tmp_path / "page.html")
    assert result.exit_code == 1
    assert ".mp4 cannot be compared with: NOT_FOUND" in result.output
    assert not (tmp_path / "page.html").exists()


def test_tars_alone_are_enough_and_nothing_need_be_decoded(
    small_corpus: SmallCorpus, tmp_path: Path
):
    path = tmp_path / "page.html"
    result = _run(small_corpus.webdataset, "--no-decode", "-o", path)
    assert result.exit_code == 0, result.output
    assert "<video" not in path.read_text()
    assert path.read_text().count("<svg") == 6


def test_a_video_that_is_not_there_is_named(small_corpus: SmallCorpus, tmp_path: Path):
    result = _run(small_corpus.parquet, "--video", "c.mp4", "--no-decode")
    assert result.exit_code == 1
    assert "has no c.mp4" in result.output


# A browser plays what is in sight.
_PLAYED = """
(async () => {
  const found = [];
  for (const video of document.querySelectorAll("video")) {
    video.scrollIntoView();
    while (video.currentTime < 0.1) await new Promise(next => setTimeout(next, 50));
    found.push({size: [video.videoWidth, video.videoHeight], shown: video.clientWidth});
  }
  scrollTo(0, 0);
  return found;
})()
"""


@requires_browser
@pytest.mark.timeout(120)
def test_a_browser_shows_and_plays_it_light_and_dark_wide_and_narrow(page: Path, tmp_path: Path):
    with Browser() as browser:
        for width, theme, background in ((1200, "light", 250), (390, "dark", 20)):
            browser.show(page, width=width, theme=theme)
            assert browser.run("document.documentElement.scrollWidth") <= width
            requested = browser.run("performance.getEntriesByType('resource').map(e => e.name)")
            assert [name for name in requested if not name.startswith("data:")] == []
            for video in browser.run(_PLAYED):
                assert video["size"] == [200, 64]
                assert video["shown"] > 0.5 * width
            picture = imread(browser.picture(tmp_path / f"{theme}.png"))[..., :3]
            assert picture.shape[1] == width
            assert picture[0, 0, 0] == background
            # Text, charts and pictures: not a blank page.
            assert len(np.unique(picture[::5, ::5].reshape(-1, 3), axis=0)) > 200


# How many tiles stand in each line.
_TILES = """
(() => {
  const lines = {};
  for (const tile of document.querySelectorAll(".tiles div"))
    lines[tile.offsetTop] = (lines[tile.offsetTop] || 0) + 1;
  return Object.values(lines);
})()
"""


@requires_shared
@requires_browser
@pytest.mark.shared
@pytest.mark.timeout(180)
def test_real_footage_plays_and_no_line_of_tiles_has_a_hole(footage: Corpus, tmp_path: Path):
    store = copy_of(footage, tmp_path / "corpus")
    # Measured: the eighth tile.
    measured = CliRunner().invoke(main, ["validate", store.url, "--reconstruct", "2"])
    assert measured.exit_code == 0, measured.output
    result = _run(Path(store.url), "--videos", "3")
    assert result.exit_code == 0, result.output
    with Browser() as browser:
        for width, tiles in ((1200, [4, 4]), (390, [2, 2, 2, 2])):
            browser.show(Path(store.url) / "report.html", width=width, theme="light")
            assert len(browser.run(_PLAYED)) == 3
            assert browser.run(_TILES) == tiles
            picture = imread(browser.picture(tmp_path / "page.png"))[..., :3]
            assert len(np.unique(picture[::5, ::5].reshape(-1, 3), axis=0)) > 500


def test_a_page_that_cannot_be_written_is_named_and_not_the_corpus(
    small_corpus: SmallCorpus, tmp_path: Path
):
    (tmp_path / "file").touch()
    page = tmp_path / "file" / "page.html"
    for path, cause in (
        (page, "[Errno 17] File exists"),
        (Path("/dev/full"), "[Errno 28] No space left on device"),
    ):
        result = _run(small_corpus.parquet, "--no-decode", "-o", path)
        assert result.exit_code == 1, result.output
        assert f"error: {path} cannot be written: {cause}" in result.stderr
