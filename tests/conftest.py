"""What tests share: few threads, no network, and the law tests' toy."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import pytest
import torch

torch.set_num_threads(min(2, os.cpu_count() or 1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The number of tests that did not run, and why, so that no skip hides."""
    skipped = terminalreporter.stats.get("skipped", [])
    deselected = terminalreporter.stats.get("deselected", [])
    terminalreporter.write_line(f"skipped: {len(skipped)}, deselected by marker: {len(deselected)}")
    for report in skipped:
        terminalreporter.write_line(f"  {report.nodeid}: {report.longrepr[2]}")
