"""Law 8 for decoders: a family's folders open in transformers and theirs open here, with the same logits,
loss, classes and greedy answers; every preset is as large as their class of that shape.

A family joins with a row in `ROWS`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gradus.core.example import ragged
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.evaluation.generate import generate
from gradus.evaluation.sampling import Sampling
from gradus.families import FAMILIES, preset
from gradus.families.folder import ModelFolder, read_folder, shapes, write_folder
from gradus.families.heads import Task
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer, count_parameters

transformers = pytest.importorskip("transformers")

LABELS = ["差评", "中立", "好评"]
PAD, END = 0, 7
IDS = {"pad_token_id": PAD, "eos_token_id": END, "bos_token_id": END}
SHAPE: dict[str, Any] = {"layers": 3, "width": 32, "heads": 4, "context": 40, "vocab_size": 61}


@dataclass(frozen=True)
class Row:
    """A family: a preset of ours, with `ours` changed, and the class of theirs that `theirs` configures."""

    preset: str
    config: str
    theirs: dict[str, Any]
    ours: dict[str, Any] = field(default_factory=dict)

    @property
    def family(self) -> str:
        return str(preset(self.preset)["family"])

    def own(self, **changes: Any) -> ModelConfig:
        fields = preset(self.preset) | SHAPE | self.ours | changes
        return ModelConfig.model_validate(fields)

    def made(self, kind: str, **changes: Any) -> Any:
        """A random model of theirs; gains and biases are random, too."""
        config = getattr(transformers, self.config)(**self.theirs, **changes)
        model = getattr(transformers, kind)(config)
        torch.manual_seed(3)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.normal_(1.0 if parameter.dim() == 1 and "weight" in name else 0.0, 0.15)
        return model.eval()


GPT2 = {"vocab_size": 61, "n_positions": 40, "n_embd": 32, "n_layer": 3, "n_head": 4} | IDS
LLAMA = {
    "vocab_size": 61, "max_position_embeddings": 40, "hidden_size": 32, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48,
} | IDS  # fmt: skip
ROWS = {
    "gpt2": Row("gpt2-mini", "GPT2Config", GPT2, {"activation": "gelu_tanh"}),
    "gpt2 relu": Row(
        "gpt2-mini", "GPT2Config",
        GPT2 | {"activation_function": "relu", "n_inner": 40}
        | {"layer_norm_epsilon": 1e-3, "scale_attn_weights": False},
        {"activation": "relu", "feed_forward": 40, "norm_epsilon": 1e-3, "attention_scale": False},
    ),
    "gpt2 untied": Row(
        "gpt2-mini", "GPT2Config", GPT2 | {"tie_word_embeddings": False, "activation_function": "gelu"},
        {"activation": "gelu", "tie_embeddings": False},
    ),
    "llama": Row("llama-mini", "LlamaConfig", LLAMA, {"feed_forward": 48, "tie_embeddings": False}),
    "llama tied": Row(
        "llama-mini", "LlamaConfig",
        LLAMA | {
            "tie_word_embeddings": True, "num_key_value_heads": 4, "head_dim": 12,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        },
        {"feed_forward": 48, "kv_heads": None, "head_width": 12, "rotary_base": 500.0},
    ),
}  # fmt: skip
LANGUAGE_MODEL = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}
CLASSIFIER = {"gpt2": "GPT2ForSequenceClassification", "llama": "LlamaForSequenceClassification"}
BARE = {"gpt2": "GPT2Model", "llama": "LlamaModel"}
HEADED = [name for name, row in ROWS.items() if row.family != "gpt2" or row.own().tie_embeddings]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random_of(config: ModelConfig, deviation: float = 0.15, classes: int = 0) -> dict[str, Tensor]:
    """Random tensors of ours, by name, and with `classes` those of a head."""
    wanted = shapes(config) | ({"heads.sst.score.weight": (classes, config.width)} if classes else {})
    random, tensors = torch.Generator().manual_seed(5), {}
    for name, shape in wanted.items():
        centre = 1.0 if "norm.weight" in name else 0.0
        tensors[name] = torch.empty(shape).normal_(centre, deviation, generator=random)
    return tensors


def write(
    path: Path,
    config: ModelConfig,
    tensors: dict[str, Tensor],
    task: Task | None = None,
    labels: list[str] | None = None,
) -> None:
    card = {"format_version": 1, "heads": {"sst": {}} if task else {}}
    with new_folder(path) as folder:
        write_folder(
            folder, config, tensors, card, lambda path: None,
            labels=labels, task=task, roles={"pad": PAD, "end": END},
        )  # fmt: skip


def build(folder: ModelFolder) -> Transformer:
    built = Transformer(folder.config).eval()
    built.load_state_dict({name: part for name, part in folder.tensors.items() if name[:5] != "heads"})
    return built


def opened(path: Path, kind: str) -> Any:
    """Their model of a folder; nothing may be missing, unexpected or misshapen."""
    model, report = getattr(transformers, kind).from_pretrained(path, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def rows() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(8, SHAPE["vocab_size"], length) for length in (9, 40, 1, 23)]


def agree(ours: Transformer, theirs: Any) -> None:
    """Logits and loss of a language model, to 1e-5 of fp32."""
    for row in rows():
        tokens = torch.from_numpy(row)
        with torch.no_grad():
            answer = theirs(tokens[None], labels=tokens[None])
            states = ours(ragged([row]))[: len(row)]
            assert (ours.logits(states) - answer.logits[0]).abs().max() < 1e-5
            if len(row) > 1:
                total = ours.token_loss(states[:-1], tokens[1:], torch.ones(len(row) - 1))
                assert float(total) / (len(row) - 1) == pytest.approx(answer.loss.item(), abs=1e-5)


@pytest.mark.parametrize("name", list(ROWS))
def test_their_language_model_opens_here_and_goes_back_with_the_same_bits(tmp_path: Path, name: str) -> None:
    row = ROWS[name]
    theirs = row.made(LANGUAGE_MODEL[row.family])
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    folder = read_folder(tmp_path / "theirs")
    assert folder.config == row.own(**unsaid(row, folder.config)) and folder.task is None
    agree(build(folder), theirs)
    write(tmp_path / "ours", folder.config, folder.tensors)
    back = opened(tmp_path / "ours", LANGUAGE_MODEL[row.family])
    bits = theirs.state_dict()
    assert bits.keys() == back.state_dict().keys()
    assert all(torch.equal(part, bits[key]) for key, part in back.state_dict().items())
    assert back.config.to_diff_dict().keys() >= theirs.config.to_diff_dict().keys() - {"head_dim"}


def unsaid(row: Row, found: ModelConfig) -> dict[str, Any]:
    """What a config.json of theirs does not say, or leaves as its class has it."""
    names = ("initialisation", "dropout", "norm_epsilon", "initial_deviation")
    return {name: getattr(found, name) for name in names}


@pytest.mark.parametrize("name", list(ROWS))
def test_our_language_model_opens_there(tmp_path: Path, name: str) -> None:
    config = ROWS[name].own(norm_epsilon=1e-3, dropout=0.25, attention_dropout=0.5)
    assert FAMILIES[config.family].expressible(config) is None
    tensors = random_of(config)
    write(tmp_path / "model", config, tensors)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    assert type(theirs) is type(opened(tmp_path / "model", LANGUAGE_MODEL[config.family]))
    assert (theirs.config.pad_token_id, theirs.config.eos_token_id) == (PAD, END)
    folder = read_folder(tmp_path / "model")
    assert folder.config == config and folder.tensors.keys() == tensors.keys()
    assert all(torch.equal(folder.tensors[key], part) for key, part in tensors.items())
    agree(build(folder), theirs)


@pytest.mark.parametrize("name", list(ROWS))
def test_a_body_without_a_head_opens_here(tmp_path: Path, name: str) -> None:
    row = ROWS[name]
    theirs = row.made(BARE[row.family])
    theirs.save_pretrained(tmp_path / "theirs")
    folder = read_folder(tmp_path / "theirs")
    assert folder.config.tie_embeddings and folder.dropped == ()
    with torch.no_grad():
        expected = theirs(torch.from_numpy(rows()[0])[None]).last_hidden_state[0]
        assert (build(folder)(ragged([rows()[0]]))[:9] - expected).abs().max() < 1e-5


@pytest.mark.parametrize("task", ["classes", "number"])
@pytest.mark.parametrize("name", HEADED)
def test_classifiers_both_ways(tmp_path: Path, name: str, task: Task) -> None:
    row, names = ROWS[name], LABELS if task == "classes" else ["LABEL_0"]
    kind, labels = CLASSIFIER[row.family], LABELS if task == "classes" else None
    theirs = row.made(
        kind, id2label=dict(enumerate(names)), label2id={key: at for at, key in enumerate(names)}
    )
    theirs.save_pretrained(tmp_path / "theirs")
    config = row.own(tie_embeddings=True)
    write(tmp_path / "ours", config, random_of(config, classes=len(names)), task, labels)
    answers = {"theirs": theirs, "ours": opened(tmp_path / "ours", kind)}
    padded = torch.full((4, 40), PAD)
    for place, tokens in enumerate(rows()):
        padded[place, : len(tokens)] = torch.from_numpy(tokens)
    right = torch.tensor([0, 2, 1, 1]) if labels else torch.tensor([0.5, -1.0, 2.0, 0.0])
    source = ragged(rows())
    for place, model in answers.items():
        folder = read_folder(tmp_path / place)
        assert folder.task == task and folder.labels == labels
        head = next(part for key, part in folder.tensors.items() if key.endswith("score.weight"))
        with torch.no_grad():
            answer = model(padded, attention_mask=(padded != PAD).long(), labels=right)
            logits = build(folder)(source)[torch.from_numpy(source.offsets[1:] - 1)] @ head.t()
        assert (logits - answer.logits).abs().max() < 1e-5
        if labels:
            total = cross_entropy_sum(logits, right, torch.ones(4))
            assert float(total) / 4 == pytest.approx(answer.loss.item(), abs=1e-5)
        write(tmp_path / f"{place} back", folder.config, folder.tensors, task, labels)
        bits = model.state_dict()
        for key, part in opened(tmp_path / f"{place} back", kind).state_dict().items():
            assert torch.equal(part, bits[key])


def test_choices_of_a_gpt2_both_ways(tmp_path: Path) -> None:
    row = ROWS["gpt2"]
    theirs = row.made("GPT2DoubleHeadsModel", num_labels=1)
    theirs.save_pretrained(tmp_path / "theirs")
    folder = read_folder(tmp_path / "theirs")
    assert folder.task == "choices"
    write(tmp_path / "back", folder.config, folder.tensors, "choices")
    tokens = torch.from_numpy(rows()[1]).view(1, 2, 20)
    last = torch.tensor([[19, 11]])
    with torch.no_grad():
        answer = theirs(tokens, mc_token_ids=last)
        states = build(folder)(ragged(list(tokens[0].numpy())))
        head = {key.split(".", 2)[2]: part for key, part in folder.tensors.items() if key[:5] == "heads"}
        found = states[torch.tensor([19, 20 + 11])] @ head["score.weight"].t() + head["score.bias"]
    assert (found[:, 0] - answer.mc_logits[0]).abs().max() < 1e-5
    back = opened(tmp_path / "back", "GPT2DoubleHeadsModel").state_dict()
    assert all(torch.equal(part, back[key]) for key, part in theirs.state_dict().items())


def test_an_untied_llama_keeps_its_output_beside_a_head(tmp_path: Path) -> None:
    """Their classifier has no output embedding and leaves ours alone; nothing is lost on the way back."""
    config = ROWS["llama"].own()
    tensors = random_of(config, classes=3)
    write(tmp_path / "model", config, tensors, "classes", LABELS)
    kind = transformers.LlamaForSequenceClassification
    report = kind.from_pretrained(tmp_path / "model", output_loading_info=True)[1]
    assert set(report["unexpected_keys"]) == {"lm_head.weight"} and not report["missing_keys"]
    folder = read_folder(tmp_path / "model")
    assert folder.config == config and torch.equal(
        folder.tensors["unembedding.weight"], tensors["unembedding.weight"]
    )


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("name", list(ROWS))
def test_greedy_and_beam_answers_are_the_same(tmp_path: Path, name: str, beams: int) -> None:
    row = ROWS[name]
    config = row.own()
    write(tmp_path / "model", config, random_of(config, 0.5))
    theirs, ours = (
        opened(tmp_path / "model", LANGUAGE_MODEL[row.family]),
        build(read_folder(tmp_path / "model")),
    )
    said = set()
    for prompt in ([1], [5, 6, 9], [20, 3, 20, 3, 44], list(range(12))):
        ids = torch.tensor([prompt])
        options = {"max_new_tokens": 16, "do_sample": False, "num_beams": beams, "early_stopping": False}
        options["attention_mask"] = torch.ones_like(ids)
        wanted = theirs.generate(ids, **options)[0, len(prompt) :].tolist()
        wanted = wanted[: wanted.index(END)] if END in wanted else wanted
        sampling = Sampling(tokens=16, beams=beams, temperature=0.0 if beams == 1 else 1.0)
        assert generate(ours, prompt, sampling, END) == wanted
        said |= set(wanted)
    assert len(said) > 5


# Brown et al. 2020, table 2.1: parameters in millions. Its XL has 24 heads of 128, where 16 make the table's
# number; its 13B is 5140 wide with 40 heads of 128 = 5120, and we keep that.
GPT3 = {
    "gpt3-small": 125, "gpt3-medium": 350, "gpt3-large": 760, "gpt3-xl": 1300, "gpt3-2.7b": 2700,
    "gpt3-6.7b": 6700, "gpt3-13b": 13000, "gpt3-175b": 175000,
}  # fmt: skip
# Counted from the released weights; GPT-2's paper says 117M, 345M, 762M and 1542M.
RELEASED = {
    "gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200,
    "llama-2-7b": 6_738_415_616, "llama-3.2-1b": 1_235_814_400,
}  # fmt: skip
VOCABULARY = {"llama-2-7b": 32_000, "llama-3.2-1b": 128_256}
PRESETS = [name for row in ("gpt2", "llama") for name in FAMILIES[row].PRESETS]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_as_large_as_their_class_or_the_paper(name: str) -> None:
    config = ModelConfig.model_validate(preset(name) | {"vocab_size": VOCABULARY.get(name, 50_257)})
    family, count = FAMILIES[config.family], count_parameters(config)
    if name in GPT3:
        assert count / 1e6 == pytest.approx(GPT3[name], rel=0.03)
        if name == "gpt3-13b":
            assert "heads of width / heads" in str(family.expressible(config))
            return
        assert "banded layers" in str(family.expressible(config))
        config = config.model_copy(update={"window": None})
    assert count == RELEASED.get(name, count) and family.expressible(config) is None
    content = family.to_config_json(config, None, None)
    with torch.device("meta"):
        theirs = getattr(transformers, content["architectures"][0])(
            transformers.AutoConfig.for_model(**content)
        )
    assert sum(parameter.numel() for parameter in theirs.parameters()) == count


def test_a_banded_model_keeps_our_own_form(tmp_path: Path) -> None:
    config = ROWS["gpt2"].own(window=5)
    write(tmp_path / "model", config, random_of(config))
    content = json.loads((tmp_path / "model/config.json").read_text("utf-8"))
    assert content["model_type"] == "gradus" and read_folder(tmp_path / "model").config == config
