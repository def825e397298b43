"""What objectives of encoder-decoders share: one text is read, another is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gradus.core.example import Example, ExampleTargets
from gradus.objectives.base import ObjectiveSettings, Task, TokenObjective


class SayingObjective(TokenObjective):
    """A decoder beside an encoder says a text: every token of `Example.decoded` but the first is a target.

    Which special tokens stand around what is read and before what is said is the model's affair: see
    `ModelConfig.encoder_roles`.
    """

    def __init__(self, config: ObjectiveSettings, task: Task):
        self.weight, self.model = config.weight, task.model
        before, after = task.model.encoder_roles
        self._before, self._after, self._opening = (
            np.array([task.tokens.role(name) for name in names], np.int64)
            for names in (before, after, task.model.decoder_roles)
        )
        self.end = task.tokens.role("end")

    def text(self, example: Example) -> np.ndarray:
        """The running text of a window; an `end` at its head belongs to the document before it."""
        (tokens,) = example.sequences
        return tokens[1:] if len(tokens) and tokens[0] == self.end else tokens

    def pair(self, example: Example, read: np.ndarray, said: np.ndarray) -> Example:
        """The example with what the encoder reads and the decoder says, special tokens around them."""
        source = np.concatenate([self._before, read, self._after]).astype(np.int64)
        decoded = np.concatenate([self._opening, said, [self.end]]).astype(np.int64)
        return replace(example, sequences=(source,), decoded=(decoded,), following=None)

    def targets(self, example: Example) -> ExampleTargets:
        value = np.concatenate([said[1:] for said in example.decoded]).astype(np.int64)
        return ExampleTargets(np.arange(len(value)), value, np.ones(len(value)))
