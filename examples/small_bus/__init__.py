"""A small event bus in four steps, explained in docs/learn/intermediate.md."""
