"""The command: thin, and light until a subcommand needs the heavy rooms (`gradus --help` imports no
torch)."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

PIPED_WIDTH = 160
"""Places of a table that goes into a file or a pipe, where no window squeezes it."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

RecipeArgument = Annotated[Path, typer.Argument(help="The recipe, a YAML file.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="Where run folders and the cache live.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="The root of data paths; else GRADUS_DATA, else the recipe's folder."),
]
SetOption = Annotated[
    list[str], typer.Option("--set", help="PATH=VALUE, such as stages.finetune.optimizer.lr=1e-4.")
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, cuda:1 or mps; the best there is.")
]
ModelArgument = Annotated[
    Path, typer.Argument(help="A model folder, of Gradus or Hugging Face, or the folder of a stage or a run.")
]
ReaderOption = Annotated[
    str | None,
    typer.Option("--reader", help="lines, tsv, csv, jsonl, json, conll or parquet; else as in training."),
]
EncodingOption = Annotated[
    str | None, typer.Option("--encoding", help="utf-8, gb18030, latin-1 ...; else as in training.")
]

MemberOption = Annotated[
    str | None, typer.Option("--member", help="Of a model that was taught several tasks at once: which one.")
]


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"gradus {version('gradus-lm')}")
        raise typer.Exit


@app.callback()
def gradus(
    version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version.")
    ] = False,
) -> None:
    """Language models step by step: from raw text to a task model, in one recipe."""


@app.command()
def init(
    directory: Annotated[Path | None, typer.Argument(help="Where the recipe is written.")] = None,
    rows: Annotated[Path | None, typer.Option(help="Your labelled rows: tsv, csv, jsonl, json.")] = None,
    label: Annotated[str | None, typer.Option(help="The column of the label, where a guess errs.")] = None,
    text: Annotated[list[str] | None, typer.Option(help="Your text: files, globs, folders.")] = None,
    start: Annotated[Path | None, typer.Option("--from", help="A model folder to start from.")] = None,
    template: Annotated[
        str | None, typer.Option(help="A named template instead of looking at files.")
    ] = None,
    names: Annotated[bool, typer.Option("--list", help="Name the templates.")] = False,
) -> None:
    """Look at your files and write a commented recipe for them."""
    from gradus.pipeline.looking.init import list_templates, write_recipe

    if names:
        typer.echo(list_templates())
        return
    typer.echo(
        write_recipe(directory, rows=rows, label=label, text=text or [], start=start, template=template)
    )


@app.command()
def check(
    recipe: RecipeArgument,
    runs: RunsOption = Path("runs"),
    data_dir: DataOption = None,
    settings: SetOption = [],  # noqa: B006
    device: DeviceOption = None,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the learning rate of every stage: rates.png.")
    ] = None,
) -> None:
    """Prove a recipe, its data and its resources before anything is trained; print the plan."""
    _keep_memory()
    from gradus.pipeline.check import check as check_recipe
    from gradus.pipeline.check import print_plan
    from gradus.pipeline.recipes.patch import parse_settings

    checks = check_recipe(
        recipe, runs=runs, data_dir=data_dir, settings=parse_settings(settings), device=device
    )
    print_plan(checks)
    if plot is not None:
        from gradus.pipeline.rates import draw_rates

        draw_rates(checks, plot)


@app.command()
def run(
    recipe: RecipeArgument,
    runs: RunsOption = Path("runs"),
    data_dir: DataOption = None,
    until: Annotated[str | None, typer.Option(help="The last stage to run.")] = None,
    settings: SetOption = [],  # noqa: B006
    device: DeviceOption = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Run finished and half-done stages again.")] = False,
    inexact: Annotated[
        bool, typer.Option("--resume-inexact", help="Go on from a checkpoint written under other conditions.")
    ] = False,
) -> None:
    """Run what is not done, resume what is half done."""
    _keep_memory()
    from gradus.pipeline.models.results import model_lines
    from gradus.pipeline.recipes.patch import parse_settings
    from gradus.pipeline.run import run as run_recipe

    folder = run_recipe(
        recipe, runs=runs, data_dir=data_dir, until=until, settings=parse_settings(settings), device=device,
        fresh=fresh, inexact=inexact,
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":  # one of several processes speaks
        if not until:
            _print_loops(folder)
        typer.echo(f"{folder}: done; `gradus report {folder}` shows it")
        typer.echo("\n".join(model_lines(folder, until)))


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="A run folder, runs/<recipe>.")],
    export: Annotated[
        Path | None, typer.Option(help="Also write the small JSON file that documents draw from.")
    ] = None,
) -> None:
    """Write report.html, one file that opens offline, and print its table."""
    from rich.console import Console

    from gradus.report import export as export_run
    from gradus.report import load_run, print_table, write_report

    run = load_run(run_dir)
    written = [write_report(run)]
    if export is not None:  # before anything is printed: who reads the table may stop reading
        written.append(export_run(run, export))
    wide = None if sys.stdout.isatty() else PIPED_WIDTH
    print_table(run, Console(highlight=False, width=wide))
    for path in written:
        typer.echo(str(path))


@app.command()
def generate(
    model_dir: ModelArgument,
    prompt: Annotated[
        list[str], typer.Option(help="What the text begins with; several give a text each.")
    ] = [],  # noqa: B006
    tokens: Annotated[int, typer.Option(help="At most so many tokens.")] = 100,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest tokens.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the likeliest tokens that sum to p.")] = None,
    repetition_penalty: Annotated[
        float, typer.Option(help="Above 1, tokens that came before are less likely.")
    ] = 1.0,
    stop: Annotated[
        list[str], typer.Option(help="The text ends before this string; may be given several times.")
    ] = [],  # noqa: B006
    beams: Annotated[int, typer.Option(help="Beam search instead of sampling.")] = 1,
    length_penalty: Annotated[
        float, typer.Option(help="Beams are ranked by log-likelihood / tokens ** this.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="The same seed says the same.")] = 0,
    member: MemberOption = None,
    device: DeviceOption = None,
) -> None:
    """Let a language model go on from a prompt, or from several; an encoder-decoder answers them."""
    _keep_memory()
    from gradus.pipeline.models.serving import load

    model, prompts = load(model_dir, device=device, member=member), prompt or [""]
    texts = model.generate(
        prompts, tokens=tokens, temperature=temperature, top_k=top_k, top_p=top_p,
        repetition_penalty=repetition_penalty, stop=stop, beams=beams, length_penalty=length_penalty,
        seed=seed,
    )  # fmt: skip
    for begun, text in zip(prompts, texts):
        typer.echo(text if model.answers_apart else begun + text)


@app.command()
def predict(
    model_dir: ModelArgument,
    source: Annotated[
        str, typer.Option("--input", help="The rows; - reads standard input, as the training rows were read.")
    ],
    output: Annotated[
        str, typer.Option("--output", help="JSON lines, one a row, in order; - writes standard output.")
    ],
    recipe: Annotated[
        Path | None, typer.Option(help="For a foreign folder: a recipe that says how rows are read.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="... and its stage.")] = None,
    reader: ReaderOption = None,
    encoding: EncodingOption = None,
    member: MemberOption = None,
    device: DeviceOption = None,
) -> None:
    """Label every row, with scores and probabilities."""
    _keep_memory()
    from gradus.core.errors import counted
    from gradus.pipeline.models.predicting import predict_file
    from gradus.pipeline.models.serving import load

    model = load(model_dir, device=device, recipe=recipe, stage=stage, member=member)
    counts = predict_file(model, source, output, reader, encoding)
    told = counted(counts["rows"], "row")
    if counts["truncated_rows"]:
        lost = counted(counts["truncated_tokens"], "token")
        told += f"; too long: {counts['truncated_rows']:,}, which lost {lost}"
    typer.echo(told, err=True)


@app.command()
def evaluate(
    model_dir: ModelArgument,
    data: Annotated[str, typer.Option(help="Rows with labels, or text for a language model.")],
    recipe: Annotated[
        Path | None, typer.Option(help="For a foreign folder: a recipe that says how rows are read.")
    ] = None,
    stage: Annotated[str | None, typer.Option(help="... and its stage.")] = None,
    reader: ReaderOption = None,
    encoding: EncodingOption = None,
    member: MemberOption = None,
    device: DeviceOption = None,
) -> None:
    """The metrics of the model's own task; perplexity and bits per byte for a language model."""
    _keep_memory()
    from gradus.pipeline.models.serving import load

    model = load(model_dir, device=device, recipe=recipe, stage=stage, member=member)
    metrics = model.evaluate(data, reader=reader, encoding=encoding)
    for name, value in metrics.items():
        typer.echo(f"{name}\t{value:.6g}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="OpenAI's GPT-1 as released, or a Hugging Face folder.")],
    target: Annotated[Path, typer.Argument(help="The folder to write: new or empty.")],
    pre_tokenization: Annotated[
        str,
        typer.Option(help="How GPT-1 finds words: simple, as Hugging Face; release, with ftfy and spaCy."),
    ] = "simple",
) -> None:
    """Make a folder of Gradus from OpenAI's GPT-1 release or a Hugging Face folder."""
    _keep_memory()
    from gradus.pipeline.models.converting import convert as convert_folder

    typer.echo(convert_folder(source, target, pre_tokenization))


def _print_loops(folder: Path) -> None:
    """What search and iterate tried, where the recipe has them."""
    from gradus.core.storage import read_json

    if not read_json(folder / "plan.json")["loops"]:
        return
    from rich.console import Console

    from gradus.report import load_run, loop_grids, print_grids

    wide = None if sys.stdout.isatty() else PIPED_WIDTH
    print_grids(loop_grids(load_run(folder)), Console(highlight=False, width=wide))


def _keep_memory() -> None:
    """The process keeps the memory it has: must come before torch allocates."""
    from gradus.core.allocator import keep_memory

    keep_memory()


def main() -> None:
    """The entry point: exit status 0 done, 2 the user's mistake, 3 stopped by a signal with its state
    saved."""
    from gradus.core.errors import UserError

    try:
        app(prog_name="gradus", standalone_mode=False)
    except typer.Exit as stopped:
        sys.exit(stopped.exit_code)
    except UserError as mistake:
        print(f"gradus: {mistake}", file=sys.stderr)
        sys.exit(2)
    except (BrokenPipeError, EOFError):
        sys.exit(1)
    except BaseException as error:
        status = _status(error)
        if status is None:
            raise
        sys.exit(status)


_NOT_OURS = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT,
    errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG,
}  # fmt: skip
"""What only the user can mend: permissions, a full disk, a path through a file."""


def _status(error: BaseException) -> int | None:
    """The exit status of what is neither done nor a user's mistake told by us; None for a bug."""
    if type(error).__name__ == "Interrupted":
        print("gradus: stopped; the same command goes on from here", file=sys.stderr)
        return 3
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        print("gradus: stopped", file=sys.stderr)
        return 3
    if isinstance(error, OSError) and error.errno in _NOT_OURS:
        where = f"{error.filename}: " if error.filename else ""
        print(f"gradus: {where}{error.strerror}", file=sys.stderr)
        return 2
    if hasattr(error, "format_message") and hasattr(error, "show"):  # the command line itself was wrong
        _tell_usage(error)
        return 2
    return None


def _tell_usage(error: Any) -> None:
    """What is wrong with the command line, in a line; the bare command shows its help."""
    problem = error.format_message().strip().rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    hint = f"{error.ctx.command_path if error.ctx else 'gradus'} --help"
    if "extra argument" in problem:
        hint = f"a pattern stands in quotes, --text 'corpus/*.txt'; {hint}"
    print(f"gradus: {problem[:1].lower()}{problem[1:]} ({hint})", file=sys.stderr)


if __name__ == "__main__":
    main()
