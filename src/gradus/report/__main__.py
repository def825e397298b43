"""`python -m gradus.report results/*.json` prints docs/results.md: tables drawn from what runs exported."""

import sys

from gradus.core.errors import UserError
from gradus.report import results_markdown

ABOUT = """\
# Results

Drawn from `results/*.json` by `make results`; each file was written by
`gradus report RUN_DIR --export results/NAME.json` after `gradus run recipes/NAME.yaml`. Means and deviations
are over seeds; the test is a paired bootstrap over the pooled predictions of all seeds; *majority* and *naive
Bayes* learn nothing of language and are scored on the same rows.
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
