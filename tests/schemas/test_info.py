from __future__ import annotations

import json
from typing import Any

import pytest
from strategies import TOKENIZER, token_rows

from schemas.info import CorpusInfo, TokenizerInfo, VideoCounts
from schemas.manifest import TotalsBuilder
from schemas.rates import RateRule
from schemas.token_rules import TokenRule
from schemas.tokens import bpp16
from schemas.versions import FormatError

ROWS = token_rows("a.mp4", 3)


SMALL = {"num_codes": 256}


def _info(**change: Any) -> CorpusInfo:
    builder = TotalsBuilder()
    for row in ROWS:
        builder.add(row)
    fields: dict[str, Any] = {
        "source_root": "s3://bucket",
        "plan_id": "p",
        "tokens_key": "k",
        "tokenizer": TokenizerInfo(
            fingerprint=TOKENIZER, name="default", spatial_compression=16, temporal_compression=4
        ),
        "window": {"frames": 9},
        "space": {"size": 64},
        "routing": RateRule.static(0.5),
        "statistics_digest": None,
        "split": "train",
        "formats": ("parquet",),
        "licence": "unknown",
        "videos": VideoCounts(listed=3, committed=1, quarantined=2),
        "totals": builder.freeze(),
        "files": 1,
        "num_bytes": 10,
        "reasons": {"TRUNCATED": 1, "EMPTY_FILE": 1},
        **change,
    }
    return CorpusInfo(**fields)


def test_the_head_survives_storage():
    assert CorpusInfo.from_bytes(_info().to_bytes()) == _info()


def test_the_head_says_by_which_rule_the_tokens_were_kept():
    rule = TokenRule(target=0.5, threshold=0.140625, fraction=0.3, min_rate=0.0625)
    assert CorpusInfo.from_bytes(_info(routing=rule).to_bytes()).routing == rule
    stored = json.loads(_info().to_bytes())["routing"]
    assert stored == RateRule.static(0.5).model_dump()


def test_the_realised_rates_are_those_of_the_rows():
    info = _info()
    tokens = sum(row["num_tokens"] for row in ROWS)
    assert info.realised_rate == tokens / (3 * 48)
    assert info.bpp16 == bpp16(tokens, 3 * 48, 3 * 9 * 64 * 64)
    small = info.model_copy(update={"tokenizer": info.tokenizer.model_copy(update=SMALL)})
    assert small.bpp16 == bpp16(tokens, 3 * 48, 3 * 9 * 64 * 64, num_codes=256)
    stored = json.loads(info.to_bytes())["realised"]
    assert stored == {"rate": info.realised_rate, "bpp16": info.bpp16}


def test_unit_and_sign_of_the_information_are_stated():
    assert _info().elbo_unit == "mean absolute error on pixels in [-1, 1]"
    assert _info().elbo_sign == "higher = more information"


def test_videos_that_do_not_add_up_are_refused():
    with pytest.raises(ValueError, match="3 videos listed, but 1 committed and 1"):
        VideoCounts(listed=3, committed=1, quarantined=1)
    with pytest.raises(ValueError, match="reasons count 1 videos, 2 are"):
        _info(reasons={"TRUNCATED": 1})


def test_a_head_that_was_edited_out_of_balance_is_a_clear_error():
    document = json.loads(_info().to_bytes())
    document["videos"]["committed"] = 9
    with pytest.raises(FormatError, match=r"at videos: .*9 committed"):
        CorpusInfo.from_bytes(json.dumps(document).encode())
