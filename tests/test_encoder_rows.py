"""What encoders read: rows with special tokens as BERT and RoBERTa have them, windows of text, and where
words begin in every kind of vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tokenizers
from test_evaluation import Memory
from tokenizers import decoders, models, pre_tokenizers

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.data.encoding import RowEncoder
from gradus.data.formats import MultipleChoice, Pair, Similarity, Single
from gradus.data.frame import Frame
from gradus.data.readers import Row
from gradus.data.sources import FramedWindows
from gradus.families import preset
from gradus.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer

CLS, SEP, END = 1, 2, 3
PAIR = Pair(first="first", second="second")
CHOICE = MultipleChoice(context="text", question="ask", answers=["a", "b"])


class Letters:
    """A tokenizer of one token a character, Chinese ones too."""

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array([ord(letter) for letter in text], np.int32) for text in texts]

    def role(self, name: str) -> int:
        return {"start": CLS, "delimiter": SEP, "end": END}[name]


def config(**changes: Any) -> ModelConfig:
    return ModelConfig(**{"arrangement": "encoder", "segments": 2, "context": 24, **changes})


def encoded(form: Any, context: int = 24, changes: dict[str, Any] | None = None, **fields: str) -> list[str]:
    """Each sequence as text, and under it the segments: "[早|好]" is start, delimiter, end."""
    frame = Frame.of(config(**changes or {}))
    example = RowEncoder(form, Letters(), context, None, frame=frame).encode([Row(0, fields, "f", 1)])[0]
    shown = {CLS: "[", SEP: "|", END: "]"}
    lines = ["".join(shown.get(token, chr(token)) for token in one.tolist()) for one in example.sequences]
    parts = ["".join(map(str, one.tolist())) for one in example.segments]
    assert not parts or [len(line) for line in lines] == [len(part) for part in parts]
    assert all(part.dtype == np.int64 for part in example.segments)
    return lines + parts


def test_a_text_stands_between_start_and_end() -> None:
    assert encoded(Single(text="text"), text="早上好") == ["[早上好]", "00000"]
    assert encoded(Single(text="text"), changes={"segments": 0}, text="hey") == ["[hey]"]


def test_the_first_text_and_its_delimiter_are_segment_0() -> None:
    assert encoded(PAIR, first="你好", second="abc") == ["[你好|abc]", "00001111"]


def test_both_orders_of_a_similarity_and_all_answers() -> None:
    both = encoded(Similarity(first="first", second="second"), first="ab", second="好")
    assert both == ["[ab|好]", "[好|ab]", "000011", "000111"]
    answers = encoded(CHOICE, text="他来", ask="谁", a="我", b="他们")
    assert answers == ["[他来谁|我]", "[他来谁|他们]", "0000011", "00000111"]


@pytest.mark.parametrize("name", ["roberta", "bart-base"])
def test_two_delimiters_where_the_family_has_them(name: str) -> None:
    changes = {"delimiters": preset(name)["delimiters"], "segments": 0}
    assert encoded(PAIR, changes=changes, first="你好", second="abc") == ["[你好||abc]"]


@pytest.mark.parametrize("delimiters", [1, 2])
@pytest.mark.parametrize("form", [PAIR, PAIR.model_copy(update={"cut": "half"})])
def test_what_is_cut_is_text(form: Pair, delimiters: int) -> None:
    for context in (8, 9, 16):
        line = encoded(
            form, context, {"delimiters": delimiters}, first="abcdefgh", second="一二三四五六七八"
        )[0]
        assert len(line) <= context and line[0] == "[" and line[-1] == "]"
        assert line.count("|") == delimiters


def test_decoders_read_what_they_read_before() -> None:
    class GPT(Letters):
        def role(self, name: str) -> int:
            return {"start": 4, "delimiter": 5, "extract": 6}[name]

    row = Row(0, {"first": "a", "second": "b"}, "f", 1)
    example = RowEncoder(PAIR, GPT(), 24, None, frame=Frame.of(ModelConfig())).encode([row])[0]
    assert example.sequences[0].tolist() == [4, ord("a"), 5, ord("b"), 6] and example.segments == ()


def test_templates_say_the_same_to_other_tools() -> None:
    assert Frame.of(config()).template(True) == (
        ["start", "$A", "end"], ["start", "$A", "delimiter", "$B:1", "end:1"],
    )  # fmt: skip
    assert Frame.of(config(delimiters=2, segments=0)).template(True)[1] == [
        "start", "$A", "delimiter", "delimiter", "$B", "end",
    ]  # fmt: skip
    assert Frame.of(ModelConfig()).template(True)[1] == ["start", "$A", "delimiter", "$B", "extract"]


@pytest.mark.parametrize("across", ["contiguous", "document"])
def test_windows_of_an_encoder_hold_every_token_once(across: Any) -> None:
    tokens = np.arange(10, 57)
    borders = [0, 20, 21, 47]  # the second document is empty
    tokens[[19, 20, 46]] = END
    windows = FramedWindows(Memory(tokens, borders), 8, (CLS, END), across)
    read: list[int] = []
    for index in range(len(windows)):
        example = windows.example(index)
        ids = example.sequences[0].tolist()
        assert ids[0] == CLS and ids[-1] == END and len(ids) <= 8 and example.following is None
        assert across == "contiguous" or END not in ids[1:-1]
        read += ids[1:-1]
    wanted = tokens[:-1] if across == "contiguous" else tokens[tokens != END]
    assert read == wanted.tolist()
    assert windows.tokens == len(read) + 2 * len(windows) and windows.longest == 8
    with pytest.raises(UserError, match="holds nothing but"):
        FramedWindows(Memory(tokens, borders), 2, (CLS, END))


BEGINS, ENDS = 1, 2


def flags(tokenizer: Tokenizer) -> np.ndarray:
    edges = tokenizer.word_edges
    return BEGINS * edges.begins + ENDS * edges.ends


def words(tokenizer: Tokenizer, text: str) -> list[str]:
    """The text cut where words have borders."""
    edges = tokenizer.word_edges
    (ids,) = tokenizer.encode([text])
    found: list[list[int]] = []
    ended = True
    for token in ids.tolist():
        if ended or edges.begins[token]:
            found.append([])
        found[-1].append(token)
        ended = bool(edges.ends[token])
    return [tokenizer.decode(word).strip() for word in found]


MIXED = "I use Python3, 我用编程语言! don't"
CUT = ["I", "use", "Python3", ",", "我", "用", "编", "程", "语", "言", "!", "don", "'", "t"]


def test_words_of_single_characters() -> None:
    tokenizer = CharacterTokenizer().build([MIXED])
    assert [word for word in words(tokenizer, MIXED) if word] == CUT


@pytest.mark.parametrize("size", [263, 300])
def test_words_of_bytes(size: int) -> None:
    """Characters cut into bytes stay whole; a token of several Chinese characters is one word."""
    texts = ["I use Python3, don't use it! I use Python3."] * 5 + ["汉字汉字汉字"] * 5
    tokenizer = BytePairTokenizer(vocab_size=size).build(texts)
    found = words(tokenizer, "I use Python3, do! 编程")
    assert [word for word in found if word] == ["I", "use", "Python3", ",", "do", "!", "编", "程"]


def test_words_of_pieces() -> None:
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "un": 2, "##aff": 3, "##able": 4, "我": 5, "们": 6, "!": 7}
    inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    tokenizer = Tokenizer(inner, {"unknown": "[UNK]", "start": "[CLS]"})
    cut = words(Tokenizer(inner, tokenizer.roles), "unaffable! un")
    assert cut == ["unaffable", "!", "un"]
    assert flags(tokenizer)[[0, 1]].tolist() == [BEGINS | ENDS] * 2


def test_words_of_a_unigram_vocabulary_and_of_gpt_1() -> None:
    texts = ("<unk>", "▁play", "ing", "▁the", "我", "们", ".", "▁")
    pieces = [(text, -float(place)) for place, text in enumerate(texts)]
    inner = tokenizers.Tokenizer(models.Unigram(pieces, 0))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    edges = flags(Tokenizer(inner, {"unknown": "<unk>"}))
    assert edges[1:].tolist() == [BEGINS, 0, BEGINS, 3, 3, 3, 3]
    vocabulary = {"<unk>": 0, "play": 1, "ing</w>": 2, "the</w>": 3}
    inner = tokenizers.Tokenizer(models.BPE(vocabulary, [], end_of_word_suffix="</w>", unk_token="<unk>"))
    assert flags(Tokenizer(inner, {"unknown": "<unk>"})).tolist() == [3, 0, ENDS, ENDS]
