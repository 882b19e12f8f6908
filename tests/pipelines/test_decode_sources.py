"""Objects behind fsspec: whole, in ranges, missing, refused, broken off."""

from __future__ import annotations

import uuid
from dataclasses import replace

import fsspec
import numpy as np
import pytest
from decoding_helpers import decode_here, failure_here, request_for
from videos import write_video

from pipelines import video_source
from pipelines.decode import DecodeError, DecoderProcess
from schemas.failures import FailureReason


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "v.mp4", 20)


@pytest.fixture
def remote(local):
    url = f"memory://bucket-{uuid.uuid4().hex}/v.mp4"
    filesystem, path = fsspec.core.url_to_fs(url)
    filesystem.pipe_file(path, local.read_bytes())
    return url


@pytest.mark.parametrize("whole_bytes", [0, 64 << 20], ids=["in ranges", "whole"])
def test_an_object_gives_what_the_file_gives(monkeypatch, local, remote, whole_bytes):
    monkeypatch.setattr(video_source, "_WHOLE_BYTES", whole_bytes)
    expected, _ = decode_here(request_for(local))
    windows, _ = decode_here(request_for(remote, size=local.stat().st_size))
    assert [w.span for w in windows] == [w.span for w in expected]
    for window, twin in zip(windows, expected, strict=True):
        assert np.array_equal(window.frames_THWC, twin.frames_THWC)


def test_an_object_of_another_size_has_changed(remote, local):
    request = request_for(remote, size=local.stat().st_size - 1)
    assert failure_here(request).reason == FailureReason.SOURCE_CHANGED


def test_a_missing_object_is_not_found(remote):
    assert failure_here(request_for(remote + "x")).reason == FailureReason.NOT_FOUND


def test_a_store_that_breaks_off_is_not_taken_for_a_truncated_file(monkeypatch, local):
    size = local.stat().st_size

    class BreaksOff:
        """A file of the store that fails past its middle, as often as it is asked."""

        def __init__(self) -> None:
            self.file = local.open("rb")
            self.size = size
            self.seek, self.tell, self.close = self.file.seek, self.file.tell, self.file.close

        def read(self, num_bytes: int = -1) -> bytes:
            if self.file.tell() + min(num_bytes, 1000) > size // 2:
                raise ConnectionResetError("the store went away")
            return self.file.read(min(num_bytes, 1000))

    monkeypatch.setattr(video_source, "_WHOLE_BYTES", 0)
    filesystem = fsspec.filesystem("memory")
    monkeypatch.setattr(filesystem, "open", lambda *_, **__: BreaksOff())
    failure = failure_here(request_for("memory://bucket/v.mp4", size=size))
    assert failure.reason == FailureReason.SOURCE_UNAVAILABLE
    assert "went away" in failure.detail


@pytest.mark.s3
def test_a_bucket_gives_what_the_file_gives(local):
    server_module = pytest.importorskip("moto.server")
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        options = {
            "key": "key",
            "secret": "not-in-any-log",
            "client_kwargs": {"endpoint_url": f"http://{host}:{port}"},
        }
        filesystem = fsspec.filesystem("s3", skip_instance_cache=True, **options)
        filesystem.mkdir("videos")
        filesystem.pipe_file("videos/v.mp4", local.read_bytes())
        expected, _ = decode_here(request_for(local))
        request = replace(request_for("s3://videos/v.mp4"), storage_options=options)
        with DecoderProcess() as decoder:
            windows = list(decoder.windows(request))
            with pytest.raises(DecodeError) as missing:
                list(decoder.windows(replace(request, url="s3://videos/none.mp4")))
            with pytest.raises(DecodeError) as no_bucket:
                list(decoder.windows(replace(request, url="s3://nowhere/v.mp4", size=10)))
    finally:
        server.stop()
    assert [w.span for w in windows] == [w.span for w in expected]
    for error in (missing, no_bucket):
        assert error.value.failure.reason == FailureReason.NOT_FOUND
        assert "not-in-any-log" not in error.value.failure.detail
