"""Worked examples of augmentation, printed by the code itself: rows as they stand and as epochs read them.

`python -m gradus.pipeline.worked.augmentation` writes the blocks of docs/augmentation.md anew; a test tells
when it must be.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from gradus.core.duration import Quantity
from gradus.core.model import ModelConfig
from gradus.data.augmentation import (
    Augment,
    Deletion,
    Insertion,
    Masking,
    Mixing,
    Replacement,
    Swap,
)
from gradus.data.augmented import AugmentedRows, Changes, shown
from gradus.data.formats import Single
from gradus.data.labels import Labels
from gradus.data.readers import Row
from gradus.data.sources import Rows
from gradus.data.synonyms import read_synonyms
from gradus.data.text_to_text import row_encoder
from gradus.objectives import ClassificationConfig, Task
from gradus.pipeline.worked.objectives import Words, rewritten

FILE = Path("docs/augmentation.md")
EPOCHS = 3
TABLE = "film\tmovie\tpicture\nlong\tlengthy\n电影\t影片\n好看\t精彩\t好瞧\n"
ROWS = [
    Row(0, {"text": "a gorgeous , witty film , though somewhat long", "label": "1"}, "rows", 1),
    Row(1, {"text": "这部电影很好看，就是有一点长，我用手机看了两遍", "label": "1"}, "rows", 2),
    Row(2, {"text": "dull and far too loud", "label": "0"}, "rows", 3),
]


def read(*changes: Augment) -> AugmentedRows:
    """`ROWS` as the list changes them."""
    form, words = Single(text="text", label="label"), Words()
    encoder = row_encoder(form, words, ModelConfig(vocab_size=1000), Labels(("0", "1")), "error")
    plain = Rows(encoder.encode(ROWS), [f"{row.file}:{row.line}" for row in ROWS])
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "synonyms.tsv"
        table.write_text(TABLE, encoding="utf-8")
        synonyms = {place: read_synonyms(table, "file") for place, one in enumerate(changes)
                    if getattr(one, "file", None)}  # fmt: skip
    return AugmentedRows(ROWS, plain, encoder, Changes(changes, 1, synonyms, {}))


def of_words(*kinds: Augment) -> str:
    """A row of each language as the first epochs read it."""
    source = read(*(kind.model_copy(update={"rows": Quantity(100, "%")}) for kind in kinds))
    lines = []
    for row in (0, 1):
        lines.append(f"         {ROWS[row].fields['text']}")
        for epoch in range(EPOCHS):
            text = source.texts(row, epoch).get("text", ROWS[row].fields["text"])
            lines.append(f"epoch {epoch}  {shown(text)}")
    return "\n".join(lines)


def of_mixture() -> str:
    """What the row of three epochs is mixed with, and what is wanted."""
    source = read(Mixing(alpha=1.0))
    objective = ClassificationConfig().build(Task(ModelConfig(vocab_size=1000), "worked", ("0", "1")))
    lines = []
    for epoch in range(EPOCHS):
        row, (other, share) = source.example(0, epoch), source.partner(0, epoch) or (0, 0.0)
        wanted = objective.targets(row)
        classes = " and ".join(
            f"{weight:.2f} x class {value}" for value, weight in zip(wanted.value, wanted.weight)
        )
        state = f"{1 - share:.2f} x row 1 and {share:.2f} x row {other + 1}"
        lines.append(f"epoch {epoch}  state: {state}   wanted: {classes}")
    return "\n".join(lines)


WORKED: dict[str, Callable[[], str]] = {
    "deletion": lambda: of_words(Deletion(share="20 %")),
    "deletion, jieba": lambda: of_words(Deletion(share="20 %", words="jieba")),
    "swap": lambda: of_words(Swap()),
    "insertion": lambda: of_words(Insertion(file="synonyms.tsv")),
    "insertion, of train": lambda: of_words(Insertion()),
    "synonyms": lambda: of_words(Replacement(file="synonyms.tsv")),
    "masking": lambda: of_words(Masking(share="20 %")),
    "several": lambda: of_words(Replacement(file="synonyms.tsv"), Swap(), Deletion()),
    "mix": of_mixture,
}
"""What is printed, by the name in the document's comment."""

if __name__ == "__main__":
    FILE.write_text(rewritten(FILE.read_text(encoding="utf-8"), WORKED), encoding="utf-8")
    print(FILE)
