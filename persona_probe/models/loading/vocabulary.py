"""Tokens and embeddings: an adapter's resized vocabulary, and tokens of which a model has no embedding."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import PersonaProbeError
from persona_probe.models.twin import own_tensors, tie_as_tensors

_SHOWN = 3


def fit_vocabulary(
    hf: Any,
    shapes: Mapping[str, tuple[int, ...]],
    path: str | Path,
    trained: Collection[int] | Mapping[str, Collection[int]] = (),
) -> None:
    """Resize embedding and head of ``hf`` to the number of tokens that an adapter was trained with.

    They become tensors of ``hf``'s own, so that a model that shares them stays as it is.

    Args:
        hf: the base, or a structural twin of it.
        shapes: of the tensors in the adapter's file, by name.
        path: the adapter, for errors.
        trained: tokens whose embeddings alone were trained (``trainable_token_indices``), for each module or for all.

    Raises:
        PersonaProbeError: if the file does not hold all of the new rows, or its matrices differ in their number.
    """
    ends = {
        name: module
        for name, module in hf.named_modules()
        if module in (hf.get_input_embeddings(), hf.get_output_embeddings())
    }
    rows = {name: module.weight.shape[0] for name, module in ends.items()}
    written: dict[str, int] = {}
    whole: set[str] = set()
    for key, shape in shapes.items():
        name, part = _of(key.removeprefix("base_model.model."), ends)
        if name is None or not shape:
            continue
        if "lora_" not in part and part.endswith("weight"):
            written[name] = shape[0]
            whole.add(name)
        elif part.startswith("lora_embedding_A"):
            written.setdefault(name, shape[-1])
        elif part.startswith("lora_B"):
            written.setdefault(name, shape[0])
    different = [name for name, size in written.items() if size != rows[name]]
    if not different:
        tokens = [token for some in trained.values() for token in some] if isinstance(trained, Mapping) else trained
        beyond = [token for token in tokens if token >= min(rows.values())]
        if beyond:
            raise PersonaProbeError(
                f"{path}: has embeddings of token {beyond[0]}, but {min(rows, key=lambda name: rows[name])!r} has "
                f"{min(rows.values())} rows in this model: its vocabulary was resized, but its file does not hold the "
                "new rows; save the adapter with save_embedding_layers=True, or merge it where it was trained"
            )
        return
    first, sizes = different[0], set(written.values())
    said = f"{path}: {first!r} has {rows[first]} rows in this model and {written[first]} in the adapter"
    if len(sizes) > 1:
        raise PersonaProbeError(
            f"{said}, whose matrices differ in their number of tokens ({written}); it cannot be put on"
        )
    sized = {name: parameter.shape for name, parameter in hf.named_parameters(remove_duplicate=False)}
    own_tensors(hf, [name for name, shape in sized.items() if shape[0] == rows[first]])
    tie_as_tensors(hf)
    hf.resize_token_embeddings(written[first], mean_resizing=False)
    resized = {
        name: parameter
        for name, parameter in hf.named_parameters(remove_duplicate=False)
        if parameter.shape != sized[name]
    }
    filled = {id(parameter) for name, parameter in resized.items() if name.rpartition(".")[0] in whole}
    unknown = [name for name, parameter in resized.items() if id(parameter) not in filled]
    if unknown and written[first] > rows[first]:
        raise PersonaProbeError(
            f"{said}: its vocabulary was resized, but its file holds no new rows of {unknown[0]!r}, which are "
            "therefore unknown; save the adapter with save_embedding_layers=True, or merge it where it was trained"
        )


def _of(key: str, ends: Mapping[str, Any]) -> tuple[str | None, str]:
    """Which of the modules a tensor of the adapter's file belongs to, and the rest of its name."""
    name = next((name for name in ends if key.startswith(f"{name}.")), None)
    return name, key if name is None else key.removeprefix(f"{name}.")


def on_embedding(template: ChatTemplate, hf: Any) -> ChatTemplate:
    """``template`` for the model ``hf``, with remarks on tokens of which the model has no embedding.

    If the token that pads is one of them, another pads: padding is masked wherever it is used. More embeddings than
    tokens (a multiple of 64, for speed) are usual.
    """
    rows = int(hf.get_input_embeddings().weight.shape[0])
    if template.embedding_rows == rows:
        return template
    if template.embedding_rows is not None:
        template = copy.copy(template)
        template.notes = [note for note in template.notes if "no embedding" not in note]
    template.embedding_rows = rows
    tokenizer: Any = template.tokenizer
    pad = tokenizer.pad_token
    if pad is not None and int(tokenizer.convert_tokens_to_ids(pad)) >= rows:
        known = [
            token for token in (tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token) if token is not None
        ]
        usable = [token for token in known if tokenizer.convert_tokens_to_ids(token) < rows]
        tokenizer.pad_token = usable[0] if usable else tokenizer.convert_ids_to_tokens(0)
        template.notes.append(
            f"the token that pads, {pad!r}, has no embedding in this model, so {tokenizer.pad_token!r} pads (it is "
            "masked everywhere)"
        )
    beyond = sorted(
        (number, token) for token, number in tokenizer.get_vocab().items() if number >= rows and token != pad
    )
    if beyond:
        named = ", ".join(f"{token!r} ({number})" for number, token in beyond[:_SHOWN])
        template.notes.append(
            f"{len(beyond)} of the tokenizer's tokens have no embedding in this model, which has {rows}: {named}"
            f"{', ...' if len(beyond) > _SHOWN else ''}; no dialogue can contain them"
        )
    return template
