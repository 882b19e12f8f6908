"""What turns videos into token shards: stores, decoding, the passes over a corpus, and its card."""
