"""What a run says of itself to Prometheus: the numbers of its progress lines, through Ray.

Ray's agent on the node of the driver serves them, with ``ray_`` before every name and ``_total``
behind those of counters. Each has the label ``stage``, the first word of its progress lines.
"""

from __future__ import annotations

from ray.util.metrics import Counter, Gauge

from pipelines.observe import Progress

__all__ = ["StageMetrics", "exported_names"]

_COUNTERS = {
    "videos": "Videos finished by this driver, those set aside included.",
    "shards": "Shards written and committed by this driver.",
    "quarantined": "Videos set aside by this driver.",
    "windows": "Windows analysed, or written to shards.",
    "tokens": "Tokens: at full rate in pass one, those kept in pass two.",
    "source_bytes": "Size of the videos finished by this driver.",
    "seconds": "Wall time of the stage under this driver.",
}
_GAUGES = {
    "planned": "Videos or shards in all.",
    "finished": "Videos or shards finished, by this driver and by those before it.",
}


def exported_names() -> frozenset[str]:
    """The names as Prometheus sees them."""
    counters = (f"ray_infotok_{name}_total" for name in _COUNTERS)
    return frozenset((*counters, *(f"ray_infotok_{name}" for name in _GAUGES)))


class StageMetrics:
    """Publishes where stages stand; called with their `Progress` as often as somebody may look.

    Needs a running Ray. What is published in the last seconds of a driver (Ray's interval of
    reporting) may never be scraped: the timings in the work folder hold the end.
    """

    def __init__(self) -> None:
        self._counters = {
            name: Counter(f"infotok_{name}", description=text, tag_keys=("stage",))
            for name, text in _COUNTERS.items()
        }
        self._gauges = {
            name: Gauge(f"infotok_{name}", description=text, tag_keys=("stage",))
            for name, text in _GAUGES.items()
        }
        self._told: dict[str, tuple[Progress, dict[str, float]]] = {}

    def __call__(self, progress: Progress) -> None:
        """Raise the counters by what is new, set the gauges."""
        tags = {"stage": progress.stage}
        timing = progress.timing()
        now: dict[str, float] = {
            **timing.counts,
            progress.items: timing.items,
            "quarantined": progress.quarantined,
            "source_bytes": timing.source_bytes,
            "seconds": timing.seconds,
        }
        last, told = self._told.get(progress.stage, (progress, {}))
        if last is not progress:
            # A stage that is begun again counts from zero.
            told = {}
        for name, counter in self._counters.items():
            new = now.get(name, 0) - told.get(name, 0)
            if new > 0:
                counter.inc(new, tags)
        self._told[progress.stage] = progress, now
        self._gauges["planned"].set(progress.total, tags)
        self._gauges["finished"].set(progress.done, tags)
