"""The tokenizer itself: networks, selection and checkpoints, on tensors and arrays alone.

It knows no engine, no storage format and no command line. Callers start at
`infotok_core.tokenizer.Tokenizer`.
"""
