from __future__ import annotations

import pyarrow as pa
import pytest

from schemas.plan import ExtraColumn, PlanHead, plan_digest
from schemas.versions import FormatError

HEAD = PlanHead(
    plan_id="p",
    source_root="s3://bucket/videos",
    listing_digest="d",
    analysis={"window": {"frames": 33, "fps": None}},
    tokenizer="t",
    videos=3,
    num_bytes=12,
    shards=1,
    split="train",
    shard_source_bytes=1 << 30,
    extra_schema=(ExtraColumn.of(pa.field("score", pa.float64())),),
)


def test_a_head_survives_storage():
    assert PlanHead.from_bytes(HEAD.to_bytes()) == HEAD


@pytest.mark.parametrize(
    "kind", [pa.int64(), pa.uint8(), pa.float64(), pa.float32(), pa.bool_(), pa.string()]
)
def test_columns_that_ride_along_keep_their_type(kind: pa.DataType):
    field = pa.field("extra", kind)
    assert ExtraColumn.of(field).field() == field


def test_a_column_with_one_of_our_names_is_refused():
    with pytest.raises(ValueError, match="'mask' has the name of one of ours"):
        ExtraColumn(name="mask", type="string")


def test_a_type_that_is_no_plain_one_is_refused():
    with pytest.raises(ValueError, match="list"):
        ExtraColumn(name="x", type="list<int64>")


def test_a_head_of_another_version_is_a_clear_error():
    with pytest.raises(FormatError, match="format_version 9"):
        PlanHead.from_bytes(HEAD.to_bytes().replace(b'"format_version":1', b'"format_version":9'))


def test_the_identity_changes_with_everything_that_decides_the_content():
    base = {"listing_digest": "l", "analysis": {"a": 1}, "tokenizer": "t", "format_version": 1}
    changes = [
        {"listing_digest": "m"},
        {"analysis": {"a": 2}},
        {"tokenizer": "u"},
        {"format_version": 2},
    ]
    digests = {plan_digest(**{**base, **change}) for change in [{}, *changes]}
    assert len(digests) == 5
