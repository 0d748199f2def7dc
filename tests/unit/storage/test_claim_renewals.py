"""Renewals of the claims of messages."""

import asyncio

from bus.storage.sqlalchemy.claim_renewals import ClaimRenewals
from bus.storage.sqlalchemy.claims import Claim
from bus.testing import VirtualLoop

LEASE = 30.0


class FrozenOnce:
    """Claims of a database that does not answer the first renewal."""

    def __init__(self) -> None:
        self.began: list[float] = []
        self.renewed_at = 0.0

    async def renew(self, claims: list[Claim], *, lease: float) -> set[Claim]:
        loop = asyncio.get_running_loop()
        self.began.append(loop.time())
        if len(self.began) == 1:
            await loop.create_future()
        self.renewed_at = self.renewed_at or loop.time()
        return set(claims)


def test_a_renewal_without_an_answer_leaves_time_for_a_second_one() -> None:
    claims = FrozenOnce()

    async def hold() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.skip_waits()
        renewals = ClaimRenewals(claims)  # type: ignore[arg-type]
        first = Claim(b"first", 1)
        renewals.add(first, LEASE)
        await asyncio.sleep(0.1)  # the next claim is due just after a turn of the renewals
        begin = loop.time()
        renewals.add(Claim(b"key", 2), LEASE)
        renewals.discard(first)
        await asyncio.sleep(2 * LEASE)
        await renewals.close()
        return begin

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        begin = runner.run(hold())
    assert 0 < claims.renewed_at - begin <= LEASE * 5 / 6
