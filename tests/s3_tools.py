"""Looking into the S3 server of the tests, and proxies that make it behave like lesser stores."""

from __future__ import annotations

import functools
import http.client
import re
import secrets
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import fsspec

SECRET = "loopback+secret/0123456789abcdef"
"""The secret key in the environment: nothing that is written anywhere may hold it."""

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, body."""
Forward = Callable[[dict[str, str]], Answer]
Behaviour = Callable[[str, str, dict[str, str], Forward], Answer]
"""Method, path, headers, and what forwards the request with the headers it is given."""


def make_bucket(endpoint: str) -> str:
    """Create a bucket; returns its URL."""
    name = f"bucket-{secrets.token_hex(6)}"
    filesystem(endpoint).mkdir(name)
    return f"s3://{name}"


@functools.cache
def filesystem(endpoint: str) -> Any:
    """A plain s3fs, none of our code, to look at what is there."""
    return fsspec.filesystem(
        "s3",
        client_kwargs={"endpoint_url": endpoint},
        use_listings_cache=False,
        skip_instance_cache=True,
    )


def objects(endpoint: str, bucket: str) -> dict[str, bytes]:
    """Everything in a bucket, by key."""
    fs = filesystem(endpoint)
    name = bucket.removeprefix("s3://")
    return {path.removeprefix(name + "/"): fs.cat_file(path) for path in fs.find(name)}


@contextmanager
def proxy(endpoint: str, answer: Behaviour) -> Generator[str]:
    """A server in front of another.

    Args:
        endpoint: The other.
        answer: What to answer to a request; called in a thread for each. ConnectionAbortedError:
            nothing.
    """
    address = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        # Of 1.0 botocore would wait for "100 Continue" in vain.
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def forward(headers: dict[str, str]) -> Answer:
                connection = http.client.HTTPConnection(address, timeout=30)
                connection.request(self.command, self.path, body, headers)
                response = connection.getresponse()
                result = response.status, dict(response.getheaders()), response.read()
                connection.close()
                return result

            headers = {k: v for k, v in self.headers.items() if k.lower() != "expect"}
            try:
                status, answered, content = answer(self.command, self.path, headers, forward)
            except ConnectionAbortedError:
                self.close_connection = True
                return
            self.send_response(status)
            for name, value in answered.items():
                if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                    self.send_header(name, value)
            length = answered.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def ignores_conditions(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
    """As older S3-compatible stores do: If-None-Match is not read."""
    del method, path
    return forward({k: v for k, v in headers.items() if k.lower() != "if-none-match"})


def names_no_condition(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
    """As MinIO and Ceph do: 412 whose body does not say which condition failed."""
    del method, path
    status, answered, body = forward(headers)
    return status, answered, re.sub(rb"<Condition>.*?</Condition>", b"", body)


def without_etags(*, listing_alone: bool) -> Behaviour:
    """Has no ETags, and times that are finer in a listing than where one object is asked for."""

    def answer(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
        del method, path
        status, answered, body = forward(headers)
        if b"<ListBucketResult" in body:
            body = re.sub(rb"<ETag>.*?</ETag>", b"", body).replace(b".000Z<", b".123Z<")
        elif not listing_alone:
            answered = {name: value for name, value in answered.items() if name.lower() != "etag"}
        return status, answered, body

    return answer


def noting(requests: list[tuple[str, str]]) -> Behaviour:
    """As it is; what was asked goes into ``requests`` as (method, key), a listing as ``LIST``."""

    def answer(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
        parts = urlsplit(path)
        _, _, key = unquote(parts.path).removeprefix("/").partition("/")
        listed = parse_qs(parts.query, keep_blank_values=True)
        if "list-type" in listed:
            method, key = "LIST", listed.get("prefix", [""])[0]
        requests.append((method, key))
        return forward(headers)

    return answer


def conflicts_first() -> Behaviour:
    """As AWS does to concurrent conditional writes: the first one of each key is answered 409."""
    seen: set[str] = set()
    lock = threading.Lock()
    body = (
        b'<?xml version="1.0"?><Error><Code>ConditionalRequestConflict</Code>'
        b"<Message>The conditional request cannot succeed due to a conflicting operation</Message>"
        b"</Error>"
    )

    def answer(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
        conditional = any(name.lower() == "if-none-match" for name in headers)
        with lock:
            first = method == "PUT" and conditional and path not in seen
            seen.add(path)
        return (409, {"Content-Type": "application/xml"}, body) if first else forward(headers)

    return answer


def loses_first_answers() -> Behaviour:
    """The first write of each key is done, and the connection breaks before it is answered."""
    seen: set[str] = set()
    lock = threading.Lock()

    def answer(method: str, path: str, headers: dict[str, str], forward: Forward) -> Answer:
        with lock:
            first = method == "PUT" and path not in seen
            seen.add(path)
        answered = forward(headers)
        if first:
            raise ConnectionAbortedError
        return answered

    return answer
