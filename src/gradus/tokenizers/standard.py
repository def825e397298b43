"""Words as the code released with GPT-1 finds them: ftfy mends the text, rules set punctuation apart, spaCy
cuts.

openai/finetune-transformer-lm, text_utils.py. The paper: "We use the ftfy library to clean the raw text in
BooksCorpus, standardize some punctuation and whitespace, and use the spaCy tokenizer" (section 4.1). The
versions of 2018 differ from today's in details, so which are used belongs to a tokenizer's identity.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from gradus.core import libraries

LIBRARIES = ("ftfy", "spacy")
_REPLACED = str.maketrans({"—": "-", "–": "-", "―": "-", "…": "...", "´": "'"})
_APART = re.compile(r'([-~!";?+,)(\\/*\[\]}{|_])\1*')
"""A run of one of these marks; a mixture of them is several runs."""
_AROUND_NEWLINE = re.compile(r"\s*\n\s*")
_OTHER_SPACE = re.compile(r"[^\S\n]+")
NEWLINE = "\n "
"""The word that spaCy makes of a line's end: the space before it belongs to the word before."""


def standardise(text: str) -> str:
    """One kind of dash, runs of a mark between spaces, one space or one line end at a time, none at the
    ends."""
    text = _APART.sub(r" \g<0> ", text.translate(_REPLACED))
    return _OTHER_SPACE.sub(" ", _AROUND_NEWLINE.sub(" \n ", text)).strip()


def versions() -> dict[str, str]:
    """The version of each library. Raises UserError where one is not installed."""
    user, place = "the pre-tokenisation of GPT-1's release", "tokenizer.pre_tokenization"
    return libraries.versions(LIBRARIES, user, "release", "`simple`", field=place, text="release")


@cache
def words_of_release() -> Callable[[str], list[str]]:
    """The function that takes a text apart into lower-case words, a line's end being one.

    Raises UserError where ftfy or spaCy is not installed.
    """
    versions()
    import ftfy
    import spacy

    cut = spacy.blank("en").tokenizer  # the rules of English, which no trained pipeline changes
    fix = ftfy.fix_text

    def words(text: str) -> list[str]:
        found = (token.text.lower() for token in cut(standardise(fix(text))))
        return ["\n" if word == NEWLINE else word for word in found]

    return words
