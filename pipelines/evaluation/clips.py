"""The full windows of the videos of a source: streamed, or an even sample of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType

from pipelines.config import RunConfig
from pipelines.decode import DecodedWindow, DecodeRequest, DecoderProcess, Segment
from pipelines.sources import open_source, source_url
from pipelines.storage import storage_options

__all__ = ["ClipSource", "Part", "Sampler"]


class ClipSource:
    """Decodes windows of any video of a source, one at a time; short tails are no windows.

    Args:
        url: Folder, bucket prefix, glob, file or manifest.
        config: Its window, space, limits and storage apply.

    Raises:
        PipelineError: If there is no such source.
    """

    def __init__(self, url: str, config: RunConfig) -> None:
        window = config.window.model_copy(update={"tail": "drop"})
        self._config = config.model_copy(update={"window": window})
        source = open_source(url, config.source, config.source_storage)
        self.url, self.root = url, source.root
        self.uris: tuple[str, ...] = tuple(sorted(item.uri for item in source.objects))
        self._decoder = DecoderProcess()

    def __enter__(self) -> ClipSource:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._decoder.kill()

    def windows(
        self, uri: str, *, first: int = 0, stop: int | None = None
    ) -> Iterator[DecodedWindow]:
        """Windows first .. stop - 1 of a video, as far as it has them.

        Raises:
            DecodeError: The video cannot be decoded, up to ``stop`` at least; what came before must
                be thrown away.
        """
        if stop is not None and stop <= first:
            return
        url = source_url(self.root, uri)
        request = DecodeRequest(
            url=url,
            storage_options=storage_options(url, self._config.source_storage),
            size=None,
            window=self._config.window,
            space=self._config.space,
            limits=self._config.limits,
            # To leave the loop early would end the decoding process, and a new one takes a second.
            segment=None if stop is None else Segment(share=0.0, num_windows=stop),
        )
        for window in self._decoder.windows(request):
            if window.span.window_index >= first:
                yield window


@dataclass(frozen=True, slots=True)
class Part:
    """Windows first .. stop - 1 of a video; all from first on if stop is None."""

    uri: str
    first: int
    stop: int | None


class Sampler:
    """Spreads a number of windows evenly over videos whose lengths nobody knows beforehand.

    Rounds of parts: each video gets its share from its beginning on; what short or broken videos
    leave over goes to the others in the next round. The outcome depends on the videos alone.

    Args:
        uris: Of all videos, sorted.
        max_windows: How many are wanted; None for all of them.
    """

    def __init__(self, uris: Sequence[str], max_windows: int | None) -> None:
        self._max_windows = max_windows
        # Halves, quarters, eighths ...: any number of videos from the front is spread evenly.
        order = sorted(range(len(uris)), key=lambda i: (_reversed_bits(i, len(uris)), i))
        self._order = {uris[i]: place for place, i in enumerate(order)}
        self._taken = dict.fromkeys(uris, 0)
        self._open = set(uris)
        self._asked: dict[str, int | None] = {}

    def next_round(self) -> list[Part]:
        """Parts to look at, in order of their videos; none when there is nothing more to do.

        Each has to be answered with `found` or `failed` before the next round.
        """
        if self._max_windows is None:
            shares = dict.fromkeys(self._open - self._asked.keys())
        else:
            left = self._max_windows - sum(self._taken.values())
            fair = sorted(self._open, key=lambda uri: (self._taken[uri], self._order[uri]))
            shares = {
                uri: left // len(fair) + (place < left % len(fair))
                for place, uri in enumerate(fair)
            }
        parts = [
            Part(uri, self._taken[uri], None if share is None else self._taken[uri] + share)
            for uri, share in sorted(shares.items())
            if share is None or share
        ]
        self._asked = {part.uri: part.stop for part in parts}
        return parts

    def found(self, uri: str, count: int) -> None:
        """``count`` windows of the part asked for were there; fewer mean that the video ended."""
        self._taken[uri] += count
        if self._taken[uri] != self._asked[uri]:
            self._open.discard(uri)

    def failed(self, uri: str) -> None:
        """The video is broken: none of its windows count, those of earlier rounds neither."""
        self._taken[uri] = 0
        self._open.discard(uri)


def _reversed_bits(index: int, count: int) -> int:
    width = max(count - 1, 1).bit_length()
    return int(f"{index:0{width}b}"[::-1], 2)
