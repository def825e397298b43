"""What a model is, in numbers and words: the one config that families preset and `nn` builds."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gradus.core.config import Config, wrong

LSTM_UNITS = 2048
"""GPT-1, section 5: "a single layer 2048 unit LSTM"."""


class ModelConfig(Config):
    """Every axis on which the model varies. A preset of `families/` fills it, a recipe changes what differs.

    With `body: lstm`, `heads`, `feed_forward`, `norm`, `norm_epsilon`, `activation` and `attention_dropout`
    say nothing: a recipe for the transformer becomes one for the LSTM by what differs.
    """

    family: Literal["gpt1"] = "gpt1"
    """Whose weight names and special tokens the model folder carries."""
    arrangement: Literal["decoder"] = "decoder"
    body: Literal["transformer", "lstm"] = "transformer"
    """What stands between the embedding and the output; `lstm` is GPT-1's comparison (section 5, table 5)."""
    layers: int = Field(12, ge=1)
    width: int = Field(768, ge=1)
    heads: int = Field(12, ge=1)
    units: int | None = Field(None, ge=1)
    """Cells of an LSTM layer; 2048 unless given (GPT-1, section 5). Only with `body: lstm`."""
    feed_forward: int | None = Field(None, ge=1)
    """Width of the feed-forward's hidden layer; 4 x width unless given."""
    context: int = Field(512, ge=2)
    """The longest sequence, in tokens."""
    vocab_size: int | None = Field(None, ge=1)
    """Rows of the token embedding; the tokenizer's own size unless given."""
    positions: Literal["learned", "sinusoidal", "none"] = "learned"
    """What says where a token stands: a learned embedding (GPT-1, section 4.1), the fixed sinusoids of
    Vaswani et al. 2017, section 3.5, beside token embeddings multiplied by sqrt(width) (3.4), or nothing,
    which an LSTM does not need and is its default."""
    norm: Literal["after", "before"] = "after"
    """Where layer norm stands: after the residual sum (GPT-1) or before each branch (GPT-2)."""
    norm_epsilon: float = Field(1e-5, gt=0)
    activation: Literal["gelu_tanh", "gelu", "relu"] = "gelu_tanh"
    dropout: float = Field(0.1, ge=0, lt=1)
    """On the output of each residual branch."""
    attention_dropout: float | None = Field(None, ge=0, lt=1)
    """On the attention weights; as `dropout` unless given."""
    embedding_dropout: float | None = Field(None, ge=0, lt=1)
    """On the embeddings; as `dropout` unless given."""
    embedding_dropout_on: Literal["sum", "table"] = "sum"
    """The sum of the embeddings of each token, or, as in OpenAI's released code, the tables of tokens and
    positions: a number of a row is struck for all its tokens of a forward, and for the tied output, too."""
    tie_embeddings: bool = True
    initial_deviation: float = Field(0.02, gt=0)
    """Standard deviation of the normal initialisation (GPT-1 section 4.1); the matrices of an LSTM have
    1/sqrt(inputs), which is 0.022 for 2048 units."""

    @model_validator(mode="before")
    @classmethod
    def _recurrent(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("body") == "lstm":
            return {"positions": "none", **fields}
        return fields

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.body == "transformer" and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.body == "transformer" and self.units is not None:
            hint = "add `body: lstm`, or leave it out"
            raise wrong("units", "a transformer has no units", self.units, hint)
        return self

    @property
    def hidden(self) -> int:
        return self.feed_forward or 4 * self.width

    @property
    def cells(self) -> int:
        return self.units or LSTM_UNITS

    @property
    def layer_weights(self) -> int:
        """Numbers of one layer's matrices: what a token is multiplied with."""
        if self.body == "lstm":
            return 4 * self.cells * (self.width + self.cells) + self.cells * self.width
        return 4 * self.width * self.width + 2 * self.width * self.hidden

    def parameters(self) -> int:
        """Parameters of the model without task heads; the tied output embedding counts once."""
        assert self.vocab_size is not None, "the tokenizer sets vocab_size before anything is counted"
        if self.body == "lstm":
            vectors, final_norm = 4 * self.cells + self.width, 0
        else:
            vectors = 4 * self.width + self.hidden + self.width + 4 * self.width
            final_norm = 2 * self.width if self.norm == "before" else 0
        positions = self.context if self.positions == "learned" else 0
        embeddings = (self.vocab_size + positions) * self.width
        untied = 0 if self.tie_embeddings else self.vocab_size * self.width
        return self.layers * (self.layer_weights + vectors) + embeddings + final_norm + untied

    def flops_per_token(self, length: float, scored: float = 1.0) -> float:
        """Floating point operations of one training step per token: 6 a weight used, and attention.

        `length` is the mean number of tokens a query sees twice over (a causal window of T sees T/2 on
        average), `scored` the share of positions that reach the vocabulary. Forward 2, backward 4 (Kaplan et
        al. 2020, 2.1).
        """
        assert self.vocab_size is not None
        attention = 0.0 if self.body == "lstm" else 2 * self.width * length / 2
        layers = self.layers * (self.layer_weights + attention)
        return 6 * (layers + scored * self.vocab_size * self.width)
