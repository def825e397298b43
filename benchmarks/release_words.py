"""How often the two ways to find words give GPT-1 other tokens: Hugging Face's simple one, and the release's.

    pip install "gradus-lm[release]"
    python benchmarks/release_words.py VOCABULARY FILE ...    # the folder with the merges, and text files

A line is one text; of a line of a TSV file the first column alone. Lines of white space are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from gradus.tokenizers import GPT1Tokenizer
from gradus.tokenizers.standard import versions


def texts(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8-sig").split("\n")
    if file.suffix == ".tsv":
        lines = [line.split("\t")[0] for line in lines]
    return [line for line in lines if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("vocabulary")
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    simple = GPT1Tokenizer(path=given.vocabulary).build()
    release = GPT1Tokenizer(path=given.vocabulary, pre_tokenization="release").build()
    lines = [text for file in sorted(given.files) for text in texts(file)]
    ours, theirs = simple.encode(lines), release.encode(lines)
    differ = sum(one.tolist() != other.tolist() for one, other in zip(ours, theirs))
    tokens = [sum(map(len, found)) for found in (ours, theirs)]
    unknown = [sum(int((one == 0).sum()) for one in found) for found in (ours, theirs)]
    named = ", ".join(f"{name} {number}" for name, number in versions().items())
    print(f"{differ} of {len(lines)} lines differ ({differ / len(lines):.1%}); {named}")
    print(f"tokens: {tokens[0]} simple, {tokens[1]} release; unknown: {unknown[0]}, {unknown[1]}")


if __name__ == "__main__":
    main()
