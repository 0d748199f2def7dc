"""Property test with any text, in addition to the tables in tests/unit.

The generator of the texts takes longer to load than a unit test may.
"""

import re

from hypothesis import given
from hypothesis import strategies as st

from workers.documents.text import paragraphs

UNCARRIED = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]")
"""Characters that XML cannot hold, or that change the direction of text."""
# UTF-8 has no surrogates (Cs), so JSON has none. Without the category, Hypothesis would encode each
# of the million code points to find that out.
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(texts)
def test_what_comes_out_can_be_carried_and_keeps_every_word(text: str) -> None:
    lines = [line for block in paragraphs(text) for line in block]
    assert not any(UNCARRIED.search(line) or not line.strip() for line in lines)
    said = [c for c in text if c.isascii() and c.isalnum()]
    shown = iter("".join(lines))
    assert all(c in shown for c in said), "a letter is missing, or out of order"
