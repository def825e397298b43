"""The learning rate of every stage of a plan as a picture."""

from __future__ import annotations

from pathlib import Path

from gradus.core.errors import UserError
from gradus.pipeline.check import Checked, Checks


def draw_rates(checks: Checks, file: Path) -> None:
    """Writes a picture of the learning rates over the steps, an axis for each stage of the recipe and a line
    for each way in which it is trained. Raises UserError where `file` cannot be written, or ends otherwise
    than in .png, .svg or .pdf."""
    if file.suffix not in (".png", ".svg", ".pdf"):
        hint = "a name that ends in .png, .svg or .pdf"
        raise UserError("this is no name of a picture", field="--plot", text=str(file), hint=hint)
    if not file.parent.is_dir():
        raise UserError("there is no such folder", field="--plot", text=str(file.parent))
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stages: dict[str, list[Checked]] = {}
    for one in checks.nodes:
        stages.setdefault(one.node.name, []).append(one)
    figure, axes = pyplot.subplots(
        len(stages), figsize=(7, 2.2 * len(stages)), layout="constrained", squeeze=False
    )
    for axis, (name, nodes) in zip(axes[:, 0], stages.items()):
        for rates in dict.fromkeys(tuple(one.rates) for one in nodes):
            axis.plot(range(1, len(rates) + 1), rates)
        axis.set(title=name, xlabel="step", ylabel="learning rate")
        axis.set_ylim(bottom=0)
    figure.savefig(file, dpi=110)
