"""A real browser without a window, where one is installed: what a page looks like, and does.

Spoken to in the DevTools protocol over a pipe: JSON objects that end in a zero byte.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def browser() -> str | None:
    """The path of a Chromium of any name."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


requires_browser = pytest.mark.skipif(browser() is None, reason="needs Chromium (apt: chromium)")


class Browser:
    """One page of a headless Chromium. A context manager."""

    def __init__(self) -> None:
        self._profile = TemporaryDirectory(ignore_cleanup_errors=True)
        read_ours, write_theirs = os.pipe()
        read_theirs, write_ours = os.pipe()
        path = browser()
        assert path is not None
        command = [
            path, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}", "about:blank",
        ]  # fmt: skip
        # Chromium reads from descriptor 3 and writes to 4, which a shell can give it.
        theirs = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in (read_theirs, write_theirs)]
        self._process = subprocess.Popen(
            ["bash", "-c", 'exec "$@" 3<&{} 4>&{}'.format(*theirs), "bash", *command],
            pass_fds=theirs,
            stderr=subprocess.DEVNULL,
        )
        for fd in (read_theirs, write_theirs, *theirs):
            os.close(fd)
        self._to, self._from = os.fdopen(write_ours, "wb"), os.fdopen(read_ours, "rb")
        self._numbers = itertools.count(1)
        self._buffer = b""
        self._session: str | None = None
        targets = self._call("Target.getTargets")["targetInfos"]
        target = next(item["targetId"] for item in targets if item["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._to.close()
        self._from.close()
        self._profile.cleanup()

    def show(self, page: Path, *, width: int, theme: Literal["light", "dark"]) -> None:
        """Open a local page, and wait until it has loaded."""
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self._call("Emulation.setEmulatedMedia", features=features)
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=900,
                   deviceScaleFactor=1, mobile=False)  # fmt: skip
        self._call("Page.navigate", url=page.resolve().as_uri())
        self.run(
            "new Promise(done => document.readyState === 'complete' ? done() : "
            "addEventListener('load', done))"
        )

    def run(self, script: str) -> Any:
        """What an expression gives; a promise is waited for."""
        found = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> Path:
        """A PNG of the whole page."""
        found = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))
        return path

    def _call(self, method: str, **params: Any) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = json.loads(self._read())
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]

    def _read(self) -> bytes:
        while b"\0" not in self._buffer:
            data = os.read(self._from.fileno(), 1 << 16)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        return line
