"""Kills parts of runs at random moments and compares what comes out with an undisturbed run.

    python benchmarks/chaos.py --seed 1 --kills 20

A corpus is tokenised once in peace. Then it is tokenised again while drivers, tokenizer actors,
decoding processes and the Ray workers around them get SIGKILL; a run whose driver was killed is
started again, at once or after its leftovers have died, with other numbers of workers and other
batches. Each corpus that gets finished is compared byte for byte, and the next one is begun, until
all kills are used up. Prints a JSON summary; exits with 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from processes import VICTIMS, Session, data_digests, wait_until

REPOSITORY = Path(__file__).parents[1]
SHARED = Path(os.environ.get("INFOTOK_SHARED", REPOSITORY.parent / "shared")) / "data"
KINDS = ("driver", *VICTIMS)

_MAX_BYTES = 120_000
"""Of a clip: the smallest of the originals, in many formats."""
_RUN_S = 900.0
_LEFTOVERS_S = 60.0
_SETTINGS = (
    # Several shards of a few files each; a kill by us must not be held against a video.
    "output.shard_source_bytes=200_000",
    "output.file_bytes=60_000",
    "limits.attempts=10",
)


class _Ghost:
    """What a killed driver left behind: watched from the kill on, while the next driver runs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._killed = time.monotonic()
        self._error: TimeoutError | None = None
        self._lasted_s = 0.0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        try:
            self._session.wait_leftovers(_LEFTOVERS_S)
        except TimeoutError as error:
            self._error = error
        self._lasted_s = time.monotonic() - self._killed

    def wait(self) -> float:
        """Seconds it went on for.

        Raises:
            TimeoutError: If it did not end by itself.
        """
        self._thread.join()
        self._session.end()
        if self._error is not None:
            raise self._error
        return self._lasted_s


@dataclass(slots=True, kw_only=True)
class Chaos:
    """A corpus under fire.

    Attributes:
        command: ``infotok run`` with everything that decides the content, without the output.
        pending: Kinds of victims still to be killed.
        leftovers_s: Longest time that processes of a killed driver went on.
    """

    source: Path
    folder: Path
    settings: Sequence[str]
    dice: random.Random
    pending: list[str]
    kills: Counter[str] = field(default_factory=Counter)
    starts: int = 0
    resumes: int = 0
    corpora: int = 0
    leftovers_s: float = 0.0
    different: set[str] = field(default_factory=set)
    _ghosts: list[_Ghost] = field(default_factory=list)

    def in_peace(self) -> Path:
        """Run to the end; returns the output."""
        output = self.folder / "peace"
        with self._start(output, []) as session:
            self._finish(session)
        return output

    def under_fire(self, reference: Path) -> None:
        """Use up the kills; compare each finished corpus with ``reference``."""
        expected = data_digests(reference)
        while True:
            output = self.folder / f"chaos-{self.corpora}"
            while not self._life(output):
                self.resumes += 1
            self._wait_for_leftovers()
            self.corpora += 1
            found = data_digests(output)
            names = expected.keys() | found.keys()
            self.different |= {name for name in names if expected.get(name) != found.get(name)}
            if not self.pending:
                return

    def _life(self, output: Path) -> bool:
        """One driver, until it is killed (False) or done (True)."""
        session = self._start(output, self._workers())
        try:
            while self.pending and session.running():
                if not self._strike(session, self.pending[-1]):
                    continue
                self._note(self.pending.pop())
                if not session.running():
                    self._ghosts.append(_Ghost(session))
                    if self.dice.random() < 0.5:
                        self._wait_for_leftovers()
                    return False
            self._finish(session)
        except BaseException:
            session.end()
            raise
        session.end()
        return True

    def _strike(self, session: Session, kind: str) -> bool:
        """Wait for a victim of a kind and for a moment, and kill it; False if the run was over."""
        if kind == "driver":
            self._rest(session, self.dice.uniform(0, 25))
            if not session.running():
                return False
            session.kill()
            return True
        wait_until(
            lambda: not session.running() or session.members(kind), timeout_s=_RUN_S, what=kind
        )
        self._rest(session, self.dice.uniform(0, 3))
        victims = session.members(kind)
        return bool(victims) and session.kill_member(self.dice.choice(victims))

    def _rest(self, session: Session, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while session.running() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _note(self, kind: str) -> None:
        self.kills[kind] += 1
        print(f"killed {kind}, {len(self.pending)} to go", file=sys.stderr)

    def _workers(self) -> list[str]:
        dice = self.dice
        return [
            f"runtime.actors={dice.randint(1, 2)}",
            f"runtime.decoders={dice.randint(1, 2)}",
            f"runtime.units_per_call={dice.choice((1, 2, 4))}",
            f"runtime.wave_videos={dice.choice((7, 16, 4096))}",
            f"tokenizer.batch_size={dice.randint(1, 8)}",
        ]

    def _start(self, output: Path, settings: Sequence[str]) -> Session:
        self.starts += 1
        command = [sys.executable, "-m", "jobs", "run", str(self.source), str(output)]
        command += ["--format", "both"]
        for setting in (*self.settings, *_SETTINGS, *settings):
            command += ["--set", setting]
        log = self.folder / f"run-{self.starts:03d}.log"
        return Session(command, log=log, folder=REPOSITORY)

    def _finish(self, session: Session) -> None:
        status = session.wait(_RUN_S)
        if status != 0:
            tail = session.log.read_text(errors="replace")[-2000:]
            raise RuntimeError(f"exit status {status}:\n{tail}")

    def _wait_for_leftovers(self) -> None:
        # They have to die by themselves: a person would not hunt them down either.
        while self._ghosts:
            self.leftovers_s = max(self.leftovers_s, self._ghosts.pop().wait())


def take_clips(source: Path, target: Path, count: int) -> None:
    """Copy ``count`` of the small files of a folder, evenly spread over the names."""
    files = sorted(path for path in source.iterdir() if path.stat().st_size <= _MAX_BYTES)
    if len(files) < count:
        raise SystemExit(f"{source} holds {len(files)} files of <= {_MAX_BYTES} bytes, not {count}")
    target.mkdir(parents=True)
    for index in range(count):
        shutil.copy2(files[index * len(files) // count], target)


def main() -> None:
    """Parse, run, print the summary."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--kinds", default=",".join(KINDS), help="victims, killed equally often")
    parser.add_argument("--videos", type=int, default=36)
    parser.add_argument("--input", type=Path, default=SHARED / "originals" / "formats")
    parser.add_argument("--checkpoint", default="default")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--frames", type=int, default=17)
    arguments = parser.parse_args()
    kinds = arguments.kinds.split(",")
    if unknown := set(kinds) - set(KINDS):
        parser.error(f"no such kinds: {', '.join(sorted(unknown))}")
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        take_clips(arguments.input, folder / "source", arguments.videos)
        dice = random.Random(arguments.seed)
        pending = [kinds[index % len(kinds)] for index in range(arguments.kills)]
        dice.shuffle(pending)
        chaos = Chaos(
            source=folder / "source",
            folder=folder,
            settings=(
                f"space.size={arguments.size}",
                f"window.frames={arguments.frames}",
                f"tokenizer.checkpoint={arguments.checkpoint}",
            ),
            dice=dice,
            pending=pending,
        )
        reference = chaos.in_peace()
        in_peace_s = time.monotonic() - begun
        chaos.under_fire(reference)
        summary = _summary(chaos, reference)
    summary |= {
        "seed": arguments.seed,
        "videos": arguments.videos,
        "seconds_in_peace": round(in_peace_s, 1),
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(summary, indent=1, sort_keys=True))
    raise SystemExit(0 if summary["identical"] else 1)


def _summary(chaos: Chaos, reference: Path) -> dict[str, Any]:
    return {
        "kills": dict(chaos.kills),
        "starts": chaos.starts,
        "resumes": chaos.resumes,
        "corpora": chaos.corpora,
        "files": len(data_digests(reference)),
        "identical": not chaos.different,
        "different": sorted(chaos.different),
        "leftovers_s": round(chaos.leftovers_s, 1),
    }


if __name__ == "__main__":
    main()
