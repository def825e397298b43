"""`python -m gradus.report results/*.json` prints docs/results.md: tables drawn from what runs exported."""

import sys

from gradus.core.errors import UserError
from gradus.report import results_markdown

ABOUT = """\
# Results

Drawn from `results/*.json` by `make results`; each file was written by
`gradus report RUN_DIR --export results/NAME.json` after `gradus run recipes/NAME.yaml`. Means and deviations
are over seeds. Accuracy, F1 and correlations are times 100. The test is a paired bootstrap over rows, the
predictions of all seeds of a row together: of rows right, or of the correlation where that is the task's
metric. It speaks of new rows, not of new seeds. *Majority*, *naive Bayes*, *mean of train*, *word overlap*,
*chance* and *unigram* learn nothing of language and are scored on the same rows. What the numbers say in
words, and what they do not, is in [gpt1.md](gpt1.md#what-we-measured) and [LOG.md](LOG.md).
"""


def main() -> int:
    """Prints the page; exit status 2 where a file is not an exported result."""
    try:
        print(ABOUT)
        print(results_markdown(sorted(sys.argv[1:])))
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
