"""Floor 4: tables and figures of a run, drawn from its folder alone.

`load_run` reads the folder, `tables` compares its variants, `write_report` draws the page, `print_table`
prints, `export` keeps the small file that documents are drawn from and `results_markdown` draws them.
"""

from gradus.report.headline import headline
from gradus.report.loops import loop_grids
from gradus.report.page import write_report
from gradus.report.printed import export, print_grids, print_table, results_markdown
from gradus.report.records import Run, load_run
from gradus.report.summary import tables

__all__ = ["Run", "export", "headline", "load_run", "loop_grids", "print_grids", "print_table",
           "results_markdown", "tables", "write_report"]  # fmt: skip
