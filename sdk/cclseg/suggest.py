"""Did-you-mean texts."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Returns a phrase that names the nearest known words, or lists all when none is near.

    Args:
        word: What was given.
        known: The words that would have worked.

    Example:
        >>> did_you_mean("ccl-lite", ["ccl-lite0", "ccl-nano"])
        "did you mean 'ccl-lite0'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"'{name}'" for name in near) + "?"
    return "known: " + ", ".join(names)
