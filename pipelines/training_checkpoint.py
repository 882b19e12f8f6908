"""The checkpoint that a training run leaves: the averaged weights so far, and their card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from infotok_core.checkpoint import save_directory
from infotok_core.code_space import CodeSpaceNetwork
from infotok_core.code_space_files import save_code_space
from infotok_core.network import Network
from pipelines.errors import PipelineError

__all__ = ["write_checkpoint"]

_HEAD = "# A tokenizer trained with `infotok train`\n"


def write_checkpoint(
    network: Network, output: Path, *, card: Path | None, record: dict[str, Any]
) -> str:
    """Write the weights and the card, over those of before; the fingerprint.

    Args:
        network: With the averaged weights.
        output: Directory.
        card: Markdown for its top.
        record: Of the run; plain JSON data.

    Raises:
        PipelineError: If a weight is no longer finite, or something cannot be read or written.
    """
    try:
        text = card.read_text(encoding="utf-8") if card else _HEAD
        text += f"\n## Record of the training run\n\n```json\n{json.dumps(record, indent=1)}\n```\n"
        if isinstance(network, CodeSpaceNetwork):
            return save_code_space(network, output, card=text)
        return save_directory(network, output, card=text)
    except (ValueError, OSError, SafetensorError) as error:
        raise PipelineError(f"no checkpoint in {output}: {error}") from error
