"""New encryption of stored messages after a rotation of the keys."""

import json

import pytest

from bus.errors import Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import Attempt, AttemptEnd, JobKey, JobProgress, NewJob
from bus.messaging.ports.inbox import HandledMessage, MessageKey
from bus.security.encryption import ENCRYPTION, JWE, PayloadCipher
from bus.security.jwe import new_encryption_key, read_encryption_keys
from bus.storage.sqlalchemy.administration import StoreAdministration
from tests.integration.store.conftest import address_of
from tests.integration.store.test_open import create, opened

OLD, NEW, LOST = (new_encryption_key(name) for name in ("ring-old", "ring-new", "ring-lost"))
KEY = JobKey("office", "job-1")


def cipher(*keys: dict[str, str]) -> PayloadCipher:
    return PayloadCipher(read_encryption_keys(json.dumps({"keys": keys})), everything=True)


def message(id_: str, type_: str = "reencrypt.scan.v1", body: bytes = b'{"a":1}') -> Envelope:
    return Envelope(id=id_, type=type_, role="job", source="office", body=body, timestamp=1)


async def test_all_stored_messages_are_encrypted_with_the_new_key_and_stay_readable(
    store_url: str,
) -> None:
    await create(store_url)
    old, both, new = cipher(OLD), cipher(NEW, OLD), cipher(NEW)
    address = address_of(store_url)
    administration = StoreAdministration(lambda: address)
    try:
        async with opened(store_url) as store:
            jobs = [message(f"job-{number}") for number in range(45)]
            await store.jobs.record(
                [
                    NewJob(key=JobKey("office", each.id), queue="q", envelope=old.encrypt(each))
                    for each in jobs
                ]
            )
            plain = message("plain")
            await store.jobs.record(
                [NewJob(key=JobKey("office", "plain"), queue="other", envelope=plain)]
            )
            claimed = await store.jobs.claim("q", worker="w", limit=2, lease=60)
            first, second = (each.attempt_of for each in claimed)
            update = old.encrypt(message("update", "reencrypt.scan.v1.progress"))
            await store.jobs.report(second, JobProgress(number=1, update=update))
            result = old.encrypt(message("result", "reencrypt.scan.v1.reply"))
            end = AttemptEnd(attempt=first, state="succeeded", result=result)
            await store.jobs.end([end])
            await store.inbox.add(
                MessageKey("q", "office", "seen"),
                HandledMessage(reply=old.encrypt(message("reply", "reencrypt.ask.v1.reply"))),
            )

            dry = await administration.reencrypt(both, is_dry=True)
            assert dry.messages == {"ring-old": 48}
            assert (dry.changed, dry.key) == (0, "ring-new")
            done = await administration.reencrypt(both)
            assert (done.messages, done.changed, done.unreadable) == ({"ring-old": 48}, 48, 0)
            again = await administration.reencrypt(new)
            assert (again.messages, again.changed) == ({"ring-new": 48}, 0)

            for job in jobs:
                found = await store.jobs.find(JobKey("office", job.id))
                assert found is not None
                assert found.envelope is not None
                assert found.envelope.headers[ENCRYPTION] == JWE
                assert new.decrypt(found.envelope).body == job.body
            ended = await store.jobs.find(first.key)
            assert ended is not None
            assert ended.result is not None
            assert new.decrypt(ended.result).body == b'{"a":1}'
            untouched = await store.jobs.find(JobKey("office", "plain"))
            assert untouched is not None
            assert untouched.envelope == plain
            # The worker goes on with its attempt, and its token still holds.
            assert await store.jobs.end(
                [AttemptEnd(attempt=second, state="succeeded", result=result)]
            ) == ["succeeded"]
    finally:
        await administration.close()


async def test_a_message_that_no_key_decrypts_is_counted_and_stays(store_url: str) -> None:
    await create(store_url)
    address = address_of(store_url)
    administration = StoreAdministration(lambda: address)
    sealed = cipher(LOST).encrypt(message("job-1"))
    try:
        async with opened(store_url) as store:
            await store.jobs.record([NewJob(key=KEY, queue="q", envelope=sealed)])
            report = await administration.reencrypt(cipher(NEW, OLD))
            assert report.messages == {"ring-lost": 1}
            assert (report.changed, report.unreadable) == (0, 1)
            (claimed,) = await store.jobs.claim("q", worker="w", limit=1, lease=60)
            assert claimed.attempt_of == Attempt(KEY, claimed.attempt_of.token)
            with pytest.raises(Unavailable):
                cipher(NEW).decrypt(claimed.envelope)
            assert cipher(LOST).decrypt(claimed.envelope).body == b'{"a":1}'
    finally:
        await administration.close()
