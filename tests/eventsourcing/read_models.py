"""Read models of accounts that the tests of projections share."""

from __future__ import annotations

from decimal import Decimal

from pabal import InMemoryEventBus, Receipt
from pabal.eventsourcing import Projection, ProjectionTransaction, projects
from tests.eventsourcing.samples import Deposited, Withdrawn

BALANCES = "SELECT * FROM {balances} ORDER BY account"


class Balances(Projection):
    tables = """
        CREATE TABLE {balances} (
            account TEXT PRIMARY KEY, balance INTEGER NOT NULL, entries INTEGER NOT NULL
        );
        CREATE INDEX {balances}_by_balance ON {balances} (balance);
    """

    @projects(Deposited)
    def _deposited(self, event: Deposited, tx: ProjectionTransaction) -> None:
        self._add(tx, event.account, int(event.amount))

    @projects(Withdrawn)
    def _withdrawn(self, event: Withdrawn, tx: ProjectionTransaction) -> None:
        self._add(tx, event.account, -int(event.amount))

    def _add(self, tx: ProjectionTransaction, account: str, amount: int) -> None:
        tx.execute(
            "INSERT INTO {balances} VALUES (?, ?, 1) ON CONFLICT DO UPDATE "
            "SET balance = balance + excluded.balance, entries = entries + 1",
            (account, amount),
        )


class BalancesV2(Balances):
    """The next release of ``Balances``."""

    name = "balances"
    version = 2
    tables = "CREATE TABLE {balances} (account TEXT PRIMARY KEY, cents INTEGER NOT NULL)"

    def _add(self, tx: ProjectionTransaction, account: str, amount: int) -> None:
        tx.execute(
            "INSERT INTO {balances} VALUES (?, ?) ON CONFLICT DO UPDATE SET cents = cents + excluded.cents",
            (account, amount * 100),
        )


class Choosy(Balances):
    name = "choosy"
    matches = "es.*"
    tables = "CREATE TABLE {choosy} (account TEXT, amount INTEGER)"

    def _add(self, tx: ProjectionTransaction, account: str, amount: int) -> None:
        if account == "bad":
            tx.execute("INSERT INTO {choosy} VALUES (?, 99)", (account,))
            raise ValueError("a bad account")
        tx.execute("INSERT INTO {choosy} VALUES (?, ?)", (account, amount))


ONE = Decimal(1)


async def deposit(bus: InMemoryEventBus, count: int, accounts: int = 3) -> Receipt:
    """Publish ``count`` deposits of one, spread over a few accounts; return the last receipt."""
    receipts = await bus.publish_batch(Deposited(f"a{n % accounts}", ONE) for n in range(count))
    return receipts[-1]


async def entries(projection: Projection) -> int:
    """Return how many deposits the balances have counted."""
    return (await projection.rows("SELECT coalesce(sum(entries), 0) FROM {balances}"))[0][0]
