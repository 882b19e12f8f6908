"""Stores that do not answer: said at once at the start, and held against no video later."""

from __future__ import annotations

import socket
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from decoding_helpers import request_for
from s3_tools import Answer, Behaviour, Forward, filesystem, make_bucket, proxy
from videos import write_video

from jobs.cli import main
from pipelines.config import RunConfig, StorageConfig
from pipelines.decode import DecodeError, DecodeRequest, DecoderProcess
from pipelines.errors import StorageError
from pipelines.reachable import check_reachable
from pipelines.records import table_to_statuses
from pipelines.stages import DecodeVideos, StageSpec
from pipelines.storage import Store
from pipelines.work import WorkFolder
from schemas.failures import FailureReason

pytestmark = pytest.mark.s3
pytest_plugins = ["s3"]

_SOON_S = 15.0


@contextmanager
def silence() -> Generator[str]:
    """A server that takes connections and never says a word."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(16)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def nobody() -> str:
    """An address at which nobody listens."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def says(status: int, code: str) -> Behaviour:
    """Answers everything with one error."""
    body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()

    def answer(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
        del path, headers, forward
        return status, {"Content-Type": "application/xml"}, b"" if method == "HEAD" else body

    return answer


@pytest.fixture(scope="module")
def stored(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """URL and bytes of a video in a bucket."""
    video = write_video(tmp_path_factory.mktemp("videos") / "v.mp4", 20)
    url = f"{make_bucket(s3_endpoint)}/v.mp4"
    filesystem(s3_endpoint).put_file(str(video), url)
    return url, video.stat().st_size


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderProcess]:
    with DecoderProcess() as process:
        yield process


def request_at(endpoint: str, stored: tuple[str, int]) -> DecodeRequest:
    """Reads the video from there; its client does not try again."""
    options: dict[str, Any] = {
        "client_kwargs": {"endpoint_url": endpoint},
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }
    url, size = stored
    return replace(request_for(url, size=size), storage_options=options)


def reason(decoder: DecoderProcess, request: DecodeRequest) -> FailureReason:
    with pytest.raises(DecodeError) as caught:
        list(decoder.windows(request))
    return caught.value.failure.reason


def test_a_refused_connection_is_said_soon_and_names_the_endpoint(s3_endpoint: str):
    endpoint, began = nobody(), time.monotonic()
    with pytest.raises(StorageError, match=rf"s3://b/x cannot be reached at {endpoint}: "):
        check_reachable(Store("s3://b/x", StorageConfig(endpoint_url=endpoint)))
    assert time.monotonic() - began < _SOON_S


def test_a_server_that_never_answers_is_given_up_soon(s3_endpoint: str):
    with silence() as endpoint:
        began = time.monotonic()
        with pytest.raises(StorageError, match=rf"cannot be reached at {endpoint}: "):
            check_reachable(Store("s3://b/x", StorageConfig(endpoint_url=endpoint)))
        assert time.monotonic() - began < _SOON_S


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (404, "NoSuchBucket")])
def test_an_answer_of_any_kind_will_do(s3_endpoint: str, status: int, code: str):
    with proxy(s3_endpoint, says(status, code)) as endpoint:
        check_reachable(Store("s3://b/x", StorageConfig(endpoint_url=endpoint)))
    check_reachable(Store("/nowhere"))


def test_the_command_says_which_endpoint(s3_endpoint: str, tmp_path: Path):
    endpoint, began = nobody(), time.monotonic()
    command = ["plan", "s3://b/in", str(tmp_path / "out"), "--endpoint-url", endpoint]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    assert endpoint in result.output
    assert time.monotonic() - began < _SOON_S


@pytest.mark.parametrize(
    ("status", "code"), [(403, "AccessDenied"), (400, "ExpiredToken"), (405, "MethodNotAllowed")]
)
def test_a_store_that_refuses_midway_is_one_sentence_that_names_the_object(
    s3_endpoint: str, stored: tuple[str, int], status: int, code: str
):
    refuses, output = says(status, code), make_bucket(s3_endpoint)

    def answer(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
        if method == "PUT" and path.endswith("plan.parquet"):
            return refuses(method, path, headers, forward)
        return forward(headers)

    with proxy(s3_endpoint, answer) as endpoint:
        command = ["plan", stored[0], output, "--endpoint-url", endpoint]
        result = CliRunner().invoke(main, command)
    assert result.exit_code == 1
    [line] = result.output.splitlines()
    assert line.startswith("error: ")
    assert f"{output}/_work/plan.parquet" in line
    assert "as told" in line


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (403, "AccessDenied", FailureReason.ACCESS_DENIED),
        (404, "NoSuchKey", FailureReason.NOT_FOUND),
        (500, "InternalError", FailureReason.SOURCE_UNAVAILABLE),
        (503, "ServiceUnavailable", FailureReason.SOURCE_UNAVAILABLE),
    ],
)
def test_what_a_store_says_decides_the_reason(
    decoder: DecoderProcess,
    s3_endpoint: str,
    stored: tuple[str, int],
    status: int,
    code: str,
    expected: FailureReason,
):
    with proxy(s3_endpoint, says(status, code)) as endpoint:
        assert reason(decoder, request_at(endpoint, stored)) == expected


def test_a_store_that_is_gone_between_two_videos_is_unavailable(
    decoder: DecoderProcess, s3_endpoint: str, stored: tuple[str, int]
):
    with proxy(s3_endpoint, lambda _, __, headers, forward: forward(headers)) as endpoint:
        assert len(list(decoder.windows(request_at(endpoint, stored)))) == 3
    assert reason(decoder, request_at(endpoint, stored)) == FailureReason.SOURCE_UNAVAILABLE


def test_a_store_that_cannot_be_asked_costs_the_video_and_not_the_task(
    s3_endpoint: str, stored: tuple[str, int], tmp_path: Path
):
    config = RunConfig.model_validate({"source_storage": {"profile": "nobodys"}})
    spec = StageSpec(
        config=config,
        source_root=stored[0].removesuffix("/v.mp4"),
        work=WorkFolder(store=Store(str(tmp_path)), analysis_key="a" * 64),
        run_id="run",
        device="cpu",
    )
    row = {
        "uri": "v.mp4",
        "video_id": "0" * 32,
        "size": 1,
        "version": "1",
        "block": 0,
        "stored_units": [],
    }
    [table] = DecodeVideos(spec)(pa.Table.from_pylist([row]))
    [status] = table_to_statuses(table)
    assert status.kind == "end"
    assert status.payload["failure"]["reason"] == "ACCESS_DENIED"
