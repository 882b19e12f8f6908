"""An output holds one corpus: the first who writes there says which, in ``meta/config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipelines.errors import PlanMismatchError
from pipelines.storage import Store
from schemas.info import CorpusInfo
from schemas.layout import CONFIG_PATH, INFO_PATH

__all__ = ["claim_output", "stored_config"]


def claim_output(output: Store, key: str, config: Mapping[str, Any], *, instead: str) -> None:
    """Fix what an output will hold, or prove that it is the same as before.

    Args:
        key: Digest of everything that its data files depend on.
        config: To be kept with it.
        instead: What the person can do where something else is there.

    Raises:
        PlanMismatchError: If it holds another corpus, or one that has grown since.
    """
    document = {"tokens_key": key, "config": config}
    if output.create(CONFIG_PATH, json.dumps(document, indent=1, sort_keys=True).encode()):
        return
    if json.loads(output.read(CONFIG_PATH))["tokens_key"] != key:
        raise PlanMismatchError(
            f"{output.url} holds (part of) another corpus: other routing, format, statistics or "
            f"analysis. {instead}"
        )
    if output.exists(INFO_PATH):
        info = CorpusInfo.from_bytes(output.read(INFO_PATH))
        # A merge has the key of its parts; what was made by a run and appended to has not.
        if info.generations and info.tokens_key != key:
            raise PlanMismatchError(
                f"{output.url} has grown since this run made it; go on with `infotok append`"
            )


def stored_config(output: Store) -> dict[str, Any]:
    """The configuration that a corpus was made with; what joins it has to share it.

    Raises:
        PlanMismatchError: If the corpus does not tell it.
    """
    try:
        return json.loads(output.read(CONFIG_PATH))["config"]
    except (FileNotFoundError, ValueError, KeyError) as error:
        raise PlanMismatchError(f"{output.full(CONFIG_PATH)} tells no configuration") from error
