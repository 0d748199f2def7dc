"""Whatever was dictated: a property, beside the tables in tests/unit. What makes such texts takes longer to load than a unit test may."""

from hypothesis import given
from hypothesis import strategies as st

from workers.documents.text import UNCARRIED, paragraphs

# What UTF-8 can say, and so what arrives as JSON. Hypothesis would find that out by encoding each of the million code points.
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts)
def test_what_comes_out_can_be_carried_and_keeps_every_word(text: str) -> None:
    lines = [line for block in paragraphs(text) for line in block]
    assert not any(UNCARRIED.search(line) or "\n" in line or not line.strip() for line in lines)
    said = [c for c in text if c.isascii() and c.isalnum()]
    shown = iter("".join(lines))
    assert all(c in shown for c in said), "a letter is missing, or out of order"
