"""Floor 1: text to token ids and back, with roles for the special tokens, over the `tokenizers` library."""

from gradus.tokenizers.files import Template
from gradus.tokenizers.kinds import (
    BytePairTokenizer,
    CharacterTokenizer,
    PretrainedTokenizer,
    TokenizerConfig,
)
from gradus.tokenizers.release import GPT1Tokenizer
from gradus.tokenizers.roles import ROLES, role_text
from gradus.tokenizers.tokenizer import Tokenizer

__all__ = [
    "ROLES",
    "BytePairTokenizer",
    "CharacterTokenizer",
    "GPT1Tokenizer",
    "PretrainedTokenizer",
    "Template",
    "Tokenizer",
    "TokenizerConfig",
    "role_text",
]
