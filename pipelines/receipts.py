"""From the status rows of one video to its receipt. Pure; order of arrival does not matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipelines.records import Status
from schemas.failures import FailureReason, FailureStage
from schemas.receipts import FailureRecord, UnitEntry, VideoReceipt
from schemas.statistics import ElboAccumulator, ElboBins
from schemas.token_bins import TokenBins
from schemas.versions import FORMAT_VERSION

__all__ = ["ReceiptBuilder", "lost_receipt"]


class ReceiptBuilder:
    """Collects what is known of one video until it is all there."""

    def __init__(self) -> None:
        self._units: dict[int, Mapping[str, Any]] = {}
        self._end: Mapping[str, Any] | None = None

    def add(self, status: Status) -> None:
        """One more row; a repeated one changes nothing."""
        if status.kind == "end":
            self._end = status.payload
        else:
            self._units[status.payload["unit_index"]] = status.payload

    def receipt(self, video: str) -> VideoReceipt | None:
        """The receipt, as soon as the video has ended and each of its units is settled."""
        end = self._end
        if end is None:
            return None
        if end["failure"] is not None:
            # Units stored before the failure stay unreferenced and are collected as garbage.
            return _quarantined(video, end, end["failure"])
        if len(self._units) < end["units"]:
            return None
        for index in sorted(self._units):
            if "failure" in self._units[index]:
                return _quarantined(video, end, self._units[index]["failure"])
        entries = [UnitEntry.model_validate(self._units[i]["entry"]) for i in sorted(self._units)]
        windows = sum(entry.windows for entry in entries)
        if windows != end["windows"] or windows == 0:
            detail = f"decoded {end['windows']} windows, analysed {windows}"
            reason = FailureReason.INTERNAL if end["windows"] else FailureReason.TOO_SHORT
            return _quarantined(video, end, _failure(reason, detail))
        bins = ElboAccumulator(
            *(ElboBins.model_validate(unit["bins"]) for unit in self._units.values())
        )
        counted = [
            TokenBins.model_validate(unit["token_bins"])
            for unit in self._units.values()
            if "token_bins" in unit
        ]
        return VideoReceipt(
            status="analysed",
            windows=windows,
            tokens=sum(entry.tokens for entry in entries),
            units=tuple(entries),
            bins=bins.freeze(),
            token_bins=TokenBins.merge(*counted) if counted else None,
            failure=None,
            **_common(video, end),
        )


def lost_receipt(row: Mapping[str, Any], *, attempts: int) -> VideoReceipt:
    """The receipt of a video whose workers died again and again."""
    detail = f"no result after {attempts} rounds: its workers died or were lost"
    end = {**row, "attempts": attempts, "facts": None}
    return _quarantined(row["video_id"], end, _failure(FailureReason.WORKER_LOST, detail))


def _failure(reason: FailureReason, detail: str) -> dict[str, Any]:
    stage = FailureStage.ANALYSE.value
    return {"reason": reason.value, "stage": stage, "detail": detail, "num_frames": 0}


def _common(video: str, end: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "format_version": FORMAT_VERSION,
        "video_id": video,
        "uri": end["uri"],
        "version": end["version"],
        "facts": end["facts"],
        "num_frames_decoded": end.get("num_frames_decoded", 0),
        "num_frames_dropped": end.get("num_frames_dropped", 0),
        "attempts": end["attempts"],
    }


def _quarantined(video: str, end: Mapping[str, Any], failure: Mapping[str, Any]) -> VideoReceipt:
    return VideoReceipt(
        status="quarantined",
        windows=end.get("windows", 0),
        tokens=0,
        units=(),
        bins=ElboBins.empty(),
        failure=FailureRecord.model_validate(failure),
        **_common(video, end),
    )
