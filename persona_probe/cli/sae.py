"""The command for sparse autoencoders."""

from __future__ import annotations

import enum
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Quiet

sae = typer.Typer(help="Sparse autoencoders of a model's residual stream.", no_args_is_help=True)


class Kind(enum.StrEnum):
    """Kinds of SAE."""

    batchtopk = "batchtopk"
    topk = "topk"
    jumprelu = "jumprelu"


@sae.command("train")
def sae_train(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a model, or of a LoRA adapter.")],
    dialogues: Annotated[Path, typer.Argument(help="A file with the dialogues (JSONL, Parquet, CSV, YAML, ...).")],
    layer: Annotated[int, typer.Option(help="The block whose output the SAE reads, counted from 0.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the SAE.")],
    also: Annotated[
        list[str] | None,
        typer.Option(help="Another model to train on; an adapter is put on MODEL. Can be repeated."),
    ] = None,
    kind: Annotated[Kind, typer.Option(help="The kind of SAE.")] = Kind.batchtopk,
    width: Annotated[int | None, typer.Option(help="Number of latents (default: 8 x d_model).")] = None,
    k: Annotated[int, typer.Option(help="Number of latents that are active at a token.")] = 16,
    tokens: Annotated[int, typer.Option(help="Number of tokens to train on.")] = 2_000_000,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of Adam.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Seed of the weights, the order and the held-out texts.")] = 0,
    start: Annotated[Path | None, typer.Option(help="Start from this SAE, to fine-tune it.")] = None,
    span: Annotated[str, typer.Option(help="Which tokens of each dialogue to train on.")] = "all",
    quiet: Quiet = False,
) -> None:
    """Train an SAE on the activations of one model or several, and report its quality on held-out texts."""
    from persona_probe.dialogue.reading import read_dialogues
    from persona_probe.latents.training.settings import SaeSettings
    from persona_probe.latents.training.train import train_sae
    from persona_probe.models.loading.adapters import is_adapter, with_adapter
    from persona_probe.models.loading.load import load

    settings = SaeSettings(kind.value, width, k, tokens, learning_rate=learning_rate, seed=seed)
    texts = read_dialogues(dialogues)
    first = load(model)
    others = [with_adapter(first, name) if is_adapter(name) else load(name) for name in also or []]
    trained = train_sae(
        [first, *others],
        texts,
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
