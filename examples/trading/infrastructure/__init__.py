"""Where things are kept, where prices come from, and how everything is put together."""
