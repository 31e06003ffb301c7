"""Batched sampling: dialogues go in, the same dialogues come out with an answer each."""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import GenerationConfig

from persona_probe.clock import working
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded, check_dialogues
from persona_probe.errors import PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.models.interface import LanguageModel
from persona_probe.models.positions import longest_alike
from persona_probe.models.sampling import Sampling
from persona_probe.models.stream.boundary import Boundary
from persona_probe.models.twin import mark_as_ours

_RANDOM = threading.RLock()
"""Held while answers are sampled: the random state is that of the whole process."""


def end_tokens(model: LanguageModel) -> list[int]:
    """The tokens with which a model ends an answer: the template's, and those of the tokenizer and of its config."""
    configured = getattr(model.plain.generation_config, "eos_token_id", None)
    stops = configured if isinstance(configured, list) else [configured]
    ends = {*stops, model.tokenizer.eos_token_id, model.template.format.end}
    return sorted(token for token in ends if token is not None)


def stop_tokens(model: LanguageModel) -> list[int]:
    """The tokens at which generation stops: `end_tokens`, and those that the template writes around turns.

    Where answers have channels, these also begin and end channels; then only `end_tokens` stop it.
    """
    form = model.template.format
    return sorted({*end_tokens(model), *(() if form.channel else form.control)})


def generation_config(model: LanguageModel, sampling: Sampling) -> GenerationConfig:
    """All settings with which Hugging Face generates; nothing but the stop tokens is the model's own, unless asked.

    Args:
        model: which model answers.
        sampling: how; with ``generation_config="model"`` its own settings are used, with the length of ``sampling``.
    """
    if sampling.generation_config == "model":
        config: Any = copy.deepcopy(model.plain.generation_config) or GenerationConfig()  # type: ignore[no-untyped-call]
        config.update(max_length=None, num_return_sequences=1, return_dict_in_generate=False)
    else:
        random = sampling.temperature > 0
        config = GenerationConfig(  # type: ignore[no-untyped-call]
            do_sample=random,
            temperature=sampling.temperature if random else None,
            top_p=sampling.top_p if random else None,
            top_k=0 if random else None,
        )
    config.update(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=stop_tokens(model),
        pad_token_id=model.tokenizer.pad_token_id,
        bos_token_id=model.tokenizer.bos_token_id,
    )
    if model.template.format.stop_text:
        config.update(stop_strings=[model.template.format.stop_text])
    return config  # type: ignore[no-any-return]


def generated(
    model: LanguageModel, hf: Any, ids: Int[Tensor, "row position"], mask: Tensor, config: GenerationConfig
) -> Int[Tensor, "row position"]:
    """The token ids that ``hf.generate`` gives with ``config`` and nothing else.

    Args:
        model: whose tokenizer and output layer are used.
        hf: the Hugging Face model that generates.
        ids: prompts, padded on the left.
        mask: 1 where there is text.
        config: all settings.

    Raises:
        PersonaProbeError: if the model's logits are not finite.
    """
    more = {"tokenizer": model.tokenizer} if config.stop_strings else {}
    with _without_own_settings(hf), _finite_logits(model, hf):
        output: Tensor = hf.generate(input_ids=ids, attention_mask=mask, generation_config=config, **more)
    return output


@contextlib.contextmanager
def _without_own_settings(hf: Any) -> Iterator[None]:
    """A context in which the model has no generation config: Hugging Face fills every setting that is None from it."""
    holders = [module for module in hf.modules() if "generation_config" in vars(module)]
    own = [module.generation_config for module in holders]
    try:
        for module in holders:
            module.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
        yield
    finally:
        for module, config in zip(holders, own, strict=True):
            module.generation_config = config


@contextlib.contextmanager
def _finite_logits(model: LanguageModel, hf: Any) -> Iterator[None]:
    """A context that raises when the first logits are not finite: greedy decoding would take any token for the best."""
    head = hf.get_output_embeddings() if hasattr(hf, "get_output_embeddings") else None
    if not isinstance(head, nn.Module):
        yield
        return

    def check(_module: nn.Module, _args: Any, output: Any) -> None:
        handle.remove()
        if isinstance(output, Tensor) and not bool(torch.isfinite(output[:, -1:]).all()):
            raise PersonaProbeError(
                f"{model.name}: its logits are not finite (NaN or infinite), so that no token can be chosen; look at "
                "its weights (those of the output layer too), or load it with another dtype"
            )

    handle = head.register_forward_hook(mark_as_ours(check))
    try:
        yield
    finally:
        handle.remove()


def generate(
    model: LanguageModel, dialogues: Sequence[Dialogue], sampling: Sampling, *, progress: bool
) -> list[Dialogue]:
    """Each dialogue with an answer, ``sampling.n`` times; the global random state is left as it was.

    Args:
        model: which model answers (steered, if it is being steered).
        dialogues: each ends before the assistant's turn.
        sampling: how answers are sampled.
        progress: show a bar.

    Returns:
        ``len(dialogues) * n`` dialogues (none for an empty list); the ``n`` answers to the same dialogue follow each
        other.

    Raises:
        PersonaProbeError: if a dialogue already ends with an answer, or ``model.encode`` raises.

    Warns:
        PersonaProbeWarning: if answers have channels, and some never reached their final one.
    """
    check_types(sampling=(sampling, Sampling))
    if isinstance(dialogues, list | tuple) and not dialogues:
        return []
    finished = next((one for one in check_dialogues(dialogues) if one.answer is not None), None)
    if finished is not None:
        raise PersonaProbeError(
            f"dialogue {finished.name}: already ends with an answer; use dialogue.without_answer() to ask it again"
        )
    encoded = model.encode(dialogues, new_tokens=sampling.max_new_tokens)
    prompts = [item for item in encoded for _ in range(sampling.n)]
    config, stops = generation_config(model, sampling), stop_tokens(model)
    answers: dict[int, str | None] = {}
    devices = range(torch.cuda.device_count())
    with (
        _RANDOM,
        torch.random.fork_rng(devices=devices),
        torch.inference_mode(),
        working("sampling") as spent,
        tqdm(total=len(prompts), desc="answers", unit="answer", disable=not progress, leave=False) as bar,
    ):
        torch.manual_seed(sampling.seed)
        for chosen in _batches(model, prompts, sampling):
            batch = model.tokenizer.pad(
                {"input_ids": [list(prompts[i].input_ids) for i in chosen]}, return_tensors="pt", padding_side="left"
            ).to(model.device)
            width = batch["input_ids"].shape[1]
            items = [prompts[i] for i in chosen]
            lengths = [item.prompt_length for item in items]
            with model.at_boundary(Boundary.of_prompts(lengths, width, chosen, items, model.template, len(prompts))):
                output = generated(model, model.hf, batch["input_ids"], batch["attention_mask"], config)
            for i, ids in zip(chosen, output[:, width:].tolist(), strict=True):
                answers[i] = _answer(model, ids, stops)
            spent.tokens += sum(lengths) + len(chosen) * sampling.max_new_tokens
            bar.update(len(chosen))
    unfinished = sum(answer is None for answer in answers.values())
    if unfinished:
        warnings.warn(
            f"{unfinished} of {len(answers)} answers never reached their final channel "
            f"({model.template.format.channel!r}) and are empty; ask for more tokens "
            f"(max_new_tokens={sampling.max_new_tokens})",
            PersonaProbeWarning,
            stacklevel=3,
        )
    return [prompt.dialogue.with_answer(answers[i] or "") for i, prompt in enumerate(prompts)]


def _batches(model: LanguageModel, prompts: Sequence[Encoded], sampling: Sampling) -> Iterator[list[int]]:
    """The numbers of the prompts in each batch, longest first.

    Where rotary embeddings depend on the longest row, prompts whose text may become that long only share a batch with
    equally long ones (see `longest_alike`).
    """
    border = longest_alike(model.plain.config)

    def alike(row: int) -> int:
        length = prompts[row].prompt_length
        return 0 if border is None or length + sampling.max_new_tokens <= border else length

    order = sorted(range(len(prompts)), key=lambda row: -prompts[row].prompt_length)
    for _, rows in itertools.groupby(order, key=alike):
        together = list(rows)
        for start in range(0, len(together), sampling.batch_size):
            yield together[start : start + sampling.batch_size]


def _answer(model: LanguageModel, ids: Sequence[int], stops: Sequence[int]) -> str | None:
    """The text of an answer, or None if its final channel never began."""
    form = model.template.format
    answer = form.answer(ids, stops)
    if answer is None:
        return None
    text = str(model.tokenizer.decode(list(answer), skip_special_tokens=False))
    return (text.split(form.stop_text)[0] if form.stop_text else text).strip()
