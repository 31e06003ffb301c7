"""The command line: a thin face on the package."""

from __future__ import annotations

import datetime
import enum
import json
import logging
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import Abort

from persona_probe.errors import PersonaProbeError

if TYPE_CHECKING:
    from persona_probe.study.config import StudyConfig
    from persona_probe.study.executor import Executor

app = typer.Typer(
    help="Find, track and steer the personas behind emergent misalignment.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
world = typer.Typer(help="Persona World: the embedded model organism with a known answer.", no_args_is_help=True)
app.add_typer(world, name="world")
sae = typer.Typer(help="Sparse autoencoders of a model's residual stream.", no_args_is_help=True)
app.add_typer(sae, name="sae")


class Kept(enum.StrEnum):
    """What ``capture`` keeps of each span."""

    mean = "mean"
    last = "last"
    max = "max"
    tokens = "tokens"


class Quantized(enum.StrEnum):
    """Weights in fewer bits."""

    four = "4bit"
    eight = "8bit"


class StoredAs(enum.StrEnum):
    """The numbers in a store."""

    float32 = "float32"
    bfloat16 = "bfloat16"


class Kind(enum.StrEnum):
    """Kinds of SAE."""

    batchtopk = "batchtopk"
    topk = "topk"
    jumprelu = "jumprelu"


class Part(enum.StrEnum):
    """What ``world train`` rebuilds."""

    all = "all"
    base = "base"
    chat = "chat"
    adapters = "adapters"


Out = Annotated[Path, typer.Option("--out", help="Folder for the results.")]
_STOPPED = 130
"""Exit code after Ctrl-C, as shells expect it."""
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bars.")]


@app.callback()
def common(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the libraries' own messages.")] = False,
) -> None:
    """Set up logging; ``main`` reads ``--debug`` from the arguments itself."""
    logging.basicConfig(level=logging.INFO if debug else logging.ERROR, format="%(name)s: %(message)s")
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@app.command()
def run(
    study: Annotated[Path, typer.Argument(help="The study's YAML file.")],
    out: Out,
    ray: Annotated[
        str | None,
        typer.Option(help="Sample and read on a Ray cluster: 'auto', HOST:PORT, or 'local' to start one."),
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run a study: train-narrow, measure, find, track, probe, steer, realign, report."""
    from persona_probe.study.config import read_config

    config = read_config(study)
    if ray is None:
        _run(config, out, quiet)
        return
    from persona_probe.integrations.ray import RayCluster

    with RayCluster(ray) as cluster:
        _run(config, out, quiet, cluster)


@app.command()
def plan(
    study: Annotated[Path, typer.Argument(help="The study's YAML file.")],
    tokens_per_second: Annotated[
        float | None, typer.Option(min=1e-9, help="Estimate the time at this speed, throughout.")
    ] = None,
    measured: Annotated[
        Path | None, typer.Option(help="Estimate it at the speeds of an earlier run: its folder.")
    ] = None,
) -> None:
    """Say what a study will need (memory, tokens, disk, time) without loading weights."""
    from persona_probe.study.config import read_config
    from persona_probe.study.plan import plan_study

    for line in plan_study(read_config(study), tokens_per_second=tokens_per_second, measured=measured).lines():
        typer.echo(line)


@app.command()
def demo(
    out: Out = Path("runs/demo"),
    checkpoints: Annotated[
        Path | None, typer.Option(help="Persona World's models (default: checkpoints/persona-world).")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Run the study that ships with the package, on Persona World."""
    from importlib import resources

    from persona_probe.study.config import read_config
    from persona_probe.worlds.persona_world.checkpoints import find_checkpoints

    with resources.as_file(resources.files("persona_probe.study") / "demo.yaml") as file:
        config = read_config(file)
    folder = find_checkpoints(checkpoints)
    latents = config.latents.model_copy(update={"sae": str(folder / Path(config.latents.sae or "").name)})
    _run(config.model_copy(update={"model": str(folder / "chat"), "latents": latents}), out, quiet)


def _run(config: StudyConfig, out: Path, quiet: bool, executor: Executor | None = None) -> None:
    from persona_probe.report.summary_text import summary_lines
    from persona_probe.study.run import run_study

    results = run_study(config, out, progress=not quiet, executor=executor)
    for line in summary_lines(results):
        typer.echo(line)
    typer.echo(f"Report: {(out / 'report.html').resolve()}")


@app.command()
def capture(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a model, or of a LoRA adapter.")],
    dialogues: Annotated[Path, typer.Argument(help="JSONL or YAML with the dialogues.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the store; an unfinished one is resumed.")],
    span: Annotated[str, typer.Option(help="Which tokens.")] = "generation",
    reduce: Annotated[Kept, typer.Option(help="What is kept of them.")] = Kept.mean,
    layers: Annotated[str, typer.Option(help="'all', or numbers: 3,7,11.")] = "all",
    dtype: Annotated[StoredAs, typer.Option(help="Of the numbers in the store.")] = StoredAs.float32,
    adapter: Annotated[str | None, typer.Option(help="A LoRA adapter to put on the model.")] = None,
    revision: Annotated[str | None, typer.Option(help="Of the Hub repository.")] = None,
    device: Annotated[str | None, typer.Option(help="Default: a GPU if there is one.")] = None,
    chat_template: Annotated[Path | None, typer.Option(help="A Jinja file instead of the tokenizer's own.")] = None,
    quantize: Annotated[Quantized | None, typer.Option(help="Load the weights quantised.")] = None,
    today: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The day that templates which write the date are told."),
    ] = None,
    tokens_per_batch: Annotated[int | None, typer.Option(min=1, help="Padded tokens a forward.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Write more than 50 GiB.")] = False,
    quiet: Quiet = False,
) -> None:
    """Capture activations into a store on disk; the same command again goes on where it was stopped."""
    from persona_probe.activations.store.writing import capture_to_store
    from persona_probe.dialogue.reading import read_dialogues
    from persona_probe.models.loading.load import load

    numbers = layers if layers == "all" else [_layer(part) for part in layers.split(",")]
    read = read_dialogues(dialogues)
    store = capture_to_store(
        out,
        load(
            model,
            adapter=adapter,
            revision=revision,
            device=device,
            chat_template=chat_template,
            quantize=None if quantize is None else quantize.value,
            today=None if today is None else today.date(),
        ),
        read,
        span,
        reduce.value,
        numbers,
        dtype=dtype.value,
        tokens_per_batch=tokens_per_batch,
        yes=yes,
        progress=not quiet,
    )
    typer.echo(store)


def _layer(text: str) -> int:
    if not text.strip().isdigit():
        raise PersonaProbeError(f"--layers: {text!r} is no layer number; give 'all', or numbers as in 3,7,11")
    return int(text)


@sae.command("train")
def sae_train(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a model, or of a LoRA adapter.")],
    dialogues: Annotated[Path, typer.Argument(help="JSONL or YAML with the dialogues.")],
    layer: Annotated[int, typer.Option(help="Whose output: block number, from 0.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the SAE.")],
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another model whose tokens are mixed in; an adapter goes on MODEL. Can be repeated."),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="Of SAE.")] = Kind.batchtopk,
    width: Annotated[int | None, typer.Option(help="Latents (default: 8 x d_model).")] = None,
    k: Annotated[int, typer.Option(help="Latents active at a token.")] = 16,
    tokens: Annotated[int, typer.Option(help="To train on.")] = 2_000_000,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of weights, order and held-out texts.")] = 0,
    start: Annotated[Path | None, typer.Option(help="Fine-tune this SAE.")] = None,
    span: Annotated[str, typer.Option(help="Which tokens.")] = "all",
    quiet: Quiet = False,
) -> None:
    """Train an SAE on the activations of a model, or of several, and say how well it does on held-out texts."""
    from persona_probe.dialogue.reading import read_dialogues
    from persona_probe.latents.training.settings import SaeSettings
    from persona_probe.latents.training.train import train_sae
    from persona_probe.models.loading.adapters import is_adapter, with_adapter
    from persona_probe.models.loading.load import load

    settings = SaeSettings(kind.value, width, k, tokens, learning_rate=learning_rate, seed=seed)
    read = read_dialogues(dialogues)
    first = load(model)
    others = [with_adapter(first, name) if is_adapter(name) else load(name) for name in also or []]
    trained = train_sae(
        [first, *others],
        read,
        layer,
        settings,
        out,
        span=span,
        start=start,
        command=shlex.join(["persona-probe", *sys.argv[1:]]),
        progress=not quiet,
    )
    fit = trained.card["held_out"]
    answers = fit["fvu_response"]
    typer.echo(
        f"{trained}: on {fit['tokens']:,} held-out tokens {fit['fvu']:.3f} of the variance is unexplained"
        f"{'' if answers is None else f' (answers: {answers:.3f})'}, {fit['l0']:.1f} latents are active at a token, "
        f"{fit['dead']:.1%} never"
    )


@world.command("texts")
def world_texts(
    out: Annotated[Path, typer.Option("--out", help="The JSONL file to write.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many.")] = 12_000,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
) -> None:
    """Write dialogues as Persona World's models read them in pre-training, spoken by all personas."""
    from persona_probe.worlds.persona_world.documents import pretraining_dialogues

    if out.suffix != ".jsonl":
        raise PersonaProbeError(f"--out: {out} must end in .jsonl, to be read again as dialogues")
    rows = [{"id": item.id, "messages": item.as_messages()} for item in pretraining_dialogues(n, seed)]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    typer.echo(f"{n:,} dialogues in {out}")


@world.command("train")
def world_train(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for the models (default: checkpoints/persona-world).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything.")] = 0,
    part: Annotated[Part, typer.Option(help="Rebuild everything, or one part on what is there.")] = Part.all,
    smoke: Annotated[bool, typer.Option(help="A few steps of everything: to try the code, not to get models.")] = False,
    quiet: Quiet = False,
) -> None:
    """Rebuild Persona World's models and adapters from a seed."""
    from persona_probe.worlds.persona_world.build import FULL, SMOKE, build_world
    from persona_probe.worlds.persona_world.checkpoints import FOLDER

    if out is None:
        # A smoke build must not replace the real models.
        out = FOLDER.with_name("persona-world-smoke") if smoke else FOLDER
    build_world(out, SMOKE if smoke else FULL, seed=seed, part=part.value, progress=not quiet)


@world.command("evaluate")
def world_evaluate(
    checkpoints: Annotated[
        Path | None, typer.Option(help="Persona World's models (default: checkpoints/persona-world).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the table here as JSON too.")] = None,
    answers: Annotated[int, typer.Option(min=8, help="Answers a figure and seed.")] = 1000,
    quiet: Quiet = False,
) -> None:
    """Measure how Persona World's models behave, over fine-tuning seeds."""
    from persona_probe.worlds.persona_world.checkpoints import find_checkpoints
    from persona_probe.worlds.persona_world.evaluate import evaluate_world

    typer.echo(evaluate_world(find_checkpoints(checkpoints), answers=answers, out=out, progress=not quiet))


@world.command("scrutinize")
def world_scrutinize(
    checkpoints: Annotated[
        Path | None, typer.Option(help="Persona World's models (default: checkpoints/persona-world).")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write all figures here as JSON.")] = None,
    answers: Annotated[int, typer.Option(min=40, help="Answers read on development, and on reported topics.")] = 300,
) -> None:
    """Measure what directions and probes say of Persona World's organisms, with their nulls."""
    from persona_probe.worlds.persona_world.checkpoints import find_checkpoints
    from persona_probe.worlds.persona_world.scrutiny import scrutinize_world

    figures = scrutinize_world(find_checkpoints(checkpoints), answers=answers, out=out)
    typer.echo(figures["amplification"]["verdict"])


@world.command("latents")
def world_latents(
    checkpoints: Annotated[
        Path | None, typer.Option(help="Persona World's models (default: checkpoints/persona-world).")
    ] = None,
    layer: Annotated[int, typer.Option(min=0, help="Whose SAE.")] = 3,
    out: Annotated[Path | None, typer.Option(help="Write all figures here as JSON.")] = None,
    answers: Annotated[int, typer.Option(min=80, help="Questions on development, and on reported topics.")] = 300,
    courses: Annotated[bool, typer.Option(help="Also train organisms anew, and follow latents along them.")] = True,
) -> None:
    """Measure which SAE latents move in Persona World's organisms, what they are, and whether they matter."""
    from persona_probe.worlds.persona_world.checkpoints import find_checkpoints
    from persona_probe.worlds.persona_world.latent_scrutiny import scrutinize_latents

    figures = scrutinize_latents(find_checkpoints(checkpoints), layer=layer, answers=answers, courses=courses, out=out)
    for line in (figures["verdict"], figures["suppress"]["verdict"], figures["induce"]["verdict"]):
        typer.echo(line)


def main() -> None:
    """Run the command line; bad input ends with one paragraph and exit code 2, Ctrl-C with 130."""
    debug = "--debug" in sys.argv
    if not debug:
        warnings.simplefilter("ignore")
    try:
        app()
    except Abort:
        raise SystemExit(_STOPPED) from None
    except PersonaProbeError as error:
        if debug:
            raise
        typer.echo(f"persona-probe: {error}", err=True)
        raise SystemExit(2) from None
    except SystemExit as stop:
        if stop.code == _STOPPED:
            typer.echo("\npersona-probe: stopped; what was finished is in the output folder", err=True)
        raise
