"""A desktop ticker: prices come from a thread, handlers update widgets, orders survive a restart."""
