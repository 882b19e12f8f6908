"""The decoding process: killed, stuck, starved, orphaned."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
from decoding_helpers import decode_here, request_for
from videos import numbered_frame, write_video

from pipelines.decode import DecodeError, DecodeRequest, DecoderProcess
from schemas.failures import Failure, FailureReason, FailureStage


@pytest.fixture(scope="module")
def decoder():
    with DecoderProcess() as process:
        yield process


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("videos") / "v.mp4", 60)


def is_running(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def gone_within(pid, seconds):
    deadline = time.monotonic() + seconds
    while is_running(pid):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def assert_same(windows, expected):
    assert [w.span for w in windows] == [w.span for w in expected]
    for window, twin in zip(windows, expected, strict=True):
        assert np.array_equal(window.frames_THWC, twin.frames_THWC)


def test_the_process_gives_what_decoding_here_gives(decoder, video):
    expected, here = decode_here(request_for(video))
    windows = list(decoder.windows(request_for(video)))
    assert_same(windows, expected)
    assert decoder.facts == here.facts
    assert decoder.summary == here.summary


def test_one_process_serves_many_videos_and_is_replaced_in_time(video):
    with DecoderProcess(recycle_after=2) as decoder:
        pids = []
        for _ in range(4):
            list(decoder.windows(request_for(video)))
            pids.append(decoder.pid)
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_windows_belong_to_the_receiver(decoder, video):
    windows = decoder.windows(request_for(video))
    first = next(windows)
    copy = first.frames_THWC.copy()
    list(windows)
    list(decoder.windows(request_for(video, overlap=4)))
    assert np.array_equal(first.frames_THWC, copy)


def test_kill_9_in_the_middle_gives_the_same_windows(decoder, video):
    expected = list(decoder.windows(request_for(video)))
    windows = []
    for window in decoder.windows(request_for(video)):
        windows.append(window)
        if len(windows) in (2, 4):
            assert decoder.pid is not None
            os.kill(decoder.pid, signal.SIGKILL)
            assert gone_within(decoder.pid, 5)
    assert_same(windows, expected)
    assert decoder.summary.num_windows == len(expected)
    assert decoder.summary.num_starts >= 2


def test_a_process_that_always_dies_is_a_decoder_crash(decoder, video):
    def kill_at_each_window() -> None:
        for _ in decoder.windows(request_for(video, frames=5, limits={"attempts": 2})):
            os.kill(decoder.pid, signal.SIGSEGV)

    with pytest.raises(DecodeError) as caught:
        kill_at_each_window()
    failure = caught.value.failure
    assert failure.reason == FailureReason.DECODER_CRASH
    assert "SIGSEGV" in failure.detail
    assert failure.num_frames > 0
    assert len(list(decoder.windows(request_for(video)))) == 7


def test_a_process_killed_between_two_videos_is_replaced(decoder, video):
    list(decoder.windows(request_for(video)))
    os.kill(decoder.pid, signal.SIGKILL)
    assert len(list(decoder.windows(request_for(video)))) == 7


def test_leaving_early_does_not_disturb_the_next_video(decoder, video):
    for _ in decoder.windows(request_for(video)):
        break
    hanging = decoder.windows(request_for(video))
    next(hanging)
    assert len(list(decoder.windows(request_for(video)))) == 7


@contextmanager
def silent_server():
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []

        def accept() -> None:
            with suppress(OSError):
                while True:
                    kept.append(server.accept())

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for connection, _ in kept:
            connection.close()


def test_a_source_that_never_answers_is_not_held_against_the_video(decoder, video):
    with silent_server() as port:
        url = f"http://127.0.0.1:{port}/v.mp4"
        request = request_for(url, size=1000, limits={"stall_s": 0.4})
        with pytest.raises(DecodeError) as caught:
            list(decoder.windows(request))
    failure = caught.value.failure
    assert failure.reason == FailureReason.SOURCE_UNAVAILABLE
    assert failure.stage == FailureStage.OPEN
    assert failure.detail == "the store said nothing for 0.4 s"
    assert len(list(decoder.windows(request_for(video)))) == 7


def test_a_video_that_takes_too_long_in_all_is_a_timeout(decoder, video):
    with pytest.raises(DecodeError) as caught:
        list(decoder.windows(request_for(video, limits={"total_s": 1e-6})))
    assert caught.value.failure.reason == FailureReason.DECODE_TIMEOUT


def test_a_slow_consumer_is_no_timeout(decoder, video):
    windows = []
    for window in decoder.windows(request_for(video, limits={"stall_s": 0.6, "total_s": 0.9})):
        windows.append(window)
        if len(windows) < 3:
            time.sleep(0.7)
    assert len(windows) == 7


def test_memory_beyond_the_limit_is_out_of_memory_and_costs_one_video(decoder, video, tmp_path):
    # Windows of 33 x 1024 x 8192 from a thin strip: 0.8 GB each.
    strip = [numbered_frame(n, width=512) for n in range(3)]
    path = write_video(tmp_path / "strip.mkv", strip, codec="ffv1")
    greedy = request_for(path, frames=33, side=1024, mode="keep", limits={"memory_mb": 256})
    with pytest.raises(DecodeError) as caught:
        list(decoder.windows(greedy))
    assert caught.value.failure.reason == FailureReason.OUT_OF_MEMORY
    assert len(list(decoder.windows(request_for(video, limits={"memory_mb": 256})))) == 7


def test_nothing_is_left_when_the_receiver_is_killed(video):
    program = (
        f"import sys; sys.path[:0] = {sys.path!r}\n"
        "from decoding_helpers import request_for\n"
        "from pipelines.decode import DecoderProcess\n"
        "decoder = DecoderProcess()\n"
        f"windows = decoder.windows(request_for({str(video)!r}))\n"
        "next(windows)\n"
        "print(decoder.pid, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as receiver:
        assert receiver.stdout is not None
        pid = int(receiver.stdout.readline())
        assert is_running(pid)
        receiver.kill()
    assert gone_within(pid, 10)


def test_closing_the_supervisor_ends_the_process(video):
    with DecoderProcess() as decoder:
        list(decoder.windows(request_for(video)))
        pid = decoder.pid
    assert not is_running(pid)
    forgotten = DecoderProcess()
    list(forgotten.windows(request_for(video)))
    pid = forgotten.pid
    del forgotten
    assert gone_within(pid, 5)


def test_credentials_stay_out_of_command_line_environment_and_logs(decoder, video):
    list(decoder.windows(request_for(video)))
    secret = "s3cr3t-of-the-bucket"
    request = request_for("http://127.0.0.1:9/v.mp4?X-Amz-Signature=" + secret, size=10)
    request = DecodeRequest(
        **{
            **{name: getattr(request, name) for name in request.__slots__},
            "storage_options": {"headers": {"Authorization": secret}},
        }
    )
    pid = decoder.pid
    with pytest.raises(DecodeError) as caught:
        list(decoder.windows(request))
    assert caught.value.failure.reason == FailureReason.SOURCE_UNAVAILABLE
    assert secret not in caught.value.failure.detail
    assert secret not in repr(
        DecodeRequest(**{n: getattr(request, n) for n in request.__slots__ if n != "url"}, url="x")
    )
    for name in ("cmdline", "environ"):
        assert secret.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()


def test_an_error_survives_pickling():
    failure = Failure(
        reason=FailureReason.TRUNCATED, stage=FailureStage.DECODE, detail="d", num_frames=3
    )
    error = pickle.loads(pickle.dumps(DecodeError(failure)))
    assert error.failure == failure
    assert str(error) == "TRUNCATED (decode): d"


def test_names_of_any_bytes_are_opened(decoder, tmp_path):
    folder = os.fsencode(tmp_path)
    for number, name in enumerate(
        [b"latin1_\xe9\xff.mp4", b"new\nline.mp4", b"100%25 '\"$(x).mp4"]
    ):
        source = write_video(tmp_path / "plain.mp4", [numbered_frame(number)] * 3)
        path = os.fsdecode(folder + b"/" + name)
        source.rename(path)
        (window,) = decoder.windows(request_for(path))
        assert window.span.num_frames == 3
        assert json.loads(json.dumps(path)) == path
