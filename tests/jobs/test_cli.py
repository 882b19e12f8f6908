"""What the command line says and how it ends; nothing here needs Ray."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from s3_tools import filesystem

from jobs.cli import main
from pipelines import errors

pytest_plugins = ["s3"]

SHARED = {"--config", "--set", "--endpoint-url", "--profile", "--checkpoint", "--single-writer"}
READING = {"--endpoint-url", "--profile"}
GROWING = {"--statistics", "--work", "--set", *READING}
OPTIONS: dict[str, set[str]] = {
    "doctor": {"INPUT", "OUTPUT", "--json", "--work", *SHARED},
    "run": {
        *("INPUT", "OUTPUT", "--rate", "--format", "--dry-run", "--work", *SHARED),
        "--statistics-sample",
    },
    "plan": {"INPUT", "OUTPUT", "--work", *SHARED},
    "analyse": {
        *("INPUT", "OUTPUT", "--retry-failed", "--reason", "--work", *SHARED),
        "--statistics-sample",
    },
    "tokenise": {"OUTPUT", "--rate", "--format", "--work", *SHARED},
    "estimate": {
        *("INPUT", "--sample", "--windows", "--rate", "--clips-per-s", "--json", *SHARED),
    },
    "append": {"INPUT", "OUTPUT", *GROWING},
    "retry-failed": {"INPUT", "OUTPUT", "--reason", *GROWING},
    "merge": {"CORPORA", "OUTPUT", *READING},
    "validate": {
        *("CORPUS", "--json", "--reconstruct", "--re-encode", "--against", "--checkpoint"),
        *("--device", *READING),
    },
    "inspect": {"PATH", "--clip", *READING},
    "reconstruct": {
        *("CORPUS", "--to", "--against", "--side-by-side", "--video", "--clip", "--limit"),
        *("--json", "--checkpoint", "--device", *READING),
    },
    "report": {
        *("CORPUS", "-o", "--videos", "--video", "--against", "--no-decode", "--work"),
        *("--checkpoint", "--device", *READING),
    },
    "parity": {"--golden"},
    "export": {"CHECKPOINT", "OUTPUT", "--format", "--window"},
    "train": {
        *("INPUT", "OUTPUT", "--recipe", "--init", "--base", "--validation"),
        "--validation-windows",
        *("--device", "--workers", "--max-minutes", "--perceptual", "--card", *SHARED),
    },
    "evaluate": {
        *(
            "INPUT",
            "--rates",
            "--sweep",
            "--latent-router",
            "--max-windows",
            "--json",
            "--markdown",
            "--plots",
        ),
        *("--checkpoint", "--device", "--dtype", "--batch-size", "--threads", "--workers"),
        *("--frames", "--exponent", "--from-json"),
        *("--size", "--grid-points", "--grid-selection", "--search-psnr", "--measure-all"),
        *("--lpips-vgg", "--lpips-heads", "--i3d", *READING),
    },
}
"""Every argument and option there is. Taking one away breaks somebody's script; adding one is a
decision: each run has its configuration file."""


def infotok(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """Listed, and never opened."""
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.mp4").write_bytes(b"12345")
    (folder / "deep" / "b.mp4").write_bytes(b"123")
    return folder


def verb(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)  # type: ignore[attr-defined]
    assert found is not None
    return found


def test_the_verbs_are_these():
    assert main.list_commands(click.Context(main)) == list(OPTIONS)  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", list(OPTIONS))
def test_the_options_of_a_verb_are_these(name: str):
    found = {parameter.opts[0] for parameter in verb(name).params}
    # An argument may be shown by another name than that of its variable.
    shown = {"input_url": "INPUT"}
    assert {shown.get(o, o if o.startswith("-") else o.upper()) for o in found} == OPTIONS[name]


@pytest.mark.parametrize("name", list(OPTIONS))
def test_every_verb_and_option_explains_itself(name: str):
    command = verb(name)
    assert command.help
    for parameter in command.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name
    result = infotok(name, "--help")
    assert result.exit_code == 0
    assert all(option in result.output for option in OPTIONS[name])


def test_help_lists_verbs_and_exit_codes_and_loads_neither_torch_nor_ray():
    code = (
        "import sys\nfrom jobs.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "print(sorted({'torch', 'ray', 'pyarrow', 'av'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in done.stdout for name in OPTIONS)
    assert "143  SIGTERM" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_exit_codes_in_the_help_are_those_of_the_errors():
    kinds = [getattr(errors, name) for name in errors.__all__]
    assert {kind.exit_code for kind in kinds} == {1, 3, 4, 5, 143}
    text = infotok("--help").output
    for code in (0, 1, 2, 3, 4, 5, 130, 143):
        assert f" {code}  " in text


def test_an_interrupt_before_the_work_has_an_exit_code_of_its_own():
    # A server that never answers: so the input is being listed for long enough.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v.mp4"
        # Who runs the tests in the background may have told all of them not to hear of it.
        heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        code = f"{heard}from jobs.cli import main; main()"
        command = [sys.executable, "-c", code, "plan", url, "out"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        with server.accept()[0]:
            process.send_signal(signal.SIGINT)
            said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (130, "error: stopped as asked\n")


def test_python_m_jobs_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "jobs", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == infotok("--version").output
    assert done.stdout.startswith("infotok 0.")


@pytest.mark.parametrize(
    "arguments",
    [
        ("runn",),
        ("run",),
        ("run", "in", "out", "--rate", "half"),
        ("run", "in", "out", "--format", "tar"),
        ("run", "in", "out", "--rate", "1.5"),
        ("run", "in", "out", "--set", "space.sise=64"),
        ("run", "in", "out", "--config", "missing.toml"),
        ("tokenise", "out", "--rate", "0.01"),
    ],
)
def test_wrong_usage_ends_with_2_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
):
    monkeypatch.chdir(tmp_path)
    result = infotok(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error:" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "analyse in out --reason TRUNCATED",
            "--reason: without --retry-failed nothing is run again",
        ),
        (
            "validate corpus --device cpu --against in",
            "--against, --device: without --reconstruct or --re-encode no window is computed again",
        ),
        ("validate corpus --checkpoint x --json", "--checkpoint: without --reconstruct"),
        (
            "report corpus --no-decode --checkpoint default --against in --device cpu",
            "--against, --checkpoint, --device: with --no-decode nothing is decoded",
        ),
        ("report corpus --video a.mp4 --videos 4", "--videos: --video names them"),
        (
            "evaluate in --grid-points 4 --grid-selection r2l --measure-all",
            "--grid-points, --grid-selection, --measure-all: "
            "without --sweep full or --search-psnr there is no grid of rates",
        ),
    ],
)
def test_an_option_that_would_change_nothing_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, message: str
):
    monkeypatch.chdir(tmp_path)
    result = infotok(*command.split())
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_lists_and_writes_nothing(videos: Path, tmp_path: Path):
    result = infotok("run", videos, tmp_path / "out", "--dry-run")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert (document["videos"], document["num_bytes"], document["shards"]) == (2, 8, 1)
    assert (document["source_root"], document["output"]) == (str(videos), str(tmp_path / "out"))
    assert document["work"] == str(tmp_path / "out" / "_work")
    assert not (tmp_path / "out").exists()


def test_a_plan_is_written_once_and_printed(videos: Path, tmp_path: Path):
    out, work = tmp_path / "out", tmp_path / "work"
    first = infotok("plan", videos, out, "--work", work)
    assert first.exit_code == 0, first.stderr
    assert sorted(path.name for path in work.iterdir()) == ["plan.json", "plan.parquet"]
    assert json.loads(first.stdout)["plan_id"]
    assert infotok("plan", videos, out, "--work", work).stdout == first.stdout


def test_results_go_to_stdout_and_messages_to_stderr(tmp_path: Path):
    result = infotok("plan", tmp_path / "nowhere", tmp_path / "out")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == f"error: input {tmp_path / 'nowhere'} does not exist\n"


def test_another_configuration_under_a_plan_ends_with_4(videos: Path, tmp_path: Path):
    assert infotok("plan", videos, tmp_path / "out").exit_code == 0
    result = infotok("plan", videos, tmp_path / "out", "--set", "space.size=64")
    assert result.exit_code == 4
    assert "space.size: was 256, is 64" in result.stderr


def test_a_checkpoint_that_is_none_is_named(videos: Path, tmp_path: Path):
    result = infotok("plan", videos, tmp_path / "out", "--checkpoint", tmp_path / "nothing")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: tokenizer: ")
    assert "nothing" in result.stderr


def test_a_folder_that_cannot_be_written_is_named(videos: Path):
    result = infotok("plan", videos, "/proc/nowhere")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: cannot write to /proc/nowhere")


def test_the_configuration_file_and_the_options_meet(videos: Path, tmp_path: Path):
    config = tmp_path / "run.toml"
    config.write_text("[output]\nshard_source_bytes = 1\n")
    arguments = ("run", videos, tmp_path / "out", "--dry-run", "--config", config)
    assert json.loads(infotok(*arguments).stdout)["shards"] == 2
    more = infotok(*arguments, "--set", "output.shard_source_bytes=100")
    assert json.loads(more.stdout)["shards"] == 1


@pytest.mark.s3
def test_one_endpoint_serves_input_and_output(s3_endpoint: str, bucket: str):
    filesystem(s3_endpoint).pipe_file(f"{bucket}/in/a.mp4", b"12345")
    result = infotok("plan", f"{bucket}/in", f"{bucket}/out", "--endpoint-url", s3_endpoint)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["source_root"] == f"{bucket}/in"
    names = filesystem(s3_endpoint).find(f"{bucket}/out")
    assert [name.rpartition("/out/")[2] for name in names] == [
        "_work/plan.json",
        "_work/plan.parquet",
    ]
