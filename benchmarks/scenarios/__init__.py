"""The scenarios; each module answers one question."""
