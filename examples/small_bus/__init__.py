"""A small event bus in four steps; docs/learn/intermediate.md walks through them."""
