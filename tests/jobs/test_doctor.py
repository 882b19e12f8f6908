"""What keeps a run from working is said before it, with what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from evaluations import write_small_checkpoint
from ray._private import services
from s3_tools import ignores_conditions, make_bucket, objects, proxy
from videos import write_video

from jobs.cli import main
from jobs.engine import engine
from pipelines.config import RunConfig, StorageConfig
from pipelines.doctor import ClusterShape, examine, gpu_memory
from pipelines.doctor_places import check_shared
from pipelines.errors import PipelineError
from pipelines.findings import Verdict
from pipelines.storage import Store

pytest_plugins = ["s3"]

SMALL = ("--set", "space.size=64", "--set", "window.frames=9")


def doctor(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["doctor", *map(str, arguments), *SMALL])


def test_where_a_run_would_work_it_exits_with_0_and_leaves_nothing(tmp_path: Path):
    source = tmp_path / "videos"
    source.mkdir()
    write_video(source / "a.mp4", 9)
    result = doctor(source, tmp_path / "out", "--json")
    assert result.exit_code == 0, result.output
    found = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert {"codecs", "weights", "memory", "cluster", "input", "output", "output disk"} <= set(
        found
    )
    assert all(finding["advice"] == "" for finding in found.values() if finding["verdict"] == "ok")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.mp4", "videos"]


def test_each_thing_that_is_wrong_has_its_advice_and_the_exit_code_is_1(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    result = doctor(tmp_path / "nothing", tmp_path / "file" / "out", "--checkpoint", tmp_path)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    for name in ("weights", "input", "output"):
        (line,) = [i for i, line in enumerate(lines) if line.split()[:2] == ["FAIL", name]]
        assert lines[line + 1].strip().startswith("-> ")
    assert "does not exist" in result.stdout
    # Nothing of buckets where there are none.
    assert "s3:" not in result.stdout


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:9", "nobody answers there"),
        ("auto", "here 127.0.0.1:9: nobody answers there"),
        ("a..b:6379", "nobody answers there"),
        ("http://127.0.0.1:8265", "is for `ray job submit`"),
        ("head", "is no address: HOST:PORT, or auto"),
        ("head:", "is no address"),
        ("ray://127.0.0.1:10001", "through which Ray Data does not run"),
    ],
)
def test_a_cluster_that_cannot_be_joined_is_one_finding_and_ends_a_run(
    address: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", address)
    # Of other tests, which run beside this one.
    monkeypatch.setattr(services, "find_gcs_addresses", dict)
    result = doctor("--checkpoint", tmp_path, "--json")
    assert result.exit_code == 1
    found = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert f"RAY_ADDRESS={address}" in found["cluster"]["what"]
    assert said in found["cluster"]["what"]
    assert {"codecs", "weights", "scratch"} <= set(found)
    with pytest.raises(PipelineError, match=said), engine():
        pass


def test_auto_is_the_cluster_that_runs_here_whatever_was_started_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(services, "find_gcs_addresses", lambda: {"127.0.0.1:10": 1})
    with pytest.raises(PipelineError, match=r"here 127\.0\.0\.1:10"), engine():
        pass


def test_a_tar_of_videos_is_no_input_and_it_is_said_what_to_do(tmp_path: Path):
    write_video(tmp_path / "a.mp4", 9)
    shutil.make_archive(str(tmp_path / "tars" / "shard-000"), "tar", tmp_path, "a.mp4")
    result = doctor(tmp_path / "tars", "--checkpoint", "/nowhere", "--json")
    found = {finding["name"]: finding for finding in json.loads(result.stdout)}
    assert found["input"]["verdict"] == "look"
    assert "shard-000.tar is a tar archive" in found["input"]["what"]
    assert "unpack" in found["input"]["advice"]


def test_folders_of_this_machine_are_named_if_the_cluster_has_others(tmp_path: Path):
    stores = {"output": Store("s3://bucket/out"), "work": Store(str(tmp_path / "work"))}
    assert check_shared(str(tmp_path), stores, nodes=1) is None
    assert check_shared("s3://bucket/in", {"output": stores["output"]}, nodes=2) is None
    found = check_shared(str(tmp_path), stores, nodes=2)
    assert found is not None
    assert found.verdict is Verdict.DOUBTFUL
    assert f"{tmp_path}, {tmp_path / 'work'}" in found.what
    assert "s3://" not in found.what
    # A list is read by the driver alone.
    listed = check_shared(str(tmp_path / "list.csv"), {"output": stores["output"]}, nodes=2)
    assert listed is None


def test_the_disk_is_that_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "not-yet"))
    config = RunConfig.model_validate({"tokenizer": {"checkpoint": "/nowhere"}})
    shape = ClusterShape(cpus=1, gpus=0, nodes=1)
    found = {item.name: item for item in examine(config, shape, source=None, stores={})}
    assert found["scratch"].what.startswith(f"{tmp_path / 'not-yet'}: ")


def test_without_credentials_it_says_where_they_come_from(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    place = ("s3://bucket/videos", "s3://bucket/out", "--endpoint-url", "http://127.0.0.1:9")
    result = doctor(*place, "--checkpoint", "/nowhere", "--json")
    found = {finding["name"]: finding for finding in json.loads(result.stdout)}
    for name, right in (("input", "s3:ListBucket"), ("output", "s3:PutObject")):
        assert found[name]["verdict"] == "FAIL"
        assert "Unable to locate credentials" in found[name]["what"]
        assert "--profile, or AWS_ACCESS_KEY_ID" in found[name]["advice"]
        assert right in found[name]["advice"]


@pytest.mark.parametrize(("cpus", "verdict"), [(2, Verdict.GOOD), (3, Verdict.DOUBTFUL)])
def test_decoders_without_a_video_are_named(cpus: int, verdict: Verdict, tmp_path: Path):
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"is not opened")
    config = RunConfig.model_validate({"tokenizer": {"checkpoint": "/nowhere"}})
    shape = ClusterShape(cpus=cpus, gpus=0, nodes=1)
    found = {item.name: item for item in examine(config, shape, source=str(tmp_path), stores={})}
    more = " or more" if cpus == 2 else ""
    assert f"2 objects{more}, first a.mp4" in found["input"].what
    assert found["plan"].verdict is verdict


@pytest.mark.parametrize(
    ("aware", "information", "named"),
    [(False, "latent", "has no latent router"), (True, "elbo", "has a budget-aware compressor")],
)
def test_what_a_run_would_refuse_of_a_tokenizer_is_refused_here(
    tmp_path: Path, aware: bool, information: str, named: str
):
    checkpoint = write_small_checkpoint(tmp_path / "checkpoint", budget_aware=aware)
    setting = f"analysis.information={information}"
    result = doctor(tmp_path, tmp_path / "out", "--checkpoint", checkpoint, "--set", setting)
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if line.split()[1:2] == ["weights"]]
    assert line.startswith("FAIL")
    assert named in line


@pytest.mark.parametrize(
    ("settings", "shape", "verdict"),
    [
        ({"tokenizer": {"device": "cuda"}}, ClusterShape(cpus=8, gpus=0, nodes=1), Verdict.BAD),
        ({"runtime": {"actors": 5}}, ClusterShape(cpus=8, gpus=2, nodes=1), Verdict.BAD),
        ({"runtime": {"actors": 5}}, ClusterShape(cpus=8, gpus=0, nodes=1), Verdict.DOUBTFUL),
        ({"runtime": {"actors": 4}}, ClusterShape(cpus=8, gpus=0, nodes=1), Verdict.GOOD),
        ({"runtime": {"decoders": 9}}, ClusterShape(cpus=8, gpus=2, nodes=1), Verdict.DOUBTFUL),
        ({}, ClusterShape(cpus=8, gpus=2, nodes=1), Verdict.GOOD),
    ],
)
def test_the_cluster_is_compared_with_the_plan(settings, shape, verdict, tmp_path: Path):
    # No weights, so that nothing is computed.
    document = {"tokenizer": {}, **settings}
    document["tokenizer"] = {**document["tokenizer"], "checkpoint": str(tmp_path)}
    found = list(examine(RunConfig.model_validate(document), shape, source=None, stores={}))
    assert [item.verdict for item in found if item.name == "cluster"] == [verdict]


@pytest.mark.parametrize(
    ("device", "named"),
    [
        ("auto", ["no CPU", "runtime.actors = 5", "runtime.decoders = 9"]),
        ("cuda", ["no CPU", "device = cuda", "runtime.decoders = 9"]),
    ],
)
def test_all_that_a_cluster_lacks_is_said_at_once(device: str, named: list[str]):
    document = {
        "tokenizer": {"checkpoint": "/nowhere", "device": device},
        "runtime": {"actors": 5, "decoders": 9},
    }
    shape = ClusterShape(cpus=0, gpus=0, nodes=1)
    found = examine(RunConfig.model_validate(document), shape, source=None, stores={})
    said = [item.what for item in found if item.name == "cluster"]
    assert [name for name in named if not any(name in line for line in said)] == []
    assert len(said) == len(named)


@pytest.mark.parametrize(
    ("settings", "cpus", "advised"),
    [
        ({}, 0, ["nodes with CPUs", "runtime.actors", "device = cuda"]),
        ({"tokenizer": {"device": "cuda"}}, 2, ["nodes with GPUs", "runtime.decoders"]),
        ({"tokenizer": {"device": "cpu"}, "runtime": {"decoders": 8}}, 2, ["runtime.actors"]),
        ({"tokenizer": {"device": "cpu"}, "runtime": {"decoders": 8, "actors": 9}}, 2, []),
    ],
)
def test_what_an_autoscaler_may_bring_is_no_fault(settings, cpus: int, advised: list[str]):
    document = {"tokenizer": {}, **settings}
    document["tokenizer"] = {**document["tokenizer"], "checkpoint": "/nowhere"}
    shape = ClusterShape(cpus=cpus, gpus=0, nodes=1, autoscaled=True)
    found = examine(RunConfig.model_validate(document), shape, source=None, stores={})
    (said,) = [item for item in found if item.name == "cluster"]
    assert said.verdict is (Verdict.DOUBTFUL if advised else Verdict.GOOD)
    assert said.what == f"nodes: 1, CPUs: {cpus}, GPUs: 0, and an autoscaler"
    assert [name for name in advised if name not in said.advice] == []
    assert ("GPUs" in said.advice) == any("GPU" in name or "cuda" in name for name in advised)


@pytest.mark.parametrize(("actors", "verdict"), [(1, Verdict.GOOD), (2, Verdict.DOUBTFUL)])
def test_tokenizers_that_share_a_gpu_share_its_memory(actors: int, verdict: Verdict):
    found = gpu_memory(45 << 30, 80 << 30, actors=actors)
    assert found.verdict is verdict
    assert ("actors_per_gpu" in found.advice) == (actors == 2)


def test_a_small_object_store_is_named(tmp_path: Path):
    config = RunConfig.model_validate({"tokenizer": {"checkpoint": str(tmp_path)}})
    shape = ClusterShape(cpus=64, gpus=8, nodes=1, object_store_bytes=1 << 30)
    (found,) = [
        item
        for item in examine(config, shape, source=None, stores={})
        if item.name == "object store"
    ]
    assert found.verdict is Verdict.DOUBTFUL
    assert "--object-store-memory" in found.advice


@pytest.mark.parametrize(
    ("gpus", "device", "found"), [(0, "auto", 0), (1, "auto", 1), (1, "cpu", 0)]
)
def test_what_gpu_actors_hold_has_to_fit_beside_what_is_decoded(gpus: int, device: str, found: int):
    document = {"tokenizer": {"checkpoint": "/nowhere", "device": device}}
    shape = ClusterShape(cpus=16, gpus=gpus, nodes=1, object_store_bytes=5 << 30)
    findings = examine(RunConfig.model_validate(document), shape, source=None, stores={})
    assert sum(item.name == "object store" for item in findings) == found


@pytest.mark.s3
def test_a_store_that_ignores_conditions_is_found_and_a_single_writer_passes(s3_endpoint: str):
    bucket = make_bucket(s3_endpoint)
    with proxy(s3_endpoint, ignores_conditions) as url:
        for single_writer, verdict in ((False, Verdict.BAD), (True, Verdict.GOOD)):
            document = {
                "tokenizer": {"checkpoint": "/nowhere"},
                "runtime": {"single_writer": single_writer},
            }
            stores = {"output": Store(bucket, StorageConfig(endpoint_url=url))}
            shape = ClusterShape(cpus=1, gpus=0, nodes=1)
            found = examine(RunConfig.model_validate(document), shape, source=None, stores=stores)
            assert [item.verdict for item in found if item.name == "output"] == [verdict]
    assert objects(s3_endpoint, bucket) == {}
