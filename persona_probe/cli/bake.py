"""The command that bakes an intervention into weights."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from persona_probe.cli.options import layer_numbers
from persona_probe.errors import PersonaProbeError


class Bakeable(enum.StrEnum):
    """Interventions that weights can compute."""

    add = "add"
    ablate_everywhere = "ablate-everywhere"


class Written(enum.StrEnum):
    """How the weights are written."""

    auto = "auto"
    weights = "weights"
    lora = "lora"


def bake(
    model: Annotated[str, typer.Argument(help="Folder or Hub id of a model, or of a LoRA adapter.")],
    direction: Annotated[Path, typer.Argument(help="The .safetensors file of a saved direction.")],
    out: Annotated[Path, typer.Option("--out", help="New folder for the weights.")],
    layers: Annotated[
        str,
        typer.Option(
            help="Layers at which the direction is added: 'all', or numbers such as 3,7; for ablation, the layer whose "
            "vector is ablated."
        ),
    ],
    kind: Annotated[Bakeable, typer.Option(help="The intervention, at every token.")] = Bakeable.add,
    strength: Annotated[float | None, typer.Option(help="The strength of an addition (default: 1).")] = None,
    form: Annotated[Written, typer.Option(help="Write whole weights, or a LoRA adapter.")] = Written.auto,
    adapter: Annotated[str | None, typer.Option(help="A LoRA adapter to put on the model.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Precision of the weights: float32, bfloat16, ...")] = None,
    device: Annotated[str | None, typer.Option(help="Default: a GPU if there is one.")] = None,
    license: Annotated[str | None, typer.Option(help="The license for the card, as the Hub names it: mit, ...")] = None,
) -> None:
    """Write plain Hugging Face weights that answer like the steered model, and compare both."""
    from persona_probe.directions.direction import Direction
    from persona_probe.models.loading.load import load
    from persona_probe.steering.baking.bake import bake as write
    from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
    from persona_probe.steering.interventions.add import Add
    from persona_probe.steering.interventions.intervention import Intervention

    numbers = layer_numbers(layers)
    vector = Direction.load(direction)
    if kind is Bakeable.add:
        intervention: Intervention = Add(vector, numbers, strength=1.0 if strength is None else strength, scope="all")
    elif strength is not None:
        raise PersonaProbeError(f"--strength: {strength:g}; only --kind add has a strength: leave it out")
    elif isinstance(numbers, str) or len(numbers) > 1:
        raise PersonaProbeError(f"--layers: {layers!r}; the vector of one layer is ablated everywhere: give one layer")
    else:
        intervention = AblateEverywhere(vector, numbers[0])
    loaded = load(model, adapter=adapter, dtype=dtype, device=device)
    baked = write(loaded, intervention, out, form=form.value, license=license)
    typer.echo(
        f"{baked.folder}: {baked.form} ({baked.architecture}); over {baked.tokens} tokens no logit differs from the "
        f"steered model's by more than {baked.max_logit_difference:.1g}, and greedy answers are "
        f"{'the same' if baked.same_text else 'not all the same'}"
    )
