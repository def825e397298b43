"""Files as users have them: tables and books in two languages, and the recipes `init` makes of them."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import yaml

from gradus.pipeline.check import Checks, check

ENGLISH = [f'the {thing}, said "{who}", was {how} number {number}' for number in range(12)
           for thing, who, how in (("film", "Ann", "good"), ("book", "Bob", "bad"))]  # fmt: skip
CHINESE = [f"第{number}次看这{thing}，他说：“{how}”。" for number in range(12)
           for thing, how in (("部电影", "很好"), ("本小说", "很差"))]  # fmt: skip
TEXTS = [text for pair in zip(ENGLISH, CHINESE) for text in pair]
LABELS = ["good", "good", "bad", "bad"] * 12


def table(separator: str, quoted: bool, columns: dict[str, list[str]], header: bool) -> str:
    rows = ([list(columns)] if header else []) + [list(row) for row in zip(*columns.values())]
    if not quoted:
        return "".join(separator.join(row) + "\n" for row in rows)
    out = io.StringIO()
    csv.writer(out, delimiter=separator, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(rows)
    return out.getvalue()


def write(path: str, text: str, encoding: str = "utf-8") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def recipe_of(directory: str) -> dict[str, Any]:
    return yaml.safe_load((Path(directory) / "recipe.yaml").read_text(encoding="utf-8"))


def checked(directory: str) -> Checks:
    return check(Path(directory) / "recipe.yaml", runs=Path("runs"), device="cpu")


def novel(lines: int = 300) -> str:
    return "".join(f"第{at}行 {TEXTS[at % len(TEXTS)]}\n" + "\n" * (at % 3 == 0) for at in range(lines))


def rows_file(name: str = "data/reviews.csv") -> str:
    write(name, table(",", True, {"text": TEXTS, "label": LABELS}, True))
    return name
