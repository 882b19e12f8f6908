from __future__ import annotations

import importlib.util
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from corpora import Corpus, build_corpus
from shared import requires_shared

from pipelines.card import dataset_card, report_html
from pipelines.histograms import elbo_histogram, rate_histogram, token_histogram
from pipelines.wording import compact, num_bytes_text, rule_text, significant
from schemas.dealing import Rule
from schemas.info import CorpusInfo, VideoCounts
from schemas.manifest import Totals
from schemas.rates import RateRule
from schemas.token_rules import TokenRule


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return build_corpus(tmp_path_factory.mktemp("corpus"))


def _empty(info: CorpusInfo) -> CorpusInfo:
    return info.model_copy(
        update={
            "totals": Totals(),
            "videos": VideoCounts(listed=0, committed=0, quarantined=0),
            "reasons": {},
            "files": 0,
        }
    )


def test_the_card_says_what_how_many_and_under_which_licence(corpus: Corpus):
    card = dataset_card(corpus.info, corpus.statistics)
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert "| videos | 6 of 7 (1 set aside) |" in card
    assert f"| tokens | {corpus.info.totals.tokens:,} |" in card
    assert f"| rate, realised | {corpus.info.realised_rate:.5f} |" in card
    assert "| `TRUNCATED` | 1 |" in card
    assert 'path: "data/train-*.parquet"' in card


def test_the_snippets_of_the_card_run_as_they_stand(corpus: Corpus, tmp_path, monkeypatch):
    run_snippets(corpus, tmp_path, monkeypatch)


@requires_shared
@pytest.mark.shared
def test_they_do_on_real_footage(footage: Corpus, tmp_path, monkeypatch):
    run_snippets(footage, tmp_path, monkeypatch)


def run_snippets(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (Path(corpus.store.url) / "README.md").read_text()
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.chdir(Path(corpus.store.url))
    monkeypatch.setattr(sys, "argv", ["snippet"])
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 4
    if importlib.util.find_spec("datasets") is None:
        snippets = [snippet for snippet in snippets if "load_dataset" not in snippet]
    for snippet in snippets:
        names: dict[str, object] = {}
        exec(snippet, names)
        if "context" in names:
            held = sum(window["length"] for window in names["context"]["windows"])
            assert (len(names["tokens"]), names["borders"][-1]) == (8192, held)
        else:
            assert len(names["tokens"]) == names["row"]["num_tokens"]


@pytest.mark.parametrize("formats", [("parquet", "webdataset"), ("webdataset",)])
def test_a_folder_with_its_card_is_a_dataset_for_others(
    formats, tmp_path: Path, monkeypatch, caplog
):
    datasets = pytest.importorskip("datasets", reason="needs the Hugging Face datasets library")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    corpus = build_corpus(tmp_path / "corpus", formats=formats)
    found = datasets.load_dataset(corpus.store.url, cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in found.items()} == {"train": corpus.info.totals.clips}
    row = next(iter(found["train"]))
    tokens = row.get("tokens", row.get("tokens.npy"))
    assert len(tokens) == (row.get("num_tokens") or row["json"]["num_tokens"])
    if "parquet" in formats:
        # The head says the columns, and that is what the files hold.
        schema = pq.read_schema(tmp_path / "corpus" / corpus.files[0].path)
        assert found["train"].features == datasets.Features.from_arrow_schema(schema)
        assert found["train"].info.splits["train"].num_examples == corpus.info.totals.clips
        assert "malformed" not in caplog.text


@pytest.mark.parametrize(
    ("licence", "head"),
    [
        ("CC0-1.0", "license: cc0-1.0\npretty"),
        ("CC BY-NC 4.0", "license: cc-by-nc-4.0\npretty"),
        ("ask: Bob", 'license: other\nlicense_name: "ask: Bob"\npretty'),
    ],
)
def test_a_licence_is_one_that_hubs_know_or_another_with_its_name(corpus: Corpus, licence, head):
    info = corpus.info.model_copy(update={"licence": licence})
    assert dataset_card(info).startswith(f"---\n{head}")


def test_card_and_report_are_the_same_each_time(corpus: Corpus):
    again = CorpusInfo.from_bytes(corpus.info.to_bytes())
    assert dataset_card(again, corpus.statistics) == dataset_card(corpus.info, corpus.statistics)
    assert report_html(again, corpus.statistics) == report_html(corpus.info, corpus.statistics)


class _Page(HTMLParser):
    void = frozenset({"meta", "line", "rect", "link", "br", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def _parse(page: str) -> _Page:
    parser = _Page()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser


def test_the_report_is_one_page_that_loads_nothing(corpus: Corpus):
    page = _parse(report_html(corpus.info, corpus.statistics, corpus.quarantine))
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object"}
    found = [pair for _, attributes in page.tags for pair in attributes.items()]
    links = {value for name, value in found if name in ("src", "href", "xlink:href")}
    assert all(value and value.startswith("#") for value in links)
    assert not any(name.startswith("on") for name, _ in found)
    assert sum(tag == "svg" for tag, _ in page.tags) == 3


def test_the_report_is_light_and_dark():
    from pipelines.report_style import STYLE

    assert "prefers-color-scheme: dark" in STYLE
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_names_from_outside_cannot_become_markup(corpus: Corpus):
    html = report_html(corpus.info, corpus.statistics, corpus.quarantine)
    assert "<b>" not in html
    assert "<moov>" not in html
    text = _parse(html).text
    assert "broken & <b>.mp4" in text
    assert "s3://bucket/a & b" in text


def test_the_bars_of_each_histogram_count_every_window(corpus: Corpus):
    windows = corpus.info.totals.clips
    for histogram in (
        rate_histogram(corpus.info.totals),
        rate_histogram(corpus.info.totals, max_bars=10),
        token_histogram(corpus.info.totals, max_bars=4),
        elbo_histogram(corpus.statistics.bins),
    ):
        assert sum(bar.count for bar in histogram.bars) + histogram.num_zero == windows
        for before, after in zip(histogram.bars, histogram.bars[1:], strict=False):
            assert before.upper == after.lower


def test_an_empty_corpus_has_a_card_and_a_report(corpus: Corpus):
    info = _empty(corpus.info)
    assert "| windows | 0 |" in dataset_card(info)
    assert not any(tag == "svg" for tag, _ in _parse(report_html(info)).tags)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (RateRule.static(0.25), "every window keeps 0.25"),
        (RateRule.expected(0.1, rate=0.5, min_rate=0.0625), "a given mean window ELBO"),
        (
            RateRule(
                budget="exact", target=0.5, scale=2, min_rate=0.25, zero_rate=0.25, exponent=0.5
            ),
            "rate = clip(2 * elbo ** 0.5, 0.25, 1): scale solved",
        ),
        (
            TokenRule(target=0.5, threshold=0.140625, fraction=0.3, min_rate=0.0625),
            "above 0.141 * elbo ** 0.5: threshold solved so that the corpus keeps 0.5, no window "
            "less than 0.0625",
        ),
    ],
)
def test_a_rule_reads_as_a_sentence(rule: Rule, words: str):
    assert words in rule_text(rule)


def test_numbers_read_as_people_write_them():
    assert [compact(value) for value in (0, 999, 9216, 41_300, 1.2e6, 3.45e9)] == [
        "0", "999", "9,216", "41.3 k", "1.20 M", "3.45 B",
    ]  # fmt: skip
    assert [num_bytes_text(value) for value in (12, 1_400_000, 123_456_789)] == [
        "12 B", "1.4 MB", "123 MB",
    ]  # fmt: skip
    assert [significant(value) for value in (0, 0.0704, 1e-7, 4096.2)] == [
        "0", "0.0704", "1.0e-07", "4,096",
    ]  # fmt: skip
