"""How many deliveries a subscription of a bus with storage holds in memory."""

BUFFER_HIGH = 4096
"""What one that lags holds before nothing more is read for it."""
BUFFER_LOW = 2048
"""What it has to come down to before more is read."""
BUFFER_LIVE = 16_384
"""What one that takes events as they are committed holds before it lags.

More than of what is read, for these events are in memory already: reading them back makes the whole way from
publishing to handling half as long again.
"""
SAVED_OFTEN = 4096
"""How many unfinished deliveries a save tells of, while they follow one another: each is looked at."""
SAVED_LAST = BUFFER_LIVE
"""How many the last save tells of, when a subscription ends: all that are in memory."""
