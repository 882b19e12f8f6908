"""An output holds one corpus: the first who writes there says which, in ``meta/config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.changes import changes
from pipelines.errors import PlanMismatchError
from pipelines.shards import ShardSpec
from pipelines.storage import Store
from schemas.info import CorpusInfo
from schemas.layout import CONFIG_PATH, INFO_PATH

__all__ = ["claim_output", "claim_shards", "stored_config"]

_PLACES = ("source", "source_storage", "output_storage")
"""Tables of the configuration that say where things are, and not what becomes of them."""
_MADE_FROM = ("plan", "statistics", "rule")
_ALIKE = (
    "its settings are the same, but it is of other videos or statistics, or was made at another "
    "path by a version that told paths apart"
)


def claim_shards(spec: ShardSpec) -> ShardSpec:
    """Claim the output of pass two, and find the names under which it is written there.

    Returns:
        The same; `ShardSpec.as_before` if the output was begun so.

    Raises:
        PlanMismatchError: As `claim_output`.
    """
    older = spec.as_before()
    key = claim_output(
        spec.output,
        spec.key,
        spec.config.model_dump(mode="json", exclude={"runtime"}),
        instead=f"Tokenise into another output with --work {spec.work.store.url}",
        older_key=older.key,
        made_from={name: spec.made_from[name] for name in _MADE_FROM},
    )
    return older if key == older.key else spec


def claim_output(
    output: Store,
    key: str,
    config: Mapping[str, Any],
    *,
    instead: str,
    older_key: str | None = None,
    made_from: Mapping[str, Any] | None = None,
) -> str:
    """Fix what an output will hold, or prove that it is the same as before.

    Args:
        key: Digest of everything that its data files depend on.
        config: To be kept with it.
        instead: What the person can do where something else is there.
        older_key: The key that an earlier version would have given it.
        made_from: What else the key depends on, to be kept, too.

    Returns:
        The key that the output goes by: that of its first start.

    Raises:
        PlanMismatchError: If it holds another corpus, naming what differs, or one that has grown
            since.
    """
    document: dict[str, Any] = {"tokens_key": key, "config": config}
    if made_from is not None:
        document["made_from"] = made_from
    if output.create(CONFIG_PATH, json.dumps(document, indent=1, sort_keys=True).encode()):
        return key
    there = json.loads(output.read(CONFIG_PATH))
    if there["tokens_key"] not in (key, older_key):
        found = "\n  ".join(_differing(there, document)) or _ALIKE
        raise PlanMismatchError(
            f"{output.url} holds (part of) another corpus:\n  {found}\n{instead}"
        )
    key = there["tokens_key"]
    if output.exists(INFO_PATH):
        info = CorpusInfo.from_bytes(output.read(INFO_PATH))
        # A merge has the key of its parts; what was made by a run and appended to has not.
        if info.generations and info.tokens_key != key:
            raise PlanMismatchError(
                f"{output.url} has grown since this run made it; go on with `infotok append`"
            )
    return key


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings that differ, of those that can matter, and what the corpora were made from."""
    one, two = (
        {name: table for name, table in document["config"].items() if name not in _PLACES}
        for document in (was, now)
    )
    found = changes(one, two)
    one, two = (dict(document.get("made_from") or {}) for document in (was, now))
    if one and two:
        if found:
            # It follows from the settings and the statistics.
            one["rule"] = two["rule"]
        found += changes(one, two)
    return found


def stored_config(output: Store) -> dict[str, Any]:
    """The configuration that a corpus was made with; what joins it has to share it.

    Raises:
        PlanMismatchError: If the corpus does not tell it.
    """
    try:
        return json.loads(output.read(CONFIG_PATH))["config"]
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise PlanMismatchError(f"{output.full(CONFIG_PATH)} tells no configuration") from error
