"""The two ways of attention of the world model: they see the same."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def examples_are_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("document_attention", "pace"):
        sys.modules.pop(name, None)


def test_blocks_and_a_whole_mask_give_the_same_attention():
    from document_attention import attend, document_mask

    torch.manual_seed(0)
    # Two contexts of 300 items, padded: no length of a document is one of a block.
    documents = torch.tensor([[0] * 130 + [1] * 7 + [2] * 163, [0] * 290 + [-1] * 10])
    q, k, v = (torch.randn(2, 3, 300, 16) for _ in range(3))
    whole = attend(q, k, v, document_mask(documents))
    blocks = attend(q, k, v, document_mask(documents, flex=True))
    torch.testing.assert_close(blocks, whole, atol=1e-5, rtol=1e-5)


def test_nothing_of_another_document_or_of_later_is_seen():
    from document_attention import attend, document_mask

    documents = torch.tensor([[0, 0, 0, 1, 1, 1]])
    q = torch.zeros(1, 1, 6, 1)
    v = torch.tensor([1.0, 2, 4, 8, 16, 32]).view(1, 1, 6, 1)
    expected = torch.tensor([1, 3 / 2, 7 / 3, 8, 24 / 2, 56 / 3])
    for flex in (False, True):
        seen = attend(q, q, v, document_mask(documents, flex=flex))
        torch.testing.assert_close(seen.flatten(), expected)


def test_the_types_of_queries_and_keys_follow_the_values():
    from document_attention import attend, document_mask

    q = torch.randn(1, 1, 4, 16)
    mask = document_mask(torch.zeros(1, 4, dtype=torch.int32))
    assert attend(q, q, q.bfloat16(), mask).dtype == torch.bfloat16


def test_the_pace_leaves_out_the_first_steps():
    from pace import Pace

    pace = Pace("cpu", left_out=2)
    seen = list(pace.each(iter(range(5))))
    steps_per_s, waited = pace.so_far()
    assert seen == [0, 1, 2, 3, 4]
    assert steps_per_s > 0
    assert 0 <= waited <= 1
