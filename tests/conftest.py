"""What tests share: one thread, no network, and folders that are made once for all."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import pytest
import torch

if TYPE_CHECKING:
    from gradus.tokenizers import Tokenizer

# Models this small gain nothing from a second thread, and lose much where the machine is busy.
torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The number of tests that did not run, and why, so that no skip hides."""
    skipped = terminalreporter.stats.get("skipped", [])
    deselected = terminalreporter.stats.get("deselected", [])
    terminalreporter.write_line(f"skipped: {len(skipped)}, deselected by marker: {len(deselected)}")
    for report in skipped:
        terminalreporter.write_line(f"  {report.nodeid}: {report.longrepr[2]}")


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working folder of the test's own, and no public data."""
    monkeypatch.delenv("GRADUS_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A byte-level tokenizer of the texts that the small models were made for."""
    from small_models import TEXTS

    from gradus.tokenizers import BytePairTokenizer

    return BytePairTokenizer(vocab_size=330).build(iter(TEXTS * 5))


@pytest.fixture(scope="session")
def language(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """The model folder of a language model."""
    from small_models import written

    return written(tmp_path_factory.mktemp("language") / "model", tokenizer, None)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """The model folder of a classifier of single texts that is a language model too."""
    from small_models import SINGLE, written

    return written(tmp_path_factory.mktemp("classifier") / "model", tokenizer, SINGLE)


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer) -> Path:
    """The model folder of a classifier of pairs."""
    from small_models import PAIR, written

    return written(tmp_path_factory.mktemp("pairs") / "model", tokenizer, PAIR, auxiliary=False)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up finished run, to read and to report."""
    from made_up_run import make_run

    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")


@pytest.fixture
def run_to_change(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("report.html")))


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """A command -> its status and what it says, mistakes first, in one line."""

    def call(*words: object) -> tuple[int, str]:
        from gradus.cli import main

        monkeypatch.setattr(sys, "argv", ["gradus", *map(str, words)])
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        said = capsys.readouterr()
        return status, " ".join((said.err + said.out).split())

    return call
