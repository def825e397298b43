"""What a transformer is, in numbers and words: the one config that families preset and `nn` builds."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from gradus.core.config import Config


class ModelConfig(Config):
    """Every axis on which the transformer varies. A preset of `families/` fills it, a recipe changes what
    differs."""

    family: Literal["gpt1"] = "gpt1"
    """Whose weight names and special tokens the model folder carries."""
    arrangement: Literal["decoder"] = "decoder"
    layers: int = Field(12, ge=1)
    width: int = Field(768, ge=1)
    heads: int = Field(12, ge=1)
    feed_forward: int | None = Field(None, ge=1)
    """Width of the feed-forward's hidden layer; 4 x width unless given."""
    context: int = Field(512, ge=2)
    """The longest sequence, in tokens."""
    vocab_size: int | None = Field(None, ge=1)
    """Rows of the token embedding; the tokenizer's own size unless given."""
    positions: Literal["learned"] = "learned"
    norm: Literal["after", "before"] = "after"
    """Where layer norm stands: after the residual sum (GPT-1) or before each branch (GPT-2)."""
    norm_epsilon: float = Field(1e-5, gt=0)
    activation: Literal["gelu_tanh", "gelu", "relu"] = "gelu_tanh"
    dropout: float = Field(0.1, ge=0, lt=1)
    """On the output of each residual branch."""
    attention_dropout: float | None = Field(None, ge=0, lt=1)
    """On the attention weights; as `dropout` unless given."""
    embedding_dropout: float | None = Field(None, ge=0, lt=1)
    """On the sum of the embeddings; as `dropout` unless given."""
    tie_embeddings: bool = True
    initial_deviation: float = Field(0.02, gt=0)
    """Standard deviation of the normal initialisation (GPT-1 section 4.1)."""

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        return self

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def hidden(self) -> int:
        return self.feed_forward or 4 * self.width

    def parameters(self) -> int:
        """Parameters of the transformer without task heads; the tied output embedding counts once."""
        assert self.vocab_size is not None, "the tokenizer sets vocab_size before anything is counted"
        width, hidden = self.width, self.hidden
        block = 4 * width * width + 4 * width + 2 * width * hidden + hidden + width + 4 * width
        embeddings = (self.vocab_size + self.context) * width
        final_norm = 2 * width if self.norm == "before" else 0
        untied = 0 if self.tie_embeddings else self.vocab_size * width
        return self.layers * block + embeddings + final_norm + untied

    def flops_per_token(self, length: float, scored: float = 1.0) -> float:
        """Floating point operations of one training step per token: 6 a weight used, and attention.

        `length` is the mean number of tokens a query sees twice over (a causal window of T sees T/2 on
        average), `scored` the share of positions that reach the vocabulary. Forward 2, backward 4 (Kaplan et
        al. 2020, 2.1).
        """
        assert self.vocab_size is not None
        block = 4 * self.width * self.width + 2 * self.width * self.hidden
        attention = 2 * self.width * length / 2
        return 6 * (self.layers * (block + attention) + scored * self.vocab_size * self.width)
