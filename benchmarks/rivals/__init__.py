"""One file per rival: how each is set up, fed, and known to have finished."""
