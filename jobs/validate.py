"""``infotok validate``: read a whole corpus back and say what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import click
import torch

from jobs.options import refuse_idle
from jobs.reading import open_codec, reading, source_root, store_options
from pipelines.config import StorageConfig, TokenizerConfigRef
from pipelines.corpus_reader import CorpusReader
from pipelines.errors import AccountingError, IncompleteError
from pipelines.reachable import check_reachable
from pipelines.reconstruct import check_tokenizer
from pipelines.source_windows import SourceWindows
from pipelines.spot_checks import EncodedAgain, encode_again, reconstruct_sample
from pipelines.storage import Store
from pipelines.validate import Fault, ValidationReport
from pipelines.validate import validate as validate_corpus
from schemas.layout import CONFIG_PATH, MANIFEST_PATH, RECONSTRUCTION_PATH
from schemas.reconstruction import ReconstructionSample
from schemas.versions import FormatError

__all__ = ["validate"]

_TOLERANCE = 0.01
"""Share of tokens of a window that may be others on other hardware; of another video all are."""


@click.command()
@click.argument("corpus")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option(
    "--reconstruct", "decoded", type=click.IntRange(min=1), metavar="N",
    help=f"Decode N windows, measure PSNR and SSIM, and store them in {RECONSTRUCTION_PATH}.",
)  # fmt: skip
@click.option(
    "--re-encode", "encoded", type=click.IntRange(min=1), metavar="N",
    help="Encode N windows from their source again and compare the tokens.",
)  # fmt: skip
@click.option(
    "--against", metavar="SOURCE",
    help="Where the source is; default: where the corpus says it was.",
)  # fmt: skip
@click.option(
    "--checkpoint", default="default", show_default=True,
    help="The one that made the corpus: 'default', a directory, or a published .pt file.",
)  # fmt: skip
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Default: cuda if there is one.")
@store_options
def validate(
    *, corpus: str, as_json: bool, decoded: int | None, encoded: int | None, against: str | None,
    checkpoint: str, device: str | None, storage: StorageConfig,
) -> None:  # fmt: skip
    """Read CORPUS back and check it against its manifest, its head and the rules of its rows.

    Exits with 3 if something is wrong, with 4 if there is no corpus. Windows are decoded or encoded
    again only in a corpus that is sound otherwise.
    """
    if not (decoded or encoded):
        why = "without --reconstruct or --re-encode no window is computed again"
        refuse_idle(["against", "checkpoint", "device"], why)
    store = Store(corpus, storage)
    with reading(store.url):
        check_reachable(store)
        # A damaged manifest is a fault to report; without one there is nothing to check.
        if not store.exists(MANIFEST_PATH):
            raise IncompleteError(
                f"{store.url} holds no corpus: there is no {MANIFEST_PATH}, which a run writes last"
            )
        report = validate_corpus(store)
        measured, again = None, []
        if report.ok and (decoded or encoded):
            measured, again = _compute_again(
                store, decoded, encoded, against=against, checkpoint=checkpoint, device=device
            )
    faults = [*report.faults, *_faults(again)]
    if as_json:
        click.echo(json.dumps(_document(report, faults, measured, again), indent=1, sort_keys=True))
    else:
        for line in (report.summary(), *_lines(measured, again), *map(str, faults)):
            click.echo(line)
    if faults:
        raise SystemExit(AccountingError.exit_code)


def _compute_again(
    store: Store, decoded: int | None, encoded: int | None, *,
    against: str | None, checkpoint: str, device: str | None,
) -> tuple[ReconstructionSample | None, list[EncodedAgain]]:  # fmt: skip
    """Decode and encode so many windows; what was measured is stored."""
    computed = _computed(store)
    reader = CorpusReader.open(store)
    tokenizer = open_codec(checkpoint, device, dtype=computed.dtype)
    check_tokenizer(reader.info, tokenizer)
    root = source_root(reader, against, store.config)
    sources = SourceWindows(reader.info, root=root, storage=store.config)
    measured, again = None, []
    with sources, _threads(computed.cpu_threads):
        if decoded:
            measured = reconstruct_sample(reader, tokenizer, sources, count=decoded)
            store.replace(RECONSTRUCTION_PATH, measured.to_bytes(indent=1))
        if encoded:
            size = computed.batch_size
            again = list(encode_again(reader, tokenizer, sources, count=encoded, batch_size=size))
    return measured, again


def _computed(store: Store) -> TokenizerConfigRef:
    """How the corpus was computed: the last bits depend on it."""
    try:
        document = json.loads(store.read(CONFIG_PATH))
        return TokenizerConfigRef.model_validate(document["config"]["tokenizer"])
    except FileNotFoundError:
        return TokenizerConfigRef()
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(f"{CONFIG_PATH} does not say how the corpus was computed") from error


@contextmanager
def _threads(number: int) -> Generator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _faults(again: list[EncodedAgain]) -> list[Fault]:
    return [
        Fault(clip.clip_id, f"{clip.different} of {clip.num_tokens} tokens do not come out again")
        for clip in again
        if clip.different > _TOLERANCE * clip.num_tokens
    ]


def _lines(measured: ReconstructionSample | None, again: list[EncodedAgain]) -> Iterator[str]:
    if measured is not None:
        yield (
            f"reconstructed {len(measured.clips)} windows: PSNR {measured.psnr_db:.2f} dB, SSIM "
            f"{measured.ssim:.4f} ({RECONSTRUCTION_PATH})"
        )
    if again:
        tokens = sum(clip.num_tokens for clip in again)
        different = sum(clip.different for clip in again)
        yield f"encoded {len(again)} windows again: {different} of {tokens} tokens differ"


def _document(
    report: ValidationReport,
    faults: list[Fault],
    measured: ReconstructionSample | None,
    again: list[EncodedAgain],
) -> dict[str, Any]:
    document: dict[str, Any] = {
        "ok": not faults,
        "faults": [asdict(fault) for fault in faults],
        "files": report.num_files,
        "bytes": report.num_bytes,
        "videos": report.num_videos,
        "windows": report.totals.clips,
        "tokens": report.totals.tokens,
        "rate": report.totals.rate,
    }
    if measured is not None:
        document["reconstruction"] = {
            "windows": len(measured.clips), "psnr_db": measured.psnr_db, "ssim": measured.ssim,
        }  # fmt: skip
    if again:
        document["encoded_again"] = [asdict(clip) for clip in again]
    return document
