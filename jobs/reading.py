"""What the verbs that read share: stores, tokenizers, why what is read or written cannot be."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import click
import torch
from botocore.exceptions import BotoCoreError

from infotok_core.opening import named_dtype, open_tokenizer
from infotok_core.tokenizer import VideoCodec
from pipelines.config import SourceConfig, StorageConfig
from pipelines.corpus_reader import CorpusReader
from pipelines.errors import PipelineError, StorageError
from pipelines.sources import open_source
from pipelines.tokenizer_choice import opening_tokenizer
from schemas.versions import FormatError

__all__ = [
    "open_codec",
    "reading",
    "require_writable",
    "source_root",
    "store_options",
]


def store_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--endpoint-url --profile``, passed on as one `StorageConfig` named ``storage``."""

    def with_storage(*, endpoint_url: str | None, profile: str | None, **options: Any) -> Any:  # noqa: ANN401
        return command(storage=StorageConfig(endpoint_url=endpoint_url, profile=profile), **options)

    with_storage.__doc__ = command.__doc__
    with_storage.__dict__.update(command.__dict__)
    with_storage.__name__ = command.__name__
    decorated = click.option("--profile", help="AWS profile.")(with_storage)
    return click.option("--endpoint-url", help="S3 endpoint.")(decorated)


@contextlib.contextmanager
def reading(url: str) -> Generator[None]:
    """Turn what reading ``url`` can raise into one sentence for the person who asked.

    Raises:
        StorageError: If the store refuses.
        PipelineError: If what is stored there is damaged.
    """
    try:
        yield
    except FileNotFoundError as error:
        if error.filename:
            raise StorageError(f"{error.filename} does not exist") from error
        # Object stores fill in no file name.
        raise StorageError(f"{url}: not found: {error}") from error
    except (OSError, BotoCoreError) as error:
        raise StorageError(f"cannot read {url}: {error}") from error
    except FormatError as error:
        raise PipelineError(f"{url}: {error}") from error


def require_writable(path: str | Path) -> None:
    """See whether a file could be written, which is better said now than after hours.

    Raises:
        UsageError: If it could not.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise click.UsageError(f"{path.parent} is no folder: nothing could be written there")
    is_new = not path.exists()
    if not (is_new or path.is_file()):
        # A pipe is opened once.
        return
    try:
        path.open("ab").close()
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from error
    if is_new:
        path.unlink()


def open_codec(checkpoint: str, device: str | None, *, dtype: str = "float32") -> VideoCodec:
    """A tokenizer; without a ``device`` on the GPU, if there is one.

    Args:
        dtype: As the configuration names it.

    Raises:
        PipelineError: If the checkpoint cannot be used, or not in this dtype on the device, or
            there is no such device.
    """
    with opening_tokenizer():
        return open_tokenizer(
            checkpoint,
            device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
            dtype=named_dtype(dtype),
        )


def source_root(reader: CorpusReader, against: str | None, storage: StorageConfig) -> str:
    """Where the videos of a corpus are.

    Args:
        against: A folder, a glob, a manifest: whatever ``infotok run`` took, of which only the root
            is asked for. None: where the corpus says it was.
    """
    if against is None:
        return reader.info.source_root
    return open_source(against, SourceConfig(), storage).root
