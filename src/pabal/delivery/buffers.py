"""How much of a log with storage its subscriptions hold in memory."""

BUFFER_HIGH = 4096
"""Deliveries that a subscription which is read for holds before nothing more is read."""
BUFFER_LOW = 2048
"""What it has to come down to before more is read."""
BUFFER_LIVE = 16_384
"""Deliveries that one which takes events as they are committed holds before it lags.

More than of what is read, for these events are in memory already: reading them back makes the whole way from
publishing to handling half as long again.
"""
