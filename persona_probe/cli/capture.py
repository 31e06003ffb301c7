"""The command that captures activations into a store on disk."""

from __future__ import annotations

import datetime
import enum
from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import Quiet, layer_numbers


class ReducedBy(enum.StrEnum):
    """How ``capture`` reduces each span."""

    mean = "mean"
    last = "last"
    max = "max"
    tokens = "tokens"


class Quantized(enum.StrEnum):
    """Weights in fewer bits."""

    four = "4bit"
    eight = "8bit"


class StoredAs(enum.StrEnum):
    """The precision of the numbers in a store."""

    float32 = "float32"
    bfloat16 = "bfloat16"


def capture(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a model, or of a LoRA adapter.")],
    dialogues: Annotated[Path, typer.Argument(help="A file with the dialogues (JSONL, Parquet, CSV, YAML, ...).")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the store; an unfinished one is resumed.")],
    span: Annotated[str, typer.Option(help="Which tokens of each dialogue are captured.")] = "generation",
    reduce: Annotated[ReducedBy, typer.Option(help="What is stored of these tokens.")] = ReducedBy.mean,
    layers: Annotated[str, typer.Option(help="'all', or numbers such as 3,7,11.")] = "all",
    dtype: Annotated[StoredAs, typer.Option(help="Precision of the numbers in the store.")] = StoredAs.float32,
    adapter: Annotated[str | None, typer.Option(help="A LoRA adapter to put on the model.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub repository.")] = None,
    device: Annotated[str | None, typer.Option(help="Default: a GPU if there is one.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Folder or Hub id of another tokenizer.")] = None,
    chat_template: Annotated[Path | None, typer.Option(help="A Jinja file instead of the tokenizer's own.")] = None,
    quantize: Annotated[Quantized | None, typer.Option(help="Load the weights in fewer bits.")] = None,
    today: Annotated[
        datetime.datetime | None,
        typer.Option(formats=["%Y-%m-%d"], help="The date for templates that write today's date."),
    ] = None,
    tokens_per_batch: Annotated[int | None, typer.Option(min=1, help="Padded tokens per forward pass.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Allow a store of more than 50 GiB.")] = False,
    quiet: Quiet = False,
) -> None:
    """Capture activations into a store on disk; run the same command again to resume."""
    from persona_probe.activations.store.writing import capture_to_store
    from persona_probe.dialogue.reading import read_dialogues
    from persona_probe.models.loading.load import load

    numbers = layer_numbers(layers)
    texts = read_dialogues(dialogues)
    store = capture_to_store(
        load(
            model,
            adapter=adapter,
            revision=revision,
            device=device,
            tokenizer=tokenizer,
            chat_template=chat_template,
            quantize=None if quantize is None else quantize.value,
            today=None if today is None else today.date(),
        ),
        texts,
        out,
        span,
        reduce.value,
        numbers,
        dtype=dtype.value,
        tokens_per_batch=tokens_per_batch,
        yes=yes,
        progress=not quiet,
    )
    typer.echo(store)
