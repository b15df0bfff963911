"""Words, phrases and prefixes: how texts are cut into them, asked for, and found again.

SQLite's FTS5 cuts texts where its `unicode61` tokenizer sees no letter or digit, and forgets case
and accents. Scripts that are written without spaces would be one long word each, so each of their
characters is made a word of its own here, and what is asked for becomes a phrase of them. This
module must not know how anything is stored.
"""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from perry.sessions.models import Message

BEFORE, AFTER = 60, 140
"""Characters of a snippet before the word it is around, and after it."""

_CANDIDATES = 50  # places in a message that are looked at for the best snippet

# Kana, Han, Hangul; Thai, Lao, Burmese, Khmer: syllables and words follow each other unspaced,
# or (Hangul) carry endings that nobody would type in a search.
_SPACELESS = (
    "\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
_EACH = re.compile(f"([{_SPACELESS}])")
_TOKEN = re.compile(rf"[{_SPACELESS}]|(?:(?![{_SPACELESS}])[^\W_])+")
_ASKED = re.compile(r'"([^"]*)"?(\*?)|(\S+)')


class Term(msgspec.Struct, frozen=True):
    """Words that have to follow each other; in a prefix, the last one's beginning is enough."""

    tokens: tuple[str, ...]
    is_prefix: bool = False

    @property
    def match(self) -> str:
        """What is asked of FTS5: a string is a phrase of the tokens in it."""
        return f'"{" ".join(self.tokens)}"{"*" if self.is_prefix else ""}'

    def spans(self, folded: str) -> Iterator[tuple[int, int]]:
        """Find the places of the term in a folded text: where it begins, and ends."""
        for found in _compiled(self.tokens).finditer(folded):
            start, end = found.span()
            if self._is_apart(folded, start, end):
                yield start, end

    def _is_apart(self, text: str, start: int, end: int) -> bool:
        """Tell whether no word goes on before the term, or behind it."""
        before, behind = text[start - 1 : start], text[end : end + 1]
        is_begun = _is_letter(before) and _is_letter(text[start])
        return not is_begun and (
            self.is_prefix or not (_is_letter(behind) and _is_letter(text[end - 1]))
        )


class Query(msgspec.Struct, frozen=True):
    """What is looked for: all of the terms, in one message."""

    terms: tuple[Term, ...]

    @property
    def match(self) -> str:
        """The query as FTS5 takes it."""
        return " AND ".join(term.match for term in self.terms)


def parse(text: str) -> Query:
    """Read what a person typed: words, "phrases in quotes" and prefixes*; all have to be there.

    A word that has signs inside, as `app.py`, is a phrase of its parts. What has neither letters
    nor digits is left out; a query may be left without terms, and then finds nothing.
    """
    terms = []
    lowered = "".join(map(_lower, unicodedata.normalize("NFC", text)))
    for quoted, star, word in _ASKED.findall(lowered):
        tokens = tuple(_TOKEN.findall(quoted or word))
        if tokens:
            terms.append(Term(tokens, is_prefix=bool(star) or word.endswith("*")))
    return Query(tuple(dict.fromkeys(terms)))


def fold(text: str) -> str:
    """Forget case and accents, as `unicode61` does; a character stays one character."""
    if text.isascii():
        return text.lower()
    return text.translate(_FOLDED)


def spaced(text: str) -> str:
    """Write a text so that `unicode61` finds its words in any script."""
    if text.isascii():
        return text
    return _EACH.sub(r" \1 ", unicodedata.normalize("NFC", text))


def text_of(message: Message) -> str:
    """Give all that a message says, for which it is found."""
    parts = (message.tool_name, message.tool_input, message.content)
    # A call's content is but the name of its tool.
    return "\n".join(dict.fromkeys(part for part in parts if part))


class Finder:
    """Finds a query's terms in texts that hold them."""

    def __init__(self, query: Query) -> None:
        self._terms = query.terms

    def counts(self, text: str, most: int) -> list[int]:
        """Count how often each term is in a text, up to `most`."""
        folded = fold(text)
        return [sum(1 for _ in itertools.islice(term.spans(folded), most)) for term in self._terms]

    def snippet(self, text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Cut one line out of a text where most terms are, and say where in it they are."""
        start, stop = self._window(fold(text))
        line = " ".join(text[start:stop].split())
        snippet = f"{'…' if start else ''}{line}{'…' if stop < len(text) else ''}"
        return snippet, self._marks(fold(snippet))

    def _window(self, folded: str) -> tuple[int, int]:
        windows = [
            (max(0, start - BEFORE), end + AFTER)
            for term in self._terms
            for start, end in itertools.islice(term.spans(folded), _CANDIDATES)
        ]

        def terms_in(window: tuple[int, int]) -> int:
            part = folded[slice(*window)]
            return sum(any(True for _ in term.spans(part)) for term in self._terms)

        return max(windows or [(0, BEFORE + AFTER)], key=terms_in)

    def _marks(self, folded: str) -> tuple[tuple[int, int], ...]:
        return tuple(_merged(sorted(span for term in self._terms for span in term.spans(folded))))


@functools.lru_cache(maxsize=64)
def _compiled(tokens: tuple[str, ...]) -> re.Pattern[str]:
    """Compile words that follow each other, for folded texts."""
    folded = tuple(map(fold, tokens))
    pattern = folded[0]
    for before, token in itertools.pairwise(folded):
        is_close = _EACH.match(before) or _EACH.match(token)
        pattern += (r"[\W_]*" if is_close else r"[\W_]+") + token
    return re.compile(pattern)


def _is_letter(character: str) -> bool:
    """Tell whether a character makes a word together with others."""
    return character.isalnum() and not _EACH.match(character)


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _lower(character: str) -> str:
    """Forget case alone; what has no lower case of one character is folded."""
    lowered = character.lower()
    return lowered if len(lowered) == 1 else fold(character)


class _Folded(dict[int, int]):
    """What each character is folded to, found out when it is met first."""

    def __missing__(self, code: int) -> int:
        character = chr(code)
        base = unicodedata.normalize("NFD", character)[0].lower().replace("\u03c2", "\u03c3")
        # Hangul falls apart into its letters; whatever becomes several characters stays as it is.
        folded = code if len(base) != 1 or _EACH.match(character) else ord(base)
        self[code] = folded
        return folded


_FOLDED = _Folded()
