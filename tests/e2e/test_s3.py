"""From bucket to bucket: the same bytes as from folder to folder, and no secret left anywhere."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from runs import PATIENCE_S, Finished, run_command, start
from s3_tools import SECRET, filesystem, make_bucket, noting, objects, proxy
from webdataset.compat import WebDataset

from pipelines.config import StorageConfig
from pipelines.storage import Store
from pipelines.validate import validate

pytestmark = [pytest.mark.ray, pytest.mark.s3]
pytest_plugins = ["s3"]


@dataclass(frozen=True, kw_only=True)
class BucketRun:
    """What a run left in its bucket, and everything it said.

    Attributes:
        files: Below the output, by path; the work folder included.
        said: By name: stdout, stderr, and every log of its Ray.
        requests: All that it asked of the store: (method, key).
    """

    endpoint: str
    bucket: str
    requests: list[tuple[str, str]]
    files: dict[str, bytes]
    said: dict[str, bytes]


@pytest.fixture(scope="module")
def run(
    s3_endpoint: str, source: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> BucketRun:
    folder = tmp_path_factory.mktemp("s3")
    bucket = make_bucket(s3_endpoint)
    for video in source.iterdir():
        filesystem(s3_endpoint).put_file(str(video), f"{bucket}/in/{video.name}")
    places = {"IN": f"{bucket}/in", "OUT": f"{bucket}/out"}
    command = run_command(Path("IN"), Path("OUT"), checkpoint)
    command = [places.get(word, word) for word in command]
    requests: list[tuple[str, str]] = []
    # Short: the paths of Ray's sockets may have 107 bytes.
    ray = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    try:
        with proxy(s3_endpoint, noting(requests)) as url:
            command += ["--endpoint-url", url]
            with start(command, folder / "run.log", {"RAY_TMPDIR": str(ray)}) as session:
                status = session.wait(PATIENCE_S)
        said = {
            str(path): path.read_bytes()
            for path in (session.log, session.output, *ray.rglob("logs/**/*"))
            if path.is_file()
        }
    finally:
        shutil.rmtree(ray, ignore_errors=True)
    assert status == 0, said[str(session.log)][-3000:].decode(errors="replace")
    found = objects(s3_endpoint, bucket)
    files = {key[4:]: data for key, data in found.items() if key.startswith("out/")}
    return BucketRun(endpoint=s3_endpoint, bucket=bucket, requests=requests, files=files, said=said)


def test_data_files_are_those_of_a_run_from_folder_to_folder(
    run: BucketRun, undisturbed: Finished
) -> None:
    def data(files: dict[str, bytes]) -> dict[str, bytes]:
        return {path: files[path] for path in files if path.startswith(("data/", "wds/"))}

    local = {
        path.relative_to(undisturbed.output).as_posix(): path.read_bytes()
        for path in undisturbed.output.rglob("*")
        if path.is_file()
    }
    assert len(data(local)) > 8
    assert data(run.files) == data(local)
    assert run.files["meta/manifest.parquet"] == local["meta/manifest.parquet"]
    assert sorted(path for path in run.files if not path.startswith("_work/")) == sorted(
        path for path in local if not path.startswith("_work/")
    )


def test_another_client_and_plain_parquet_read_the_rows(run: BucketRun) -> None:
    store = pyarrow.fs.S3FileSystem(
        endpoint_override=run.endpoint.removeprefix("http://"), scheme="http", region="us-east-1"
    )
    root = f"{run.bucket.removeprefix('s3://')}/out"
    manifest = pq.read_table(f"{root}/meta/manifest.parquet", filesystem=store).to_pylist()
    table = pq.read_table(f"{root}/data", filesystem=store)
    parts = [row for row in manifest if row["format"] == "parquet"]
    assert table.num_rows == sum(row["clips"] for row in parts)
    counts = [len(tokens) for tokens in table["tokens"].to_pylist()]
    assert counts == table["num_tokens"].to_pylist()
    assert sum(counts) == sum(row["tokens"] for row in parts)


def test_plain_webdataset_reads_the_samples(run: BucketRun, tmp_path: Path) -> None:
    tars = {path: data for path, data in run.files.items() if path.endswith(".tar")}
    for path, data in tars.items():
        (tmp_path / Path(path).name).write_bytes(data)
    urls = sorted(str(path) for path in tmp_path.iterdir())
    dataset: Iterable[dict[str, Any]] = WebDataset(urls, shardshuffle=False).decode()  # type: ignore[assignment]
    samples = list(dataset)
    rows = pq.read_table(run_parquet(run, tmp_path)).to_pylist()
    by_key = {row["clip_id"]: row for row in rows}
    assert len(samples) == len(by_key) > 100
    for sample in samples:
        row = by_key[sample["__key__"]]
        assert sample["tokens.npy"].dtype == np.uint16
        assert sample["tokens.npy"].tolist() == row["tokens"]
        assert sample["mask.npy"].tobytes() == row["mask"]
        assert sample["json"]["source"] == row["source"]


def run_parquet(run: BucketRun, folder: Path) -> list[str]:
    paths: list[str] = []
    for path, data in run.files.items():
        if path.startswith("data/"):
            paths.append(str(folder / Path(path).name))
            Path(paths[-1]).write_bytes(data)
    return paths


def test_the_corpus_in_the_bucket_is_sound(run: BucketRun) -> None:
    store = Store(f"{run.bucket}/out", StorageConfig(endpoint_url=run.endpoint))
    assert validate(store).faults == ()


def test_the_secret_of_the_environment_is_nowhere(run: BucketRun) -> None:
    spellings = [SECRET.encode(), quote(SECRET, safe="").encode()]
    written = {**run.files, **run.said}
    # Ray's own logs of driver, workers and raylet are among them.
    assert any("raylet" in name for name in written)
    assert any("worker" in name for name in written)
    leaking = [name for name, data in written.items() if any(s in data for s in spellings)]
    assert leaking == []
    assert b"AWS_SECRET" not in b"".join(run.files.values())


def test_requests_are_as_many_as_the_page_on_capacity_counts(run: BucketRun) -> None:
    # docs/capacity.md, "Requests": they are what a bucket costs beside its bytes.
    asked = Counter(
        (method, "/".join(key.removeprefix("out/").split("/")[:-1])) for method, key in run.requests
    )
    folders = Counter("/".join(path.split("/")[:-1]) for path in run.files)
    videos, units, shards = 11, folders["_work/units/000000"], 3
    assert asked["PUT", "_work/units/000000"] == asked["GET", "_work/units/000000"] == units
    assert (asked["GET", "in"], asked["HEAD", "in"]) == (videos, videos)
    assert (asked["PUT", "_work/videos"], asked["GET", "_work/videos"]) == (videos, 0)
    starts = [key for method, key in run.requests if method == "PUT" and "/attempts/" in key]
    actors = 1
    assert len(starts) == videos + units + shards + actors
    assert asked["PUT", "data"] == folders["data"]
    assert asked["PUT", "wds"] == folders["wds"]
    in_proportion = 4 * videos + 3 * units + folders["data"] + folders["wds"] + 10 * shards
    assert in_proportion < asked.total() <= in_proportion + 90
