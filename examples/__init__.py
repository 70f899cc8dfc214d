"""Example programs that use pabal, and one that builds a small event bus from scratch."""
