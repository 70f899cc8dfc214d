"""A small trading application on the durable bus, as run by ``pabal demo``.

Ticks come in; a candle builder, a moving-average strategy, a risk check, a paper exchange and a position
book react to each other's events only through the bus. No real money is involved.
"""
