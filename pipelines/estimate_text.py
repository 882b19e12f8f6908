"""An estimate as people read it."""

from __future__ import annotations

from collections.abc import Callable

from pipelines.estimate import Estimate
from pipelines.resampling import Interval
from pipelines.wording import compact, num_bytes_text, significant

__all__ = ["estimate_text"]


def estimate_text(estimate: Estimate) -> str:
    """A line of what was looked at, one per total, and how the intervals were made."""
    looked = (
        f"{estimate.videos:,} videos, {num_bytes_text(estimate.source_bytes)}; looked at "
        f"{estimate.sampled:,} of them: {estimate.sampled_windows:,} windows found, "
        f"{estimate.analysed_windows:,} analysed"
    )
    lines = [looked]
    if estimate.reasons:
        reasons = ", ".join(f"{count} {reason}" for reason, count in estimate.reasons.items())
        lines.append(f"would be set aside: {reasons}")
    width = max(len(_LABELS[name][0]) for name in estimate.totals)
    lines.append("")
    device = "device" if estimate.speed_given else _HOURS_OF.get(estimate.device, estimate.device)
    for name, interval in estimate.totals.items():
        label, text = _LABELS[name]
        lines.append(f"{label.format(device=device):{width}}  {_line(interval, text)}")
    if estimate.windows_per_s is not None:
        lines += ["", f"tokenizer: {significant(estimate.windows_per_s)} {_speed(estimate)}"]
    if estimate.rate is not None:
        lines.append(f"share of tokens kept: {significant(estimate.rate)}")
    lines.append(f"[low, high]: {estimate.method}")
    return "\n".join(lines)


def _speed(estimate: Estimate) -> str:
    if estimate.speed_given:
        return "windows/s, as given"
    if estimate.device == "cpu":
        return "windows per CPU-second"
    return f"windows/s, one process, {estimate.device}"


def _line(interval: Interval, text: Callable[[float], str]) -> str:
    if interval.low is None or interval.high is None:
        return f"{text(interval.value):>10}  [no interval from one video]"
    return f"{text(interval.value):>10}  [{text(interval.low)}, {text(interval.high)}]"


_HOURS_OF = {"cpu": "core"}

_LABELS: dict[str, tuple[str, Callable[[float], str]]] = {
    "quarantined_videos": ("videos set aside", significant),
    "video_hours": ("hours of video", significant),
    "windows": ("windows", compact),
    "tokens_at_full_rate": ("tokens at full rate", compact),
    "tokens": ("tokens kept", compact),
    "decode_core_hours": ("core-hours of decoding", significant),
    "tokenizer_hours": ("{device}-hours of the tokenizer", significant),
    "work_bytes": ("work folder", num_bytes_text),
    "parquet_bytes": ("Parquet files", num_bytes_text),
    "webdataset_bytes": ("WebDataset files", num_bytes_text),
}
