"""How many deliveries a subscription of a bus with storage holds in memory."""

BUFFER_HIGH = 4096
"""A lagging subscription that holds this many gets nothing more read for it …"""
BUFFER_LOW = 2048
"""… until it holds fewer than this."""
BUFFER_LIVE = 16_384
"""A live subscription, which takes events as they are committed, that holds this many begins to lag.

It is higher than for events read from the log, because these are in memory already: reading them back would
make the whole way from publishing to handling half as long again.
"""
SAVED_OFTEN = 4096
"""How many unfinished deliveries a regular save lists; listing them takes time in every save."""
SAVED_LAST = BUFFER_LIVE
"""How many the last save lists, when a subscription ends: all that are in memory."""
