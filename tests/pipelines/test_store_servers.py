"""Conditional writes on S3 servers, also on those that are not as they should be."""

from __future__ import annotations

import pytest
from s3_tools import (
    Answer,
    Forward,
    conflicts_first,
    ignores_conditions,
    loses_first_answers,
    make_bucket,
    names_no_condition,
    objects,
    proxy,
)

from pipelines.config import StorageConfig
from pipelines.errors import ConflictError, StorageError
from pipelines.storage import Store

pytestmark = pytest.mark.s3
pytest_plugins = ["s3"]


def test_a_bucket_that_is_not_there_is_named(s3_config: StorageConfig):
    with pytest.raises(StorageError, match="cannot write to s3://no-such-bucket"):
        Store("s3://no-such-bucket/root", s3_config).check_conditional_writes()


def test_a_server_that_ignores_conditions_is_refused(s3_endpoint: str):
    bucket = make_bucket(s3_endpoint)
    with proxy(s3_endpoint, ignores_conditions) as url:
        store = Store(bucket, StorageConfig(endpoint_url=url))
        with pytest.raises(StorageError, match=r"ignores conditional writes.*--single-writer"):
            store.check_conditional_writes()
    assert objects(s3_endpoint, bucket) == {}


def test_a_server_that_does_not_name_the_failed_condition_is_understood(s3_endpoint: str):
    bucket = make_bucket(s3_endpoint)
    with proxy(s3_endpoint, names_no_condition) as url:
        store = Store(bucket, StorageConfig(endpoint_url=url))
        store.check_conditional_writes()
        store.publish("x", b"first")
        store.publish("x", b"first")
        with pytest.raises(ConflictError):
            store.publish("x", b"second")


def test_a_conflict_of_two_writes_under_way_is_tried_again(s3_endpoint: str):
    bucket = make_bucket(s3_endpoint)
    with proxy(s3_endpoint, conflicts_first()) as url:
        store = Store(bucket, StorageConfig(endpoint_url=url))
        assert store.create("x", b"first")
        assert not store.create("x", b"second")
        store.publish("y", b"y")
    assert objects(s3_endpoint, bucket) == {"x": b"first", "y": b"y"}


@pytest.mark.parametrize(
    ("denied", "what"), [("PUT", "write to"), ("LIST", "list"), ("DELETE", "delete from")]
)
def test_a_right_that_a_run_needs_later_is_missed_at_once(s3_endpoint: str, denied: str, what: str):
    body = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"

    def answer(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
        if denied == ("LIST" if "list-type" in path else method):
            return 403, {"Content-Type": "application/xml"}, body
        return forward(headers)

    bucket = make_bucket(s3_endpoint)
    with proxy(s3_endpoint, answer) as url:
        store = Store(bucket, StorageConfig(endpoint_url=url))
        with pytest.raises(StorageError, match=rf"cannot {what} {bucket}: .*Access Denied"):
            store.check_conditional_writes()


def test_a_write_whose_answer_is_lost_is_not_held_against_the_store(s3_endpoint: str):
    bucket = make_bucket(s3_endpoint)
    with proxy(s3_endpoint, loses_first_answers()) as url:
        store = Store(bucket, StorageConfig(endpoint_url=url))
        store.check_conditional_writes()
        store.publish("x", b"x")
    assert objects(s3_endpoint, bucket) == {"x": b"x"}


def test_an_object_sent_in_parts_is_conditional_too(bucket: str, s3_config: StorageConfig):
    store = Store(bucket, s3_config)
    # s3fs sends in parts from 100 MiB on.
    first, second = b"1" * (101 << 20), b"2" * (101 << 20)
    assert store.create("big", first)
    assert not store.create("big", second)
    assert store.read("big") == first
