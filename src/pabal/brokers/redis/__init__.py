"""The bus on Redis or Valkey: a partitioned log on the server, read by groups of processes."""

from pabal.brokers.redis.bus import RedisEventBus
from pabal.brokers.redis.relay import Relay, relay

__all__ = ["RedisEventBus", "Relay", "relay"]
