"""What the driver is told of a unit: the line of the receipt, and its share of the statistics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pipelines.decode_types import failure_to_json
from pipelines.records import Status
from schemas.failures import Failure
from schemas.ids import unit_id
from schemas.receipts import UnitEntry
from schemas.statistics import ElboBins
from schemas.token_bins import TokenBins
from schemas.units import decode_unit
from schemas.window_counts import WindowCounter
from schemas.windows import WindowAnalysis

__all__ = ["describe_unit", "failed_unit", "stored_unit"]


def describe_unit(
    path: str,
    unit_id: str,
    data: bytes,
    windows: Sequence[WindowAnalysis],
    *,
    token_floor: float | None,
) -> tuple[UnitEntry, ElboBins, TokenBins | None]:
    """The line of the receipt that stands for a unit object, and its share of the statistics.

    Args:
        data: The unit object.
        windows: What it holds.
        token_floor: See `config.RoutingConfig.token_floor`.
    """
    counter = WindowCounter(token_floor)
    for window in windows:
        counter.add(window.information)
    entry = UnitEntry(
        unit_id=unit_id,
        path=path,
        windows=len(windows),
        tokens=sum(window.codes.size for window in windows),
        sha256=hashlib.sha256(data).hexdigest(),
        num_bytes=len(data),
    )
    return entry, *counter.freeze()


def stored_unit(
    path: str,
    video: str,
    unit_index: int,
    data: bytes,
    windows: Sequence[WindowAnalysis] | None = None,
    *,
    token_floor: float | None,
) -> Status:
    """The row of a unit that is stored.

    Args:
        data: The unit object.
        windows: What it holds; None reads them from ``data``.
        token_floor: See `config.RoutingConfig.token_floor`.
    """
    windows = decode_unit(data) if windows is None else windows
    name = unit_id(video, unit_index)
    entry, bins, tokens = describe_unit(path, name, data, windows, token_floor=token_floor)
    payload = {
        "unit_index": unit_index,
        "entry": entry.model_dump(),
        "bins": bins.model_dump(),
    }
    if tokens is not None:
        payload["token_bins"] = tokens.model_dump()
    return Status(kind="unit", video=video, payload=payload)


def failed_unit(video: str, unit_index: int, failure: Failure) -> Status:
    """The row of a unit that could not be analysed."""
    payload = {"unit_index": unit_index, "failure": failure_to_json(failure)}
    return Status(kind="unit", video=video, payload=payload)
