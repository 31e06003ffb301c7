"""Write an intervention into weights that any server can load."""

from __future__ import annotations

import contextlib
import copy
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from safetensors import SafetensorError
from transformers import PreTrainedModel

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PATH, PersonaProbeError, PersonaProbeWarning, check_types, library_message
from persona_probe.files import whole_folder
from persona_probe.models.loading.gguf_header import is_gguf
from persona_probe.models.loading.merging import merge_weights
from persona_probe.models.loading.spec import LoadOptions
from persona_probe.models.model import Model
from persona_probe.models.quiet import without_transformers_bars
from persona_probe.models.stream.blocks import plain_model
from persona_probe.models.twin import is_offloaded, structural_twin
from persona_probe.steering.baking.adapter import write_adapter
from persona_probe.steering.baking.bake_result import Baked
from persona_probe.steering.baking.card import provenance, write_cards
from persona_probe.steering.baking.edits import Edit, check_bakeable, edits_of
from persona_probe.steering.baking.verification import (
    Comparison,
    allowed_difference,
    check_same,
    compare,
    probe_dialogues,
    reloaded,
    reloaded_with_adapter,
    same_tokens,
)
from persona_probe.steering.baking.weights import edited
from persona_probe.steering.interventions.intervention import Intervention

Form = Literal["auto", "weights", "lora"]


def bake(
    model: Model,
    intervention: Intervention,
    folder: str | Path,
    *,
    form: Form = "auto",
    probes: Sequence[Dialogue] | None = None,
    base_name: str | None = None,
    license: str | None = None,
) -> Baked:
    """A folder of plain Hugging Face weights that compute what ``model`` does under ``intervention``.

    `Add` on all tokens becomes a bias of the last layer that writes to the stream in each block: in the model's own
    architecture if that has such a bias, or a setting for one; else written as Llama (Qwen2, Mistral without sliding
    window); else as a LoRA adapter with a bias. `AblateEverywhere` becomes orthogonalised embeddings and writing
    matrices (Arditi et al. 2024, arXiv:2406.11717, section 4.1), with an untied head. The result is read back from disk
    and compared with the hooked model; if it differs, nothing is left on the disk. ``model`` is not changed; a live
    adapter is merged in the copy.

    Args:
        model: in any dtype, which is the dtype that is written; not offloaded.
        intervention: `Add` with ``scope="all"``, or `AblateEverywhere`.
        folder: must not exist yet; appears when everything is written and compared.
        form: ``"weights"``, ``"lora"`` (an adapter of rank one on the base that the model was loaded from), or
            ``"auto"``: weights if they can be exact, else an adapter.
        probes: dialogues without an answer to compare on; default four ordinary questions.
        base_name: for an adapter: the name of the base model in its config; by default what the model was loaded from,
            a local folder as a path relative to ``folder``.
        license: the Hub's identifier (``mit``, ...), for the card's header.

    Raises:
        PersonaProbeError: with the reason, if weights cannot compute it exactly (post-norm blocks, mixtures of experts,
            scopes, kinds that depend on activations, quantised or offloaded weights), or if what was written differs
            from the hooked model.

    >>> import numpy as np
    >>> import persona_probe as pp
    >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
    >>> direction = pp.Direction.from_vectors(model, np.ones((model.n_layers, model.d_model)))
    >>> baked = pp.steering.bake(model, pp.Add(direction, layers=2, scope="all"), "baked")
    >>> baked.form, baked.architecture, baked.same_text
    ('weights', 'LlamaForCausalLM', True)
    """
    check_types(
        model=(model, Model),
        intervention=(intervention, Intervention),
        folder=(folder, PATH),
        probes=(probes, [Dialogue], None),
    )
    place = Path(folder)
    _check(model, intervention, place, form, probes)
    merged = _merged(model)
    edits = edits_of(intervention, Model(merged, model.template, model.name))
    with whole_folder(place) as part:
        written = _write(model, merged, edits, part, form, base_name)
        del merged
        baked, seen = _read_back(model, intervention, part, written, probes, base_name)
        architecture = type(plain_model(baked)).__name__
        base = base_name or (model.spec.source if model.spec is not None else None)
        write_cards(part, provenance(model, intervention, written, architecture, edits, seen), base, license)
    difference, tolerance = seen.max_logit_difference, allowed_difference(seen, model)
    return Baked(place, written, architecture, difference, seen.tokens, seen.same_text, seen.effect, tolerance)


def _check(model: Model, intervention: Intervention, place: Path, form: str, probes: Sequence[Dialogue] | None) -> None:
    if form not in get_args(Form):
        raise PersonaProbeError(f"form is {form!r}; choose one of {', '.join(get_args(Form))}")
    check_bakeable(intervention)
    if probes is not None and not probes:
        raise PersonaProbeError("probes is empty; leave it out for four ordinary questions")
    intervention.check(model)
    if place.exists():
        raise PersonaProbeError(f"{place}: exists; give a new folder, so that nothing is lost")
    if model.steered:
        raise PersonaProbeError(f"{model.name} is being steered; bake it outside of that context")
    if getattr(model.plain, "is_quantized", False) or getattr(model.plain, "hf_quantizer", None) is not None:
        raise PersonaProbeError(
            f"{model.name}: its weights are quantised, so that a change of them would be lost in rounding; load it "
            "without quantize= (or its unquantised repository)"
        )
    if is_offloaded(model.hf):
        raise PersonaProbeError(
            f"{model.name}: parts of it are offloaded to the CPU or disk, where weights cannot be changed; load it on "
            "one device, in a smaller dtype"
        )


def _merged(model: Model) -> PreTrainedModel:
    """A copy of the weights, with a live adapter merged into them."""
    merged: Any = copy.deepcopy(structural_twin(model.hf))
    if hasattr(model.hf, "peft_config"):
        merged = merge_weights(merged, model.name)
    return plain_model(merged)


def _write(
    model: Model, merged: PreTrainedModel, edits: Sequence[Edit], part: Path, form: str, base_name: str | None
) -> str:
    """Write model or adapter, and tokenizer, and return which of the two: ``weights`` or ``lora``."""
    no_weights: PersonaProbeError | None = None
    if form != "lora":
        try:
            target = edited(merged, edits)
        except PersonaProbeError as error:
            if form == "weights" or not _can_adapt(model, base_name):
                raise
            no_weights = error
        else:
            with without_transformers_bars(), _explained("cannot be written"):
                target.save_pretrained(part)
                model.tokenizer.save_pretrained(part)
            return "weights"
    source = _source(model, base_name)
    # Relative to the adapter's folder, so that both can be moved together and no path of this machine is written.
    here = base_name is None and (Path(source).is_dir() or is_gguf(source))
    base = os.path.relpath(Path(source).resolve(), part.resolve()) if here else source
    try:
        write_adapter(merged, edits, part, base)
    except PersonaProbeError as error:
        raise PersonaProbeError(f"{no_weights}; and {error}" if no_weights else str(error)) from error
    model.tokenizer.save_pretrained(part)
    return "lora"


def _can_adapt(model: Model, base_name: str | None) -> bool:
    return not hasattr(model.hf, "peft_config") and (base_name is not None or model.spec is not None)


def _source(model: Model, base_name: str | None) -> str:
    """The base of the adapter to be written: a folder or Hub id.

    Raises:
        PersonaProbeError: if the model is not itself the base that it was loaded from.
    """
    if hasattr(model.hf, "peft_config") or (model.spec is not None and model.spec.adapter is not None):
        raise PersonaProbeError(
            f"form='lora': {model.name} carries an adapter already (live or merged), so that its base is another "
            "model; bake it with form='weights', or save the merged model as a folder first and load that"
        )
    if base_name is None and model.spec is None:
        raise PersonaProbeError(f"form='lora': {model.name} was made by hand; give base_name=, a folder or Hub id")
    return str(base_name or (model.spec and model.spec.source))


def _read_back(
    model: Model,
    intervention: Intervention,
    part: Path,
    written: str,
    probes: Sequence[Dialogue] | None,
    base_name: str | None,
) -> tuple[Any, Comparison]:
    """The weights on disk, loaded by transformers (and PEFT), and their comparison with the hooked model."""
    asked = list(probes) if probes is not None else probe_dialogues(model)
    options = model.spec.options if model.spec is not None else LoadOptions()
    with _explained("what was written cannot be read back by transformers"):
        baked = (
            reloaded_with_adapter(part, _source(model, base_name), model, options)
            if written == "lora"
            else reloaded(part, model, options)
        )
    if written == "weights" and not same_tokens(part, model, asked):
        warnings.warn(
            f"transformers splits text differently from the tokenizer.json of {model.name}, which persona-probe uses: "
            "servers will see other tokens than were compared",
            PersonaProbeWarning,
            stacklevel=3,
        )
    seen = compare(model, intervention, baked, asked)
    check_same(seen, model)
    return baked, seen


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn errors of transformers into one line."""
    try:
        yield
    except PersonaProbeError:
        raise
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, TypeError, SafetensorError) as error:
        raise PersonaProbeError(f"{what}: {library_message(error)}; nothing was written") from error
