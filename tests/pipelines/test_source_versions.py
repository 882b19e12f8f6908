"""What tells two contents of one name apart, in stores that say much of them and in lesser ones."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import threading
import uuid
from collections.abc import Callable, Generator, Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from named_files import fill, put
from s3_tools import filesystem, proxy, without_etags
from videos import write_video

from pipelines import stages
from pipelines.config import RunConfig, SourceConfig, StorageConfig
from pipelines.decode import DecoderProcess
from pipelines.errors import PipelineError
from pipelines.records import DecodedUnit, Status, table_to_units
from pipelines.source_versions import object_version, stat_object
from pipelines.sources import Source, open_source
from pipelines.stages import DecodeVideos, StageSpec
from pipelines.storage import Store
from pipelines.work import WorkFolder

pytest_plugins = ["s3"]


@pytest.fixture(autouse=True)
def _own_decoder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One that a test before has started does not know the credentials of this server."""
    with DecoderProcess() as decoder:
        monkeypatch.setattr(stages, "_decoder", decoder)
        yield


def source_of(url: str, storage: StorageConfig | None = None) -> Source:
    return open_source(url, SourceConfig(), storage or StorageConfig())


def decoded(source: Source, work: Path, storage: StorageConfig) -> list[DecodedUnit | Status]:
    """What a decode task sends of the only object of a source, as it was listed."""
    config = RunConfig.model_validate({"window": {"frames": 9}, "space": {"size": 64}})
    spec = StageSpec(
        config=config.model_copy(update={"source_storage": storage}),
        source_root=source.root,
        work=WorkFolder(store=Store(str(work)), analysis_key="a" * 64),
        run_id="run",
        device="cpu",
    )
    [item] = source.objects
    row = {"uri": item.uri, "video_id": "0" * 32, "size": item.size, "version": item.version}
    batch = pa.Table.from_pylist([{**row, "block": 0, "stored_units": []}])
    return [item for table in DecodeVideos(spec)(batch) for item in table_to_units(table)]


def failure_of(sent: list[DecodedUnit | Status]) -> object:
    end = sent[-1]
    assert isinstance(end, Status)
    return end.payload["failure"]


def test_the_version_of_a_file_changes_with_its_content_or_its_time(tmp_path: Path):
    store = Store(str(fill(tmp_path, "a.mp4")))
    path = tmp_path / "a.mp4"
    first = stat_object(store, str(path))
    assert first == stat_object(store, str(path))
    os.utime(path, ns=(1, 1))
    assert stat_object(store, str(path)) == (5, "5-1")
    path.write_text("longer than it was")
    assert stat_object(store, str(path))[0] == 18


@pytest.mark.s3
def test_the_version_of_an_object_is_its_etag(
    s3_endpoint: str, bucket: str, s3_config: StorageConfig
):
    put(s3_endpoint, bucket, "a.mp4")
    [item] = source_of(bucket, s3_config).objects
    assert item.version == hashlib.md5(b"a.mp4").hexdigest()
    assert (item.size, item.version) == stat_object(Store(bucket, s3_config), f"{bucket}/a.mp4")
    filesystem(s3_endpoint).pipe_file(f"{bucket}/a.mp4", b"other")
    assert stat_object(Store(bucket, s3_config), f"{bucket}/a.mp4")[1] != item.version


def test_the_version_falls_back_to_size_and_time():
    assert object_version({"ETag": '"abc"', "size": 3}) == "abc"
    assert object_version({"size": 3, "mtime": 7}) == "3-7"
    assert object_version({"size": 3}) == "3-"


# Stores that say less


@pytest.mark.s3
@pytest.mark.parametrize("where", ["listing", "everywhere"])
def test_a_store_without_etags_is_known_by_size_and_time(
    s3_endpoint: str, bucket: str, tmp_path: Path, where: str
):
    video = write_video(tmp_path / "v.mp4", 9).read_bytes()
    filesystem(s3_endpoint).pipe_file(f"{bucket}/v.mp4", video)
    with proxy(s3_endpoint, without_etags(listing_alone=where == "listing")) as url:
        storage = StorageConfig(endpoint_url=url)
        [item] = source_of(bucket, storage).objects
        assert item.version.startswith(f"{len(video)}-20")
        assert failure_of(decoded(source_of(bucket, storage), tmp_path / "work", storage)) is None


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


class _Page(_Quiet):
    """One page without links, whatever is asked for."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<p>An application is started here.")

    do_HEAD = do_GET


class _Tagged(_Quiet):
    def end_headers(self) -> None:
        self.send_header("ETag", '"as good as any"')
        super().end_headers()


@pytest.fixture(params=[_Quiet, _Tagged])
def web(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A web server with a page of links, which says neither sizes nor times."""
    pytest.importorskip("aiohttp", reason="fsspec asks web servers with it")
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "v.mp4", 9)
    with _serving(functools.partial(request.param, directory=str(tmp_path))) as url:
        yield f"{url}/in"


@contextlib.contextmanager
def _serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Generator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("folder", ["", "/"])
def test_a_folder_of_a_web_server_is_refused_with_what_works(web: str, folder: str):
    url = f"{web}{folder}"
    with pytest.raises(PipelineError) as caught:
        source_of(url)
    assert str(caught.value) == (
        f"input {url} is a web page or a folder of a web server, which cannot be listed reliably: "
        f"name its videos by a glob ({web}/*.mp4) or a manifest of URLs"
    )


def test_a_glob_of_a_web_server_that_answers_everything_with_a_page_lists_nothing():
    with _serving(_Page) as url:
        assert list(source_of(f"{url}/in/*.mp4").objects) == []
        with pytest.raises(PipelineError, match="is a web page"):
            source_of(f"{url}/watch?v=1")


def test_a_folder_of_a_web_server_without_a_file_lists_nothing(web: str, tmp_path: Path):
    (tmp_path / "in" / "empty").mkdir()
    assert list(source_of(f"{web}/empty/*.mp4").objects) == []
    assert list(Store(f"{web}/empty").list()) == []


def test_the_links_of_a_web_page_are_asked_one_by_one(web: str, tmp_path: Path):
    size = (tmp_path / "in" / "v.mp4").stat().st_size
    source = source_of(f"{web}/*.mp4")
    assert source.root == web
    assert [(item.uri, item.size) for item in source.objects] == [("v.mp4", size)]
    sent = decoded(source_of(f"{web}/*.mp4"), tmp_path / "work", StorageConfig())
    assert failure_of(sent) is None


def test_a_web_page_is_listed_without_sizes(web: str):
    assert list(Store(web).list()) == [("v.mp4", 0)]


def test_a_store_whose_names_begin_with_a_slash_is_listed():
    root = f"memory://{uuid.uuid4().hex}"
    memory = fsspec.filesystem("memory")
    for name in ("in/a.mp4", "in/deep/b.mp4", "in/out/x.parquet", "inside/c.mp4"):
        memory.pipe_file(f"{root}/{name}", b"12345")
    found = open_source(
        f"{root}/in", SourceConfig(), StorageConfig(), exclude_roots=[f"{root}/in/out"]
    )
    items = list(found.objects)
    assert [item.uri for item in items] == ["a.mp4", "deep/b.mp4"]
    assert [path for path, _ in Store(root).list("in/deep")] == ["in/deep/b.mp4"]
    for item in items:
        looked_at = stat_object(Store(found.root), f"{found.root}/{item.uri}")
        assert looked_at == (item.size, item.version) == (5, "5-")
