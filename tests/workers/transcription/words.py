"""Number of wrong words."""

from collections.abc import Sequence


def word_errors(heard: Sequence[str], said: Sequence[str]) -> int:
    """Return the least number of words to insert, delete or replace (Levenshtein).

    Divided by the number of spoken words, it is the word error rate.
    """
    row = list(range(len(said) + 1))
    for i, word in enumerate(heard, 1):
        left = [i]
        for j, expected in enumerate(said, 1):
            left.append(min(row[j] + 1, left[-1] + 1, row[j - 1] + (word != expected)))
        row = left
    return row[-1]
