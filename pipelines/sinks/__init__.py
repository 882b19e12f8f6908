"""Token rows as file bytes. Pure: storing them is the caller's."""
