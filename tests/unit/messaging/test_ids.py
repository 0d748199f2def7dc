import os
from uuid import RFC_4122, UUID

from bus.messaging.ids import BATCH, random_hex_factory, uuid4_factory


def test_ids_differ_within_a_batch_and_beyond() -> None:
    take = random_hex_factory(16)
    taken = [take() for _ in range(3 * BATCH)]
    assert len(set(taken)) == len(taken)
    assert {len(each) for each in taken} == {32}


def test_message_ids_are_random_uuids() -> None:
    take = uuid4_factory()
    for taken in (take() for _ in range(BATCH)):
        parsed = UUID(taken)
        assert (str(parsed), parsed.version, parsed.variant) == (taken, 4, RFC_4122)


def test_a_forked_child_gives_out_none_of_its_parents() -> None:
    take = random_hex_factory(8)
    take()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, take().encode())
        os._exit(0)
    os.waitpid(child, 0)
    ours = {take() for _ in range(2 * BATCH)}
    assert os.read(reader, 16).decode() not in ours
