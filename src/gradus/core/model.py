"""What a model is, in numbers and words: the one config that families preset and `nn` builds."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gradus.core.config import Config, wrong

LSTM_UNITS = 2048
"""GPT-1, section 5: "a single layer 2048 unit LSTM"."""

FamilyName = Literal["gpt1", "gpt2", "llama", "bert", "roberta", "bart", "t5"]
Arrangement = Literal["decoder", "encoder", "encoder_decoder"]


FURTHER_DROPOUTS = ("feed_forward_dropout", "output_dropout")
"""What a family has beside the usual ones: where it has them, a change of `dropout` changes them, too."""


class ModelConfig(Config):
    """Every axis on which the model varies. A preset of `families/` fills it, a recipe changes what differs.

    With `body: lstm`, `heads`, `feed_forward`, `norm`, `norm_epsilon`, `activation` and `attention_dropout`
    say nothing: a recipe for the transformer becomes one for the LSTM by what differs.
    """

    family: FamilyName = "gpt1"
    """Whose weight names and special tokens the model folder carries."""
    arrangement: Arrangement = "decoder"
    """decoder: each state sees what comes before it. encoder: it sees the whole sequence. encoder_decoder: a
    decoder that also sees the states of an encoder of as many layers."""
    body: Literal["transformer", "lstm"] = "transformer"
    """What stands between the embedding and the output; `lstm` is GPT-1's comparison (section 5, table 5)."""
    layers: int = Field(12, ge=1)
    """Of the decoder and of the encoder each, where there are both."""
    width: int = Field(768, ge=1)
    heads: int = Field(12, ge=1)
    kv_heads: int | None = Field(None, ge=1)
    """Heads of keys and values, each shared by several of the queries' (Ainslie et al. 2023); as `heads`
    unless given."""
    head_width: int | None = Field(None, ge=1)
    """Channels of a head; width / heads unless given."""
    units: int | None = Field(None, ge=1)
    """Cells of an LSTM layer; 2048 unless given (GPT-1, section 5). Only with `body: lstm`."""
    feed_forward: int | None = Field(None, ge=1)
    """Width of the feed-forward's hidden layer; 4 x width unless given."""
    context: int = Field(512, ge=2)
    """The longest sequence, in tokens."""
    vocab_size: int | None = Field(None, ge=1)
    """Rows of the token embedding; the tokenizer's own size unless given."""
    positions: Literal["learned", "sinusoidal", "none", "rotary", "relative"] = "learned"
    """What says where a token stands: a learned embedding (GPT-1, section 4.1), the fixed sinusoids of
    Vaswani et al. 2017, section 3.5, beside token embeddings multiplied by sqrt(width) (3.4), or nothing,
    which an LSTM does not need and is its default. `rotary` turns queries and keys (Su et al. 2021, 3.2),
    `relative` adds a learned number for each head and bucket of distances (Raffel et al. 2020, 2.1)."""
    position_offset: int = Field(0, ge=0)
    """Rows of the table of positions that stand before the first: 2 in RoBERTa and BART, as released."""
    rotary_base: float = Field(10_000.0, gt=1)
    """Su et al. 2021, section 3.3; later models have larger ones for longer contexts."""
    relative_buckets: int = Field(32, ge=4)
    relative_distance: int = Field(128, ge=1)
    """From this distance on all share a bucket (Raffel et al. 2020, section 2.1). More than the distances
    that have one of their own: half of the buckets, in an encoder a quarter."""
    segments: int = Field(0, ge=0)
    """Rows of the embedding that says which text a token belongs to; BERT has 2."""
    delimiters: int = Field(1, ge=1)
    """Tokens that part two texts which an encoder reads: 2 in RoBERTa and BART, as released."""
    source_start: bool = False
    """An encoder beside a decoder reads `start` before its text, and the decoder begins with `end`, `start`
    (BART); else the encoder reads the bare text and the decoder begins with `start` (T5)."""
    window: int | None = Field(None, ge=1)
    """In every second layer a token sees only so many, itself included: the locally banded layers of GPT-3
    (Brown et al. 2020, 2.1)."""
    norm: Literal["after", "before"] = "after"
    """Where the norm stands: after the residual sum (GPT-1) or before each branch (GPT-2)."""
    norm_kind: Literal["layer", "rms"] = "layer"
    """Layer norm (Ba et al. 2016), or its scale alone (Zhang and Sennrich 2019)."""
    norm_epsilon: float = Field(1e-5, gt=0)
    embedding_norm: bool = False
    """A norm on the embedded input (BERT, BART)."""
    activation: Literal["gelu_tanh", "gelu", "relu", "silu"] = "gelu_tanh"
    gated: bool = False
    """The feed-forward multiplies its hidden layer by a second projection (Shazeer 2020)."""
    biases: bool = True
    """Whether linear layers have biases; T5 and Llama have none."""
    attention_scale: bool = True
    """Whether scores are divided by sqrt(head_width); T5's start has it in the weights."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On the output of each residual branch."""
    attention_dropout: float | None = Field(None, ge=0, lt=1)
    """On the attention weights; as `dropout` unless given."""
    embedding_dropout: float | None = Field(None, ge=0, lt=1)
    """On the embeddings; as `dropout` unless given."""
    embedding_dropout_on: Literal["sum", "table"] = "sum"
    """The sum of the embeddings of each token, or, as in OpenAI's released code, the tables of tokens and
    positions: a number of a row is struck for all its tokens of a forward, and for the tied output, too."""
    feed_forward_dropout: float = Field(0.0, ge=0, lt=1)
    """On the feed-forward's hidden layer (T5; BART's `activation_dropout`)."""
    output_dropout: float = Field(0.0, ge=0, lt=1)
    """On the states that leave a stack (T5)."""
    pooler: bool = False
    """A linear layer and tanh on the first state of a sequence, which heads read (BERT)."""
    dense_head: bool = False
    """Heads begin with a linear layer and tanh of their own (RoBERTa, BART)."""
    tie_embeddings: bool = True
    output_transform: bool = False
    """A linear layer, the activation and a norm before the vocabulary is scored (BERT, RoBERTa)."""
    output_bias: bool = False
    """A bias for each token of the vocabulary (BERT, RoBERTa)."""
    output_scale: bool = False
    """States are divided by sqrt(width) before a tied output (T5, not its version 1.1)."""
    initialisation: Literal["normal", "residual", "depth", "xavier", "kaiming", "fan_in", "t5"] = "normal"
    """How matrices begin: see `nn/initialisation.py`."""
    initial_deviation: float = Field(0.02, gt=0)
    """Standard deviation of the normal initialisation (GPT-1 section 4.1); the matrices of an LSTM have
    1/sqrt(inputs), which is 0.022 for 2048 units."""

    tuned_width: int | None = Field(None, ge=1)
    """The width for which rate and deviation were found: at other widths the start, the rate of the layers'
    matrices and the output follow the maximal update parametrisation (Yang et al. 2022, table 8, for Adam),
    so that they need not be found again. `head_width` should stay what it was: attention then need not
    change."""

    @model_validator(mode="before")
    @classmethod
    def _recurrent(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and fields.get("body") == "lstm":
            return {"positions": "none", **fields}
        return fields

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.body == "lstm":
            if self.arrangement != "decoder":
                raise wrong("arrangement", "an LSTM reads in one direction", self.arrangement, "decoder")
            return self
        if self.units is not None:
            hint = "add `body: lstm`, or leave it out"
            raise wrong("units", "a transformer has no units", self.units, hint)
        if self.head_width is None and self.width % self.heads:
            raise ValueError(f"width {self.width} is not a multiple of heads {self.heads}")
        if self.heads % self.key_heads:
            raise ValueError(f"heads {self.heads} is not a multiple of kv_heads {self.key_heads}")
        if self.positions == "rotary" and self.channels % 2:
            problem = "rotary positions turn pairs of channels"
            raise wrong("head_width", problem, self.channels, "an even number")
        single = self.relative_buckets // (4 if self.arrangement == "encoder" else 2)
        if self.positions == "relative" and self.relative_distance <= single:
            problem = f"the first {single} distances have buckets of their own"
            raise wrong("relative_distance", problem, self.relative_distance, f"more than {single}")
        if self.window is not None and self.arrangement != "decoder":
            raise wrong("window", "only a decoder has a window", self.window, "leave it out")
        return self

    def changes(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON values: a new axis leaves fingerprints as they were."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def widening(self) -> float:
        """How many times wider it is than the model that was tuned; 1 unless `tuned_width` is given."""
        return self.width / (self.tuned_width or self.width)

    @property
    def channels(self) -> int:
        """Of a head."""
        return self.head_width or self.width // self.heads

    @property
    def key_heads(self) -> int:
        return self.kv_heads or self.heads

    @property
    def hidden(self) -> int:
        return self.feed_forward or 4 * self.width

    @property
    def cells(self) -> int:
        return self.units or LSTM_UNITS

    @property
    def encodes_and_decodes(self) -> bool:
        return self.arrangement == "encoder_decoder"

    @property
    def encoder_roles(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The roles of the tokens before and after a text that an encoder beside a decoder reads: none and
        `end` in T5 (its released code appends EOS), `start` and `end` in BART."""
        return (("start",) if self.source_start else ()), ("end",)

    @property
    def decoder_roles(self) -> tuple[str, ...]:
        """The roles of the tokens that a decoder beside an encoder begins with: `start`, which in BART `end`
        precedes (its released code's `prev_output_tokens`)."""
        return ("end", "start") if self.source_start else ("start",)

    def rows_of_parts(self, parts: int, count: int) -> list[int]:
        """How many of the `count` rows of a matrix are in each of its parts: queries, keys and values of self
        attention, keys and values of cross attention, or all."""
        keys = self.key_heads * self.channels
        return [count - keys * (parts - 1), *[keys] * (parts - 1)]

    @property
    def attention_weights(self) -> int:
        """Numbers of the matrices of one attention."""
        queries, keys = self.heads * self.channels, self.key_heads * self.channels
        return self.width * (2 * queries + 2 * keys)

    @property
    def layer_weights(self) -> int:
        """Numbers of one layer's matrices: what a token is multiplied with. Where there are an encoder and a
        decoder, the mean of theirs."""
        if self.body == "lstm":
            return 4 * self.cells * (self.width + self.cells) + self.cells * self.width
        attentions = 1.5 if self.encodes_and_decodes else 1
        feed_forward = (3 if self.gated else 2) * self.width * self.hidden
        return int(attentions * self.attention_weights) + feed_forward

    def flops_per_token(self, length: float, scored: float = 1.0) -> float:
        """Floating point operations of one training step per token: 6 a weight used, and attention.

        `length` is the mean number of tokens a query sees twice over (a causal window of T sees T/2 on
        average), `scored` the share of positions that reach the vocabulary. Forward 2, backward 4 (Kaplan et
        al. 2020, 2.1).
        """
        assert self.vocab_size is not None
        seen = length / 2 if self.arrangement == "decoder" else length
        attention = 0.0 if self.body == "lstm" else 2 * self.heads * self.channels * seen
        layers = self.layers * (self.layer_weights + attention)
        return 6 * (layers + scored * self.vocab_size * self.width)
