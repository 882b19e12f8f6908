"""A real S3 server on loopback in a process of its own; dummy credentials in the environment.

A pytest plugin: a test module asks for it with ``pytest_plugins = ["s3"]`` and imports what else it
needs from `s3_tools`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from s3_tools import SECRET, make_bucket

from pipelines.config import StorageConfig

# One request at a time: moto tests a condition and then writes, and is not atomic with threads.
_SERVE = """
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server
app = DomainDispatcherApplication(create_backend_app)
server = make_server("127.0.0.1", 0, app, threaded=False, request_handler=MotoRequestHandler)
print("port", server.server_port, flush=True)
server.serve_forever()
"""


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """URL of the server; dummy credentials are in the environment from then on."""
    patch = pytest.MonkeyPatch()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    patch.setenv("AWS_ACCESS_KEY_ID", "loopback")
    patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Nobody's real profile may reach a test.
    patch.setenv("AWS_CONFIG_FILE", os.devnull)
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        match = re.fullmatch(r"port (\d+)\n", line)
        assert match, f"the S3 server did not start: {line!r}"
        yield f"http://127.0.0.1:{match.group(1)}"
    finally:
        server.kill()
        server.wait()
        if server.stdout:
            server.stdout.close()
        patch.undo()


@pytest.fixture
def bucket(s3_endpoint: str) -> str:
    """URL of an empty bucket of its own."""
    return make_bucket(s3_endpoint)


@pytest.fixture
def s3_config(s3_endpoint: str) -> StorageConfig:
    """How to reach the server."""
    return StorageConfig(endpoint_url=s3_endpoint)
