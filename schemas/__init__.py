"""Ground floor: what is stored. Arrow schemas and JSON documents; no engine, no tensors, no I/O."""
