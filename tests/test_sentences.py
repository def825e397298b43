"""Sentences: tricky ends in English and Chinese, written out, and real text that comes back whole."""

from __future__ import annotations

import pytest

from gradus.data.sentences import SentenceSource, split_sentences
from gradus.data.text import Document, TextSource

CASES = {
    "titles and initials": [
        "Mr. Smith met Dr. J. K. Jones at 3.14 p.m. today.", "He left!", "Mrs. A. went on."],
    "a quote that goes on": ['"Stop!" he said.', '"Why?"', "She wept.", "“No!” cried he.", "“Yes.”", "So?"],
    "numbers": ["No. 5 costs $3.50 in version 2.0.1.", "I said no.", "Then I left."],
    "names": ["See www.example.com or a.b for it.", "U.S. forces left.", "He works at Smith & Co. in York."],
    "brackets": ["We went (as ever.)", "(He knew.)", "So did I [it was late].", "End."],
    "dots": ["Well... perhaps.", "Well... Perhaps."],
    "several marks": ["What?!", "No!!", "Yes."],
    "Latin abbreviations": ["Fruit, e.g. apples, i.e. food, etc. are cheap.", "Cf. Fig. 3 vs. Table 2."],
    "Chinese": ["他走了。", "真的吗？", "是的！", "好。"],
    "Chinese quotes": ["他说：“你好吗？”", "她笑了。", "“走吧！”，他说。", "「好。」", "他说：『对。』"],
    "quote in a quote": ["他说：“她说‘走吧。’”", "我走了。"],
    "Chinese dots": ["真的……", "我不知道……", "（也许吧。）", "完了。"],
    "half-wide marks in Chinese": ["真的吗?", "是的!", "价格是3.5元。", "好"],
    "two scripts": ["版本2.0发布。", "We like it.", "我们喜欢。"],
}  # fmt: skip


def joined(sentences: list[str]) -> str:
    """Chinese sentences follow each other directly, others after a space."""
    text = ""
    for sentence in sentences:
        text += (" " if text and text[-1].isascii() or sentence[0].isascii() else "") + sentence
    return text.strip()


@pytest.mark.parametrize("name", list(CASES))
def test_tricky_ends(name: str) -> None:
    wanted = CASES[name]
    if name == "dots":
        assert split_sentences("Well... perhaps. Well... Perhaps.") == [
            "Well... perhaps.", "Well...", "Perhaps."]  # fmt: skip
        return
    assert split_sentences(joined(wanted)) == wanted


def test_line_ends() -> None:
    """English is wrapped by hand; a line of Chinese is a paragraph; a blank line ends a sentence in both."""
    assert split_sentences("It was the best\nof times. It was\r\nthe worst.".replace("\r", "")) == [
        "It was the best of times.", "It was the worst."]  # fmt: skip
    assert split_sentences("CHAPTER I\n\n  \nThen he came") == ["CHAPTER I", "Then he came"]
    assert split_sentences("第一回 宴桃园\n话说天下大势，分久必合。周末七国分争") == [
        "第一回 宴桃园", "话说天下大势，分久必合。", "周末七国分争"]  # fmt: skip
    assert split_sentences("the film was lovely .\na sailor sees it .\n") == [
        "the film was lovely .", "a sailor sees it ."]  # fmt: skip


def test_sentences_can_be_joined_again() -> None:
    texts = ["He left. “No!” Then\nI left.", "他走了。我没走。OK. 好。"]
    documents = [Document(text, "f", 1) for text in texts]
    source = SentenceSource(TextSource([], lambda: "digest", lambda: iter(documents)), lines=False)
    assert [one.text for one in source.documents()] == [
        "He left.", " “No!”", " Then I left.", "他走了。", "我没走。", "OK.", "好。"]  # fmt: skip
    assert source.counts().tolist() == [3, 4]
    lines = SentenceSource(TextSource([], lambda: "digest", lambda: iter(documents)), lines=True)
    assert lines.counts().tolist() == [2, 1] and lines.digest != source.digest


def test_nothing_is_lost_and_nothing_blank_is_found() -> None:
    assert split_sentences("") == split_sentences(" \n\n \n") == []
    odd = "...!?。。。\n\n“”’」 a.b.c. ...x 。” Mr. \n"
    found = split_sentences(odd)
    assert all(sentence.strip() == sentence and sentence for sentence in found)
    assert "".join("".join(found).split()) == "".join(odd.split())
