"""The repository of the latest notes by id, with the documents that were generated from them."""

from uuid import UUID, uuid4

import pytest

from bus import AlreadyExists
from contracts.documentation.v1 import Document
from tests.unit.workers.documents.notes import note
from workers.documents.repository import MemoryRepository


def document(note_id: UUID, document_id: UUID, size: int = 1) -> Document:
    return Document(
        document_id=document_id,
        note_id=note_id,
        format="pdf",
        uri="file:///a.pdf",
        size=size,
        sha256="0" * 64,
    )


async def test_the_first_note_of_an_id_stays() -> None:
    repository = MemoryRepository(limit=2)
    first, second = note("first"), note("second")
    assert await repository.add(first, owner="office") is first
    assert await repository.add(second, owner="office") is first
    assert await repository.find(first.note_id) is first


async def test_beyond_the_limit_the_oldest_is_forgotten_with_its_documents() -> None:
    repository, ids = MemoryRepository(limit=2), [uuid4() for _ in range(3)]
    for id_ in ids:
        await repository.add(note(note_id=id_), owner="office")
        await repository.attach(document(id_, uuid4()), job_id="job")
    assert [await repository.find(id_) is not None for id_ in ids] == [False, True, True]
    assert [len(await repository.documents(id_)) for id_ in ids] == [0, 1, 1]


async def test_a_document_that_was_made_again_is_one() -> None:
    repository, kept, id_ = MemoryRepository(limit=2), note(), uuid4()
    await repository.add(kept, owner="office")
    for size in (1, 2):
        await repository.attach(document(kept.note_id, id_, size), job_id="job")
    assert await repository.documents(kept.note_id) == (document(kept.note_id, id_, 2),)


async def test_a_document_of_a_note_that_is_gone_is_not_kept() -> None:
    repository, id_ = MemoryRepository(limit=2), uuid4()
    await repository.attach(document(id_, uuid4()), job_id="job")
    assert await repository.documents(id_) == ()


async def test_a_note_of_another_owner_is_neither_returned_nor_replaced() -> None:
    repository, kept = MemoryRepository(limit=2), note("first")
    await repository.add(kept, owner="office")
    with pytest.raises(AlreadyExists, match="another service owns the note"):
        await repository.add(note("second"), owner="mail")
    with pytest.raises(AlreadyExists, match="another service owns the note"):
        await repository.find_own(kept.note_id, owner="mail")
    assert await repository.find_own(kept.note_id, owner="office") is kept


async def test_a_document_is_claimed_by_one_owner_whatever_its_note_is() -> None:
    repository, id_ = MemoryRepository(limit=2), uuid4()
    first, second = note(note_id=uuid4()), note(note_id=uuid4())
    for each in (first, second):
        await repository.add(each, owner="office")
    for _ in range(2):
        await repository.claim(first.note_id, id_, owner="archive")
    for each in (first, second):
        with pytest.raises(AlreadyExists, match="another service owns the document"):
            await repository.claim(each.note_id, id_, owner="office")


async def test_a_document_of_a_removed_note_has_no_owner() -> None:
    repository, ids, id_ = MemoryRepository(limit=1), [uuid4(), uuid4()], uuid4()
    await repository.add(note(note_id=ids[0]), owner="office")
    await repository.claim(ids[0], id_, owner="office")
    await repository.add(note(note_id=ids[1]), owner="office")
    await repository.claim(ids[1], id_, owner="mail")
