"""An object store that counts: s3fs as it is, above requests that are answered in this process.

Everything the pipeline and s3fs do happens as with a real bucket, down to the single request; there
the answer comes from files on a local disk or, for objects that nobody reads, from a rule that
gives their names. Not measured is what lies below: HTTP, signatures, and botocore's parsing of XML.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fsspec
from s3fs import S3FileSystem

__all__ = ["CountingBucket", "NamedObjects", "mount"]

_PAGE = 1000


@dataclass(frozen=True, kw_only=True)
class NamedObjects:
    """Objects of which only name, size and ETag exist.

    Attributes:
        prefix: All keys begin with it.
        count: How many there are.
        size: From an index to bytes.
        key: From an index to the key; keys ascend with the index.
        etag: From an index to the ETag.
        near: From a key to an index that is not above its own.
    """

    prefix: str
    count: int
    size: Callable[[int], int]
    key: Callable[[int], str]
    etag: Callable[[int], str]
    near: Callable[[str], int]

    def after(self, start: str) -> Iterator[dict[str, Any]]:
        """Listed objects with keys above ``start``."""
        first = self.near(start) if start.startswith(self.prefix) else 0
        for index in range(first, self.count):
            key = self.key(index)
            if key > start:
                etag = f'"{self.etag(index)}"'
                yield {"Key": key, "Size": self.size(index), "ETag": etag}


class _Body(io.BytesIO):
    async def read(self, size: int | None = -1) -> bytes:  # pyright: ignore[reportIncompatibleMethodOverride]
        return super().read(size)


class CountingBucket:
    """What answers the requests of one bucket, and counts them.

    Args:
        folder: Where objects that are written go.
        named: Objects that can only be listed.
    """

    def __init__(self, folder: Path, named: tuple[NamedObjects, ...] = ()) -> None:
        self.folder = folder
        self.named = named
        self.requests: Counter[str] = Counter()
        self.num_bytes: Counter[str] = Counter()
        self._keys: set[str] = {
            Path(root, name).relative_to(folder).as_posix()
            for root, _, names in os.walk(folder)
            for name in names
        }
        self._order: list[str] = []
        self._folders: set[Path] = set()

    def __len__(self) -> int:
        return len(self._keys)

    def call(self, method: str, **options: Any) -> dict[str, Any]:  # noqa: ANN401
        """Answer a request of botocore's client."""
        self.requests[method] += 1
        return getattr(self, f"_{method}")(**options)

    def _put_object(
        self, *, Key: str, Body: bytes = b"", IfNoneMatch: str = "", **_: object
    ) -> dict[str, Any]:
        if IfNoneMatch and Key in self._keys:
            raise FileExistsError(Key)
        self._place(Key).write_bytes(Body)
        self._keys.add(Key)
        self.num_bytes["written"] += len(Body)
        return {"ETag": f'"{len(Body)}"'}

    def _get_object(self, *, Key: str, Range: str = "", **_: object) -> dict[str, Any]:
        self._must_exist(Key)
        with (self.folder / Key).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            first, _, last = Range.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(size - int(last), 0) if last else 0
            stop = int(last) + 1 if first and last else size
            file.seek(start)
            data = file.read(stop - start)
        self.num_bytes["read"] += len(data)
        return {"Body": _Body(data), "ContentLength": len(data)}

    def _head_object(self, *, Key: str, **_: object) -> dict[str, Any]:
        self._must_exist(Key)
        return {"ContentLength": (self.folder / Key).stat().st_size, "ETag": '"0"'}

    def _head_bucket(self, **_: object) -> dict[str, Any]:
        return {}

    def _delete_object(self, *, Key: str, **_: object) -> dict[str, Any]:
        self._drop(Key)
        return {}

    def _delete_objects(self, *, Delete: dict[str, Any], **_: object) -> dict[str, Any]:
        for item in Delete["Objects"]:
            self._drop(item["Key"])
        return {}

    def _create_multipart_upload(self, *, Key: str, **_: object) -> dict[str, Any]:
        upload = f".upload-{quote(Key, safe='')}"
        (self.folder / upload).mkdir()
        return {"UploadId": upload}

    def _upload_part(
        self, *, UploadId: str, PartNumber: int, Body: bytes, **_: object
    ) -> dict[str, Any]:
        (self.folder / UploadId / f"{PartNumber:05d}").write_bytes(Body)
        self.num_bytes["written"] += len(Body)
        return {"ETag": '"0"'}

    def _complete_multipart_upload(
        self, *, Key: str, UploadId: str, IfNoneMatch: str = "", **_: object
    ) -> dict[str, Any]:
        if IfNoneMatch and Key in self._keys:
            raise FileExistsError(Key)
        with self._place(Key).open("wb") as file:
            for part in sorted((self.folder / UploadId).iterdir()):
                file.write(part.read_bytes())
                part.unlink()
        (self.folder / UploadId).rmdir()
        self._keys.add(Key)
        return {"ETag": '"0"'}

    def _list_objects_v2(
        self,
        *,
        Prefix: str = "",
        Delimiter: str = "",
        ContinuationToken: str = "",
        MaxKeys: int = _PAGE,
        **_: object,
    ) -> dict[str, Any]:
        contents: list[dict[str, Any]] = []
        folders: list[dict[str, str]] = []
        last = ContinuationToken
        page: dict[str, Any] = {"Contents": contents, "CommonPrefixes": folders}
        while (item := next(self._listed(Prefix, last), None)) if Delimiter else None:
            rest = item["Key"][len(Prefix) :]
            if len(contents) + len(folders) == MaxKeys:
                return {**page, "IsTruncated": True, "NextContinuationToken": last}
            if Delimiter not in rest:
                contents.append(item)
                last = item["Key"]
                continue
            folders.append({"Prefix": Prefix + rest.split(Delimiter)[0] + Delimiter})
            # Behind every key of that folder.
            last = f"{folders[-1]['Prefix']}\U0010ffff"
        if Delimiter:
            return {**page, "IsTruncated": False}
        for item in self._listed(Prefix, ContinuationToken):
            if len(contents) == MaxKeys:
                return {**page, "IsTruncated": True, "NextContinuationToken": last}
            contents.append(item)
            last = item["Key"]
        return {**page, "IsTruncated": False}

    def _listed(self, prefix: str, after: str) -> Iterator[dict[str, Any]]:
        """Keys with a prefix; named objects and others never share one."""
        for named in self.named:
            if prefix.startswith(named.prefix):
                for item in named.after(max(after, prefix)):
                    if not item["Key"].startswith(prefix):
                        return
                    yield item
                return
        if len(self._order) != len(self._keys):
            self._order = sorted(self._keys)
        for key in self._order:
            if key > after and key.startswith(prefix):
                yield {"Key": key, "Size": 1, "ETag": '"0"'}

    def _place(self, key: str) -> Path:
        path = self.folder / key
        if path.parent not in self._folders:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(path.parent)
        return path

    def _must_exist(self, key: str) -> None:
        if key not in self._keys:
            raise FileNotFoundError(key)

    def _drop(self, key: str) -> None:
        if key in self._keys:
            self._keys.discard(key)
            self._order = []
            (self.folder / key).unlink()


def mount(bucket: CountingBucket) -> None:
    """From now on, every ``s3://`` of this process is ``bucket``."""

    class CountingFileSystem(S3FileSystem):
        async def _call_s3(self, method: str, *further: Any, **options: Any) -> Any:  # noqa: ANN401
            for more in further:
                options.update(more)
            return bucket.call(method, **options)

        async def set_session(self, refresh: bool = False, kwargs: Any = None) -> None:  # noqa: ANN401
            del refresh, kwargs

        def connect(self, **options: Any) -> None:  # noqa: ANN401
            del options

        call_s3 = fsspec.asyn.sync_wrapper(_call_s3)

    fsspec.register_implementation("s3", CountingFileSystem, clobber=True)
