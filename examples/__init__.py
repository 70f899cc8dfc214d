"""Programs that use pabal, and one that builds a small bus from nothing."""
