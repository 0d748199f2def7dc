"""The mark of tests that recognise speech."""

from importlib.util import find_spec

import pytest

__all__ = ["needs_speech"]

needs_speech = pytest.mark.skipif(
    find_spec("pocketsphinx") is None, reason="pocketsphinx is not installed: it has no wheel here"
)
