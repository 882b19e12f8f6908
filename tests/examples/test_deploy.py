"""docs/recipes.md and examples/deploy: commands that are taken, files that fit together."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from s3_tools import SECRET, filesystem, make_bucket

from jobs.cli import main
from pipelines.stage_metrics import exported_names

pytest_plugins = ["s3"]

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "examples" / "deploy"
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.M | re.S)
LINES = [line for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]
OURS = [line for line in LINES if re.search(r"\b(infotok|jobs) (run|doctor) ", line)]
ELSEWHERE = {
    "ray start --head": "e2e/test_ray_job.py",
    "curl -s": "e2e/test_ray_job.py",
    "infotok analyse": "e2e/test_second_pass.py",
    "infotok tokenise": "e2e/test_second_pass.py",
}
SMALL = ("--set", "space.size=64", "--set", "window.frames=9")


def _words(command: str) -> list[str]:
    """What comes behind ``infotok``, or ``python -m jobs``."""
    words = shlex.split(command)
    return words[next(i for i, word in enumerate(words) if word in ("infotok", "jobs")) + 1 :]


@pytest.fixture
def places(s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Where the places of the page are here; each input holds one clip."""
    clip, bucket = ROOT / "examples" / "clips" / "car.mp4", make_bucket(s3_endpoint)
    filesystem(s3_endpoint).put_file(str(clip), f"{bucket}/videos/car.mp4")
    (tmp_path / "videos").mkdir()
    shutil.copy(clip, tmp_path / "videos")
    credentials = tmp_path / "credentials"
    keys = f"aws_access_key_id = loopback\naws_secret_access_key = {SECRET}\n"
    credentials.write_text(f"[lab]\n{keys}")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.chdir(tmp_path)
    return {"s3://bucket": bucket, "https://store.example:9000": s3_endpoint}


@pytest.mark.s3
@pytest.mark.parametrize("command", OURS)
def test_a_command_of_the_page_is_taken(command: str, places: dict[str, str]) -> None:
    for there, here in places.items():
        command = command.replace(there, here)
    words = _words(command.partition("#")[0])
    extra = ("--dry-run",) if words[0] == "run" else ()
    result = CliRunner().invoke(main, [*words, *SMALL, *extra])
    assert result.exit_code == 0, result.output
    assert (json.loads(result.stdout)["videos"] == 1) if extra else ("FAIL" not in result.stdout)


def test_every_other_command_is_tried_elsewhere_or_marked() -> None:
    for line in LINES:
        test = next((test for start, test in ELSEWHERE.items() if line.startswith(start)), None)
        assert line in OURS or line.endswith("# untried") or (ROOT / f"tests/{test}").exists(), line


@pytest.mark.parametrize("script", ["cluster.sh", "deploy/slurm.sh"])
def test_a_script_is_sound_bash(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / "examples" / script)], check=True)


def _fields(required: tuple[str, ...] = (), **properties: object) -> dict[str, Any]:
    kinds = {name: {"type": kind} if isinstance(kind, str) else kind
             for name, kind in properties.items()}  # fmt: skip
    return {"type": "object", "additionalProperties": False, "properties": kinds,
            "required": list(required)}  # fmt: skip


STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
GROUP = {
    "rayStartParams": STRINGS,
    "template": _fields(("spec",), metadata="object", spec="object"),
}
# After KubeRay's API reference of ray.io/v1: of what a RayJob may have, the part of use here.
RAY_JOB = _fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=_fields(("name",), name="string", namespace="string", labels=STRINGS),
    spec=_fields(
        ("entrypoint", "rayClusterSpec"),
        activeDeadlineSeconds="integer",
        backoffLimit="integer",
        clusterSelector=STRINGS,
        entrypoint="string",
        entrypointNumCpus="number",
        jobId="string",
        runtimeEnvYAML="string",
        shutdownAfterJobFinishes="boolean",
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        suspend="boolean",
        ttlSecondsAfterFinished="integer",
        rayClusterSpec=_fields(
            ("headGroupSpec",),
            authOptions=_fields(("mode",), mode={"enum": ["disabled", "token"]}),
            enableInTreeAutoscaling="boolean",
            rayVersion="string",
            headGroupSpec=_fields(("rayStartParams", "template"), serviceType="string", **GROUP),
            workerGroupSpecs={
                "type": "array",
                "items": _fields(
                    ("groupName", "rayStartParams", "template"),
                    groupName="string",
                    replicas="integer",
                    minReplicas="integer",
                    maxReplicas="integer",
                    **GROUP,
                ),
            },
        ),
    ),
)


@pytest.fixture
def ray_job() -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / "rayjob.yaml").read_text(encoding="utf-8"))


def test_the_rayjob_has_the_fields_of_the_api_and_no_others(ray_job: dict[str, Any]) -> None:
    jsonschema.validate(ray_job, RAY_JOB)
    ray_job["spec"]["rayClusterSpec"]["workerGroupSpec"] = []
    with pytest.raises(jsonschema.ValidationError, match="workerGroupSpec"):
        jsonschema.validate(ray_job, RAY_JOB)


def test_the_pods_of_the_rayjob_fit_together(ray_job: dict[str, Any]) -> None:
    cluster = ray_job["spec"]["rayClusterSpec"]
    assert f"\nray=={cluster['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["resources"]["limits"] == container["resources"]["requests"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert str(ports["metrics"]) == group["rayStartParams"]["metrics-export-port"]
        mounts = {mount["name"] for mount in container.get("volumeMounts", [])}
        assert mounts == {volume["name"] for volume in pod.get("volumes", [])}
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


@pytest.mark.s3
def test_the_entrypoint_of_the_rayjob_is_taken(
    ray_job: dict[str, Any], places: dict[str, str]
) -> None:
    test_a_command_of_the_page_is_taken(ray_job["spec"]["entrypoint"], places)


def test_the_dockerfile_copies_what_the_package_holds() -> None:
    copied = set(re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.M))
    names = {name for line in copied for name in line.split()}
    assert {"jobs", "pipelines", "schemas", "infotok_core", "constraints.txt"} <= names
    assert all((ROOT / name).exists() for name in names)


def test_the_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = {name for query in queries for name in re.findall(r"ray_infotok_\w+", query)}
    assert shown == exported_names()
    assert all("by (stage)" in query for query in queries)
    assert {f"`{name}`" for name in exported_names()} <= set(re.findall(r"`ray_infotok_\w+`", PAGE))
