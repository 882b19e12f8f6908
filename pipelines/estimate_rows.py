"""The rows that the routing makes of sampled videos, and what they weigh in data files.

Some windows of a video are analysed; each stands for as many as the video has for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infotok_core.opening import TokenizerIdentity
from pipelines.config import RunConfig
from pipelines.dealt_rows import dealt_row
from pipelines.estimate_sample import SampledVideo
from pipelines.rate_rules import rate_rule
from pipelines.sinks.parquet import parquet_bytes
from pipelines.sinks.webdataset import sample_bytes, tar_bytes
from schemas.dealing import TokenDealer
from schemas.statistics import ElboStatistics, StatisticsFold
from schemas.tokens import rows_to_table
from schemas.window_counts import WindowCounter

__all__ = ["SampledRows"]

_COMPARED = 32
"""So many rows are enough to tell a file's head and footer from what it holds."""


class SampledRows:
    """What the routing keeps of each sampled video, and what its rows weigh.

    Args:
        num_listed: Videos of the corpus.

    Attributes:
        tokens: Kept of each video.
        rate: Share of the positions that is kept; None without any.
        met: The same, where the whole corpus has it whatever it holds; else None.
    """

    def __init__(
        self,
        videos: Sequence[SampledVideo],
        config: RunConfig,
        identity: TokenizerIdentity,
        *,
        num_listed: int,
    ) -> None:
        self._videos = videos
        self._config = config
        self._identity = identity
        self._rows: list[list[dict[str, Any]]] = [[] for _ in videos]
        self.tokens: list[float] = [0.0] * len(videos)
        self.rate: float | None = None
        self.met: float | None = None
        if not any(video.analysed for video in videos):
            return
        statistics = _statistics(
            videos, identity.fingerprint, num_listed=num_listed, floor=config.routing.token_floor
        )
        rule = rate_rule(config, statistics)
        # Statistics of a sample of the corpus meet it about.
        if rule.budget == "static" or (rule.is_exact and config.statistics.sample == 1):
            self.met = rule.target
        dealer = TokenDealer(rule)
        for index, video in enumerate(videos):
            self._rows[index] = self._dealt(video, dealer)
            self.tokens[index] = video.share * sum(row["num_tokens"] for row in self._rows[index])
        positions = sum(video.positions for video in videos)
        self.rate = sum(self.tokens) / positions if self.met is None else self.met

    def _dealt(self, video: SampledVideo, dealer: TokenDealer) -> list[dict[str, Any]]:
        if not video.analysed or video.facts is None:
            return []
        return [
            dealt_row(
                window, dealer, video.facts, {"video_id": video.video, "uri": video.item[0]},
                tokenizer=self._identity.fingerprint,
                num_codes=self._identity.shape.codebook_size, extra={},
            )
            for window in video.analysed
        ]  # fmt: skip

    def file_bytes(self, name: str) -> tuple[list[float], float]:
        """Bytes of each video in data files of a format, and those of a file that are no rows."""
        rows = [row for part in self._rows for row in part]
        if not rows:
            return [0.0] * len(self._rows), 0.0
        if name == "webdataset":
            sizes = [float(sum(map(sample_bytes, part))) for part in self._rows]
            around = len(tar_bytes(rows)) - sum(sizes)
        else:
            around = self._around_parquet(rows[:_COMPARED])
            sizes = [self._parquet(part) - around if part else 0.0 for part in self._rows]
        shares = [video.share for video in self._videos]
        return [share * size for share, size in zip(shares, sizes, strict=True)], around

    def _around_parquet(self, rows: Sequence[dict[str, Any]]) -> float:
        # Files of one row each have all this once more than one file of them, for each but one.
        if len(rows) == 1:
            rows = [*rows, _unlike(rows[0])]
            return 2 * self._parquet(rows[:1]) - self._parquet(rows)
        return (sum(self._parquet([row]) for row in rows) - self._parquet(rows)) / (len(rows) - 1)

    def _parquet(self, rows: Sequence[dict[str, Any]]) -> int:
        data = parquet_bytes(
            rows_to_table(list(rows)),
            encoding=self._config.output.parquet_encoding,
            row_group_rows=self._config.output.row_group_rows,
            tokenizer=self._identity.fingerprint,
        )
        return len(data)


def _unlike(row: dict[str, Any]) -> dict[str, Any]:
    """A row of the same sizes, which does not vanish beside this one when both are compressed."""
    return {
        **row, "clip_id": f"{row['clip_id']}x", "tokens": row["tokens"][::-1],
        "mask": row["mask"][::-1],
    }  # fmt: skip


def _statistics(
    videos: Sequence[SampledVideo], tokenizer: str, *, num_listed: int, floor: float | None
) -> ElboStatistics:
    """Statistics as if each analysed window stood for as many as its video has for each of them."""
    fold = StatisticsFold(floor)
    for video in videos:
        counter = WindowCounter(floor)
        least, more = divmod(video.windows, max(len(video.analysed), 1))
        for index, window in enumerate(video.analysed):
            for _ in range(least + (index < more)):
                counter.add(window.information)
        fold.add_video(*counter.freeze())
    return fold.freeze(plan_id="", tokenizer=tokenizer, num_listed=num_listed)
