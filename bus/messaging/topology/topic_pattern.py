"""Topic patterns: the binding keys of a topic exchange."""

from functools import lru_cache

__all__ = ["topic_matches"]


@lru_cache(maxsize=10_000)
def topic_matches(pattern: str, routing_key: str) -> bool:
    """Return True if a topic pattern matches a routing key (AMQP 0-9-1, 3.1.3.3).

    Words are separated by dots. `*` matches one word, `#` matches zero or more.
    """
    return _words_match(tuple(pattern.split(".")), tuple(routing_key.split(".")))


def _words_match(pattern: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_words_match(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _words_match(pattern[1:], words[1:])
