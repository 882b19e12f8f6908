"""What a finished corpus leaves behind that nobody speaks of, deleted block by block."""

from __future__ import annotations

from collections.abc import Iterable

from pipelines.plan import Plan
from pipelines.read_ahead import read_ahead
from pipelines.receipt_store import ReceiptStore, block_folder
from pipelines.storage import Store

__all__ = ["collect_garbage"]

_LISTERS = 16


def collect_garbage(plan: Plan, work: Store, output: Store) -> None:
    """Delete what no receipt and no commit speaks of: starts, units of quarantined videos.

    Args:
        plan: Of a corpus that is written; each of its videos has a receipt.
    """
    for folder in (output, work):
        folder.delete_leftovers()
    work.delete_folder("attempts")
    receipts = ReceiptStore(plan, work)
    receipts.delete_shadowed()
    folders, files = work.entries("units")
    known = {block_folder(block): block for block in range(plan.blocks)}
    for folder in folders:
        if folder not in known:
            work.delete_folder(f"units/{folder}")
    blocks = [known[folder] for folder in folders if folder in known]
    for _, garbage in read_ahead(
        blocks, lambda block: _of_block(plan, receipts, work, block), ahead=_LISTERS
    ):
        work.delete_all(garbage)
    if files:
        work.delete_all(_outside_blocks(plan, receipts, {f"units/{name}" for name in files}))


def _of_block(plan: Plan, receipts: ReceiptStore, work: Store, block: int) -> Iterable[str]:
    there = [path for path, _ in work.list(f"units/{block_folder(block)}")]
    # Pass two has read every unit that a receipt names: where there are as many, there are no
    # others. So the receipts of most blocks need not be looked into.
    if len(there) == receipts.units(block):
        return ()
    named = {e.path for receipt in receipts.read(plan.block(block)) for e in receipt.units}
    return [path for path in there if path not in named]


def _outside_blocks(plan: Plan, receipts: ReceiptStore, there: set[str]) -> set[str]:
    # Units lay there before there were blocks, and receipts may still name them.
    for receipt in receipts.read(plan.rows()):
        there.difference_update(entry.path for entry in receipt.units)
    return there
