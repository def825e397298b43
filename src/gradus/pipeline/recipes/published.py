"""Published stages, by the kind of their data: what `preset` fills where the recipe is silent."""

from __future__ import annotations

from typing import Any, Literal, get_args

from gradus.core.config import wrong
from gradus.core.duration import Quantity
from gradus.core.errors import nearest
from gradus.objectives import CausalLMConfig, ClassificationConfig, MultipleChoiceConfig
from gradus.optim.optimizers import AdamW
from gradus.optim.schedules import FINE_TUNING, Cosine
from gradus.pipeline.recipes.members import reads_rows

StagePreset = Literal["gpt1"]


def published(preset: object, stage: dict[str, Any]) -> dict[str, Any]:
    """What `preset` sets for a stage with these keys, as the recipe has them.

    Raises PydanticCustomError for a name that no preset has, and where objectives have to be named. Data
    that make no sense are left to others.
    """
    if preset not in get_args(StagePreset):
        hint = nearest(str(preset), get_args(StagePreset))
        raise wrong("preset", "there is no such preset of a stage", preset, hint)
    kind, form = _of(stage.get("data"), "kind"), _of(_of(stage.get("data"), "format"), "kind")
    if reads_rows(stage.get("data")) and kind == "mix":
        return gpt1_fine_tuning(None)
    if kind in ("text", "mix"):
        return gpt1_pre_training()
    if form == "similarity" and stage.get("objectives") is None:
        problem = "the preset cannot know whether the labels are classes or numbers"
        hint = "[{kind: classification}, {kind: causal_lm, weight: 0.5}], or regression in its place"
        raise wrong("objectives", problem, None, hint)
    return gpt1_fine_tuning(form) if kind == "rows" else {}


def gpt1_pre_training() -> dict[str, Any]:
    """Radford et al. 2018, section 4.1, "Model specifications".

    Adam with a largest rate of 2.5e-4, warmed up linearly over 2000 updates and annealed to 0 by a cosine;
    100 epochs of 64 contiguous windows a step; decoupled decay of 0.01 on all that is neither bias nor gain.
    The windows of 512 tokens and dropout 0.1 are the model's own (`model: {preset: gpt1}`).
    """
    return {
        "objectives": [CausalLMConfig()],
        "optimizer": AdamW(lr=2.5e-4, weight_decay=0.01),
        "schedule": Cosine(warmup=Quantity(2000, "steps"), final=0.0),
        "batch": Quantity(64, "windows"),
        "length": Quantity(100, "epochs"),
    }


def gpt1_fine_tuning(form: object) -> dict[str, Any]:
    """Radford et al. 2018, section 4.1, "Fine-tuning details", and equation 5.

    Rate 6.25e-5, warmed up over 0.2 % of training and then linear to 0; 3 epochs of 32 rows a step; dropout
    0.1 before the task's linear layer; the language model's loss beside the task's with weight 0.5. Decay
    as in pre-training (the released code). `form` is the kind of the rows' format.
    """
    filled: dict[str, Any] = {
        "optimizer": AdamW(lr=6.25e-5, weight_decay=0.01),
        "schedule": FINE_TUNING,
        "batch": Quantity(32, "rows"),
        "length": Quantity(3, "epochs"),
    }
    auxiliary = CausalLMConfig(weight=0.5)
    if form in ("single", "pair"):
        filled["objectives"] = [ClassificationConfig(dropout=0.1), auxiliary]
    elif form == "multiple_choice":
        filled["objectives"] = [MultipleChoiceConfig(dropout=0.1), auxiliary]
    return filled


def _of(part: object, key: str) -> Any:
    """What a mapping or a config says under `key`."""
    return part.get(key) if isinstance(part, dict) else getattr(part, key, None)
