"""A finished corpus for a trainer: samples, packed contexts or padded batches, resumable anywhere.

```
manifest ─▶ units ─▶ order of the epoch ─▶ item g ─▶ the rows it needs ─▶ tensors
corpus      corpus   order, plans, packing  streams   unit_reader          samples
```
Needs no Ray.
"""

from pipelines.dataset.detokenise import checkpoint_of, detokenise
from pipelines.dataset.packing import Packing, collate
from pipelines.dataset.plans import Buckets
from pipelines.dataset.samples import Specials
from pipelines.dataset.token_dataset import TokenDataset

__all__ = [
    "Buckets",
    "Packing",
    "Specials",
    "TokenDataset",
    "checkpoint_of",
    "collate",
    "detokenise",
]
