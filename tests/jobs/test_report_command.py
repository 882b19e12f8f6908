"""``infotok report`` on a real corpus, looked at in a real browser."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import av
import pytest
from browsers import look, requires_browser
from click.testing import CliRunner, Result
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


@requires_browser
@pytest.mark.parametrize(
    ("size", "theme", "background"),
    [
        pytest.param((1200, 1800), "light", "rgb(250, 250, 247)", id="wide, light"),
        pytest.param((500, 2600), "dark", "rgb(20, 23, 26)", id="narrow, dark"),
    ],
)
def test_a_browser_shows_and_plays_it(page: Path, tmp_path: Path, size, theme, background):
    looked = look(page, tmp_path / "page.png", size=size, theme=theme)
    probe = looked.probe
    assert probe["background"] == background
    assert probe["overflow"] <= 0
    assert [name for name in probe["requests"] if not name.startswith("data:")] == []
    for video in probe["videos"]:
        assert (video["width"], video["height"]) == (200, 64)
        assert video["playing"]
        assert video["seconds"] > 0
        assert video["brightest"] > 128
        assert video["shown"] > 0.5 * min(size[0], 1120) * 0.9
    picture = imread(looked.picture)
    assert picture.shape[:2] == (size[1], size[0])
    # Text, charts and pictures: not a blank page.
    assert len({tuple(pixel) for pixel in picture[::7, ::7, :3].reshape(-1, 3).tolist()}) > 200
