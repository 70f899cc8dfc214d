"""When to retry a failed delivery: a policy, and a pure function from failure to decision."""

from __future__ import annotations

import asyncio

import msgspec

from pabal.delivery.tracebacks import message_of
from pabal.errors import NotRetryableError, SubscriptionError


class RetryPolicy(msgspec.Struct, frozen=True):
    """Say how many attempts a delivery gets, and how long to wait between them.

    The delay before attempt ``n + 1`` is ``base_delay * multiplier ** (n - 1)`` seconds, at most
    ``max_delay``, times a random factor between ``1 - jitter`` and ``1 + jitter``, but never above
    ``max_delay``. Only exceptions in ``retry_on`` that are not in ``never`` are retried;
    ``NotRetryableError`` never is.

    Raises SubscriptionError for invalid values.

    >>> policy = RetryPolicy(max_attempts=4, base_delay=1.0, jitter=0.0)
    >>> [policy.delay_after(attempt, 0.5) for attempt in (1, 2, 3)]
    [1.0, 2.0, 4.0]
    """

    max_attempts: int = 4
    base_delay: float = 0.1
    max_delay: float = 30.0
    multiplier: float = 2.0
    jitter: float = 0.1
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    never: tuple[type[BaseException], ...] = ()

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if not isinstance(self.max_attempts, int) or self.max_attempts < 1:
            raise SubscriptionError(
                f"RetryPolicy.max_attempts is {self.max_attempts!r}; it must be an int of at least 1"
            )
        for name in ("base_delay", "max_delay", "multiplier", "jitter"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)):
                unit = " of seconds" if name.endswith("delay") else ""
                raise SubscriptionError(f"RetryPolicy.{name} is {value!r}; it must be a number{unit}")
        # Written this way because every comparison with NaN is false, so NaN is refused too.
        if not (self.base_delay >= 0 and self.max_delay >= 0 and self.multiplier >= 1):
            raise SubscriptionError(
                "RetryPolicy needs base_delay ≥ 0, max_delay ≥ 0 and multiplier ≥ 1; "
                f"got {self.base_delay}, {self.max_delay}, {self.multiplier}"
            )
        if not 0 <= self.jitter <= 1:
            raise SubscriptionError(f"RetryPolicy.jitter is {self.jitter}; it must lie between 0 and 1")
        for name, kinds in (("retry_on", self.retry_on), ("never", self.never)):
            if not isinstance(kinds, tuple) or not all(_is_exception(kind) for kind in kinds):
                raise SubscriptionError(f"RetryPolicy.{name} is {kinds!r}; it must be a tuple of exceptions")

    def delay_after(self, attempt: int, chance: float) -> float:
        """Return the seconds to wait after attempt number ``attempt``; ``chance`` is drawn from [0, 1)."""
        try:
            delay = min(self.max_delay, self.base_delay * self.multiplier ** (attempt - 1))
        except OverflowError:  # a policy with many attempts gets here
            delay = self.max_delay if self.base_delay else 0.0
        return min(self.max_delay, delay * (1 - self.jitter + 2 * self.jitter * chance))


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseException)


DEFAULT_RETRY = RetryPolicy()


class RetryAfter(msgspec.Struct, frozen=True):
    """Decide to retry after ``delay`` seconds."""

    delay: float


class GiveUp(msgspec.Struct, frozen=True):
    """Decide to make no further attempt, for ``reason``."""

    reason: str


def decide_retry(
    policy: RetryPolicy, attempt: int, error: BaseException, chance: float
) -> RetryAfter | GiveUp:
    """Decide what follows failed attempt number ``attempt`` (from 1). Pure: ``chance`` is the randomness."""
    if isinstance(error, NotRetryableError):
        return GiveUp(f"not retryable: {message_of(error)}")
    if isinstance(error, policy.never):
        return GiveUp(f"{type(error).__name__} is declared as never retried")
    # A handler that was cancelled did not finish, so this is a failure like any other.
    if not isinstance(error, (*policy.retry_on, asyncio.CancelledError)):
        return GiveUp(f"{type(error).__name__} is not among the exceptions to retry")
    if attempt >= policy.max_attempts:
        return GiveUp(f"failed {attempt} of {policy.max_attempts} attempts")
    return RetryAfter(policy.delay_after(attempt, chance))
