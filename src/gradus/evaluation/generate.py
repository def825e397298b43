"""What a language model goes on to say: greedy, sampled or by beam search, a token at a time.

Answers to many prompts grow side by side, and what the model keeps of the tokens it has seen is cached, until
a sequence fills the context: then what the model sees slides along, the last `context` tokens of prompt and
answer, computed anew. The same weights, prompt and settings give the same tokens. Shapes: S sequences, V
vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor

from gradus.core.errors import UserError
from gradus.core.example import ragged
from gradus.core.model import ModelConfig
from gradus.evaluation.sampling import Sampling
from gradus.evaluation.search import BeamSearch, Continuation, Walk
from gradus.nn.transformer import Transformer

NUMBERS_AT_ONCE = 1 << 28
"""Keys and values that are kept at one time: 1 GiB in fp32."""
PROMPTS_AT_ONCE = 64

TextOf = Callable[[int, list[int]], str]
"""The new text that tokens of the answer to prompt i make."""


def generate(
    transformer: Transformer,
    prompt: Sequence[int],
    sampling: Sampling,
    end: int | None,
    banned: Sequence[int] = (),
    *,
    start: int | Sequence[int] | None = None,
    text: TextOf | None = None,
) -> list[int]:
    """The token ids that continue `prompt`, at most `sampling.tokens`; see `generate_all`."""
    return generate_all(transformer, [prompt], sampling, end, banned, start=start, text=text)[0]


def generate_all(
    transformer: Transformer,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    end: int | None,
    banned: Sequence[int] = (),
    *,
    start: int | Sequence[int] | None = None,
    text: TextOf | None = None,
    cached: bool = True,
) -> list[list[int]]:
    """The token ids that continue each of `prompts`, at most `sampling.tokens`, without the `end` that stops
    them; with stop strings, up to the token that completes one, for which `text` tells what tokens say.

    An empty prompt stands for the beginning of a document: the model goes on from `end`. An encoder-
    decoder encodes the prompt, and its decoder begins with the token or tokens `start`. Tokens in
    `banned` (roles that are no text) are never chosen. Greedy and beam search are those of transformers'
    `generate` (do_sample off, early_stopping off). Prompt i draws from a generator keyed by the seed and
    i, on the host, so how many there are changes nothing but rounding: an answer is what its prompt would
    get alone. Without `cached` every token is computed from all before it. Raises UserError for an empty
    prompt where no token is `end`, a text longer than an encoder's context, and where the logits are not
    numbers.
    """
    encodes = transformer.config.encodes_and_decodes
    if encodes and start is None:
        raise ValueError("an encoder-decoder needs the token that its decoder starts from")
    opening = [start] if isinstance(start, int) else list(start or ())
    begun = [_begun(prompt, end) for prompt in prompts]
    at_once = _prompts_at_once(transformer.config, begun, sampling)
    said: list[list[int]] = []
    with _at_rest(transformer):
        for first in range(0, len(begun), at_once):
            part = begun[first : first + at_once]
            given = [opening for _ in part] if encodes else part
            walks: list[Walk] = []
            for index, seen in enumerate(given, first):
                if sampling.beams > 1:
                    walks.append(BeamSearch(seen, sampling, end))
                else:
                    own = None if text is None else partial(text, index)
                    walks.append(Continuation(seen, sampling, end, index, own))
            _finish(Running(transformer, given, part if encodes else None, banned, cached), walks)
            said += [walk.answer() for walk in walks]
    return said


class Running:
    """S sequences that a model goes on with, an encoder-decoder from a source each.

    Those that fit the context stand in a cache, in rows `held`; the others are computed anew each time.
    """

    def __init__(
        self,
        transformer: Transformer,
        sequences: Sequence[Sequence[int]],
        sources: Sequence[Sequence[int]] | None,
        banned: Sequence[int],
        cached: bool = True,
    ):
        self.transformer, self.banned = transformer, list(banned)
        self.device = transformer.output_weight.device
        self.longest = transformer.config.context if cached else 0
        self.sequences = [list(sequence) for sequence in sequences]
        context = transformer.config.context
        for source in sources or ():
            if len(source) > context:
                problem = f"{len(source)} tokens, the encoder's context holds {context}"
                raise UserError(problem, field="prompt", hint="shorten the text")
        encoded = None if sources is None else ragged([np.array(one) for one in sources]).to(self.device)
        self.origin = transformer.begin(encoded)
        self.held = [row for row, one in enumerate(self.sequences) if len(one) <= self.longest]
        self.cache = self.origin.restarted(self.held)

    def logits(self) -> Tensor:
        """The logits [S, V] of the token after each sequence, on the host, fp32 or better; those of `banned`
        are -inf. To be asked for once before each `advance`. Raises UserError where they are not numbers."""
        held = set(self.held)
        over = [row for row in range(len(self.sequences)) if row not in held]
        parts = [self._of_held()] if held else []
        parts += [self._of_all(over)] if over else []
        back = torch.from_numpy(np.argsort([*self.held, *over])).to(self.device)
        states = torch.cat(parts).index_select(0, back)
        logits = self.transformer.logits(states)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).cpu()
        if not bool(torch.isfinite(logits).all()):
            hint = "its weights are damaged or its training diverged"
            raise UserError("the model's scores are not numbers", hint=hint)
        logits[:, self.banned] = -math.inf
        return logits

    def advance(self, rows: Sequence[int], tokens: Sequence[int]) -> None:
        """Sequence i is now `rows[i]` with `tokens[i]` behind it; a row may go on twice or not at all."""
        place = {row: index for index, row in enumerate(self.held)}
        self.sequences = [[*self.sequences[row], token] for row, token in zip(rows, tokens)]
        self.held = [
            new for new, row in enumerate(rows) if row in place and len(self.sequences[new]) <= self.longest
        ]
        self.cache.select([place[rows[new]] for new in self.held])
        self.origin = self.origin.restarted(rows)

    def _of_held(self) -> Tensor:
        """States [S, D] of the last token of each sequence in the cache."""
        whole = [self.sequences[row] for row in self.held]
        if self.cache.columns:
            new = ragged([np.array(one[-1:]) for one in whole], round_to=1).to(self.device)
            return self.transformer.extend(new, self.cache)
        new = ragged([np.array(one) for one in whole]).to(self.device)
        last = torch.from_numpy(new.offsets[1:] - 1).to(self.device)
        return self.transformer.extend(new, self.cache).index_select(0, last)

    def _of_all(self, rows: list[int]) -> Tensor:
        """States [S, D] of the last token of each of `rows`, from the last `context` tokens alone."""
        context = self.transformer.config.context
        seen = ragged([np.array(self.sequences[row][-context:]) for row in rows]).to(self.device)
        last = torch.from_numpy(seen.offsets[1:] - 1).to(self.device)
        if self.origin.sources is None:
            return self.transformer(seen).index_select(0, last)
        return self.transformer.extend(seen, self.origin.restarted(rows)).index_select(0, last)


def _finish(running: Running, walks: Sequence[Walk]) -> None:
    """Advances the walks side by side until every answer stands."""
    alive = list(walks)
    while alive:
        logits, first = running.logits(), 0
        rows: list[int] = []
        tokens: list[int] = []
        going: list[Walk] = []
        for walk in alive:
            after = first + walk.width
            steps = walk.take(logits[first:after])
            rows += [first + parent for parent, _ in steps]
            tokens += [token for _, token in steps]
            going += [walk] if steps else []
            first = after
        alive = going
        if alive:
            running.advance(rows, tokens)


def _begun(prompt: Sequence[int], end: int | None) -> list[int]:
    ids = [int(token) for token in prompt]
    if not ids and end is None:
        hint = "this tokenizer has no `end` to begin from"
        raise UserError("the prompt is empty", field="prompt", hint=hint)
    return ids if end is None or ids else [end]


def _prompts_at_once(config: ModelConfig, begun: list[list[int]], sampling: Sampling) -> int:
    """How many answers grow side by side: a function of counted quantities, and without an effect on them."""
    longest = max(map(len, begun), default=1) + sampling.tokens
    kept = 2 * config.layers * config.key_heads * config.channels * min(longest, config.context)
    kept *= sampling.beams * (2 if config.encodes_and_decodes else 1)
    return max(1, min(PROMPTS_AT_ONCE, NUMBERS_AT_ONCE // kept))


@contextmanager
def _at_rest(transformer: Transformer) -> Iterator[None]:
    """No gradients and no dropout inside; the mode of before afterwards."""
    training = transformer.training
    transformer.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        transformer.train(training)
