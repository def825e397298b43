"""A shallow model grown deeper between stages: which layer each layer of the deeper one is copied from.

stack         0 1 0 1    the whole pile again on top of itself (Gong et al. 2019, algorithm 1)
interleave    0 0 1 1    every layer beside its copy (Chang et al. 2018, figure 3)
identity      0 0'1 1'   the same, but the copies' branches add nothing: what they write into the residual
                         sum begins at 0, so the deeper model computes what the shallow one did (Chen et
                         al. 2016, section 2.3; the zeros as in Wu et al. 2024, section 3.1)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field

from gradus.core.config import Config
from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.optim.groups import BLOCK
from gradus.training.transfer import Moved

BRANCH_ENDS = ("attention.output.", "cross_attention.output.", "feed_forward.down.", "output.")
"""What writes into the residual sum, by the names below a layer; the last is that of an LSTM."""


class Grow(Config):
    """The model that a stage starts from, with more layers."""

    layers: int = Field(ge=2)
    """Of the decoder and of the encoder each, where there are both."""
    by: Literal["stack", "interleave", "identity"] = "stack"

    def origins(self, layers: int) -> list[int]:
        """For every layer of the deeper model, bottom up, its layer of `layers`."""
        if self.by == "stack":
            return [place % layers for place in range(self.layers)]
        return [place * layers // self.layers for place in range(self.layers)]

    def silent(self, layers: int) -> list[bool]:
        """Which layers of the deeper model begin as the identity."""
        origins = self.origins(layers)
        return [self.by == "identity" and origin in origins[:place] for place, origin in enumerate(origins)]

    def grown(self, model: ModelConfig) -> ModelConfig:
        """The deeper model. Raises UserError where it would not be deeper, and for `identity` where a model
        of this kind cannot stay what it was."""
        if self.layers <= model.layers:
            hint = f"more than {model.layers}"
            raise UserError("the model has as many layers", field="grow.layers", text=self.layers, hint=hint)
        if self.by == "identity":
            self._require_identity(model)
        return model.model_copy(update={"layers": self.layers})

    def _require_identity(self, model: ModelConfig) -> None:
        problem = None
        if model.body == "transformer" and model.norm == "after":
            problem = "with the norm after the residual sum a layer that adds nothing still norms once more"
        layers = zip(self.origins(model.layers), self.silent(model.layers))
        moved = any((place - origin) % 2 for place, (origin, silent) in enumerate(layers) if not silent)
        if model.window is not None and moved:
            problem = "every second layer has the window, and those above a copy would change place"
        if problem is not None:
            raise UserError(problem, field="grow.by", text=self.by, hint="stack or interleave")

    def tensors(
        self, tensors: Mapping[str, torch.Tensor], layers: int
    ) -> tuple[dict[str, torch.Tensor], dict[str, Moved]]:
        """The tensors of a model of `layers` under the names of the deeper one, and what became of those of
        its layers, by the learner's names."""
        found: dict[str, torch.Tensor] = {}
        table: dict[str, Moved] = {}
        places = list(zip(self.origins(layers), self.silent(layers)))
        for name, tensor in tensors.items():
            if not (of_layer := BLOCK.match(name)):
                found[name] = tensor
                continue
            rest = name[of_layer.end() :]
            for layer, (origin, silent) in enumerate(places):
                if origin != int(of_layer[2]):
                    continue
                own, shape = f"{of_layer[1]}blocks.{layer}.{rest}", tuple(tensor.shape)
                learners = f"transformer.{own}"
                if silent and rest.startswith(BRANCH_ENDS):
                    found[own] = torch.zeros_like(tensor)
                    table[learners] = Moved(
                        learners, "new", shape, f"0: layer {layer} begins as the identity"
                    )
                else:
                    found[own] = tensor
                    table[learners] = Moved(learners, "loaded", shape, f"copied from layer {origin}")
        return found, table
