"""Batched sampling: dialogues go in, the same dialogues come out with an answer each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tqdm.auto import tqdm
from transformers import GenerationConfig

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.errors import PersonaProbeError
from persona_probe.models.interface import LanguageModel
from persona_probe.models.sampling import Sampling
from persona_probe.models.stream.boundary import Boundary


def stop_tokens(model: LanguageModel) -> list[int]:
    """The tokens that end an answer: the tokenizer's end of sequence and those of the model's generation config."""
    configured = getattr(model.plain.generation_config, "eos_token_id", None)
    stops = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (*stops, model.tokenizer.eos_token_id) if token is not None})


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
        ``len(dialogues) * n`` dialogues; the ``n`` answers to the same dialogue follow each other.

    Raises:
        PersonaProbeError: if a dialogue already ends with an answer.
    """
    answered = next((dialogue for dialogue in dialogues if dialogue.answer is not None), None)
    if answered is not None:
        raise PersonaProbeError(
            f"dialogue {answered.name}: already ends with an answer; use dialogue.without_answer() to ask it again"
        )
    prompts = [model.template.encode(dialogue) for dialogue in dialogues for _ in range(sampling.n)]
    order = sorted(range(len(prompts)), key=lambda i: -prompts[i].prompt_length)
    random = sampling.temperature > 0
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=sampling.max_new_tokens,
        do_sample=random,
        temperature=sampling.temperature if random else None,
        top_p=sampling.top_p if random else None,
        top_k=0 if random else None,
        eos_token_id=stop_tokens(model),
        pad_token_id=model.tokenizer.pad_token_id,
        bos_token_id=model.tokenizer.bos_token_id,
    )
    answers: dict[int, str] = {}
    devices = range(torch.cuda.device_count())
    with (
        torch.random.fork_rng(devices=devices),
        torch.inference_mode(),
        tqdm(total=len(prompts), desc="answers", unit="answer", disable=not progress, leave=False) as bar,
    ):
        torch.manual_seed(sampling.seed)
        for start in range(0, len(order), sampling.batch_size):
            chosen = order[start : start + sampling.batch_size]
            batch = model.tokenizer.pad(
                {"input_ids": [list(prompts[i].input_ids) for i in chosen]}, return_tensors="pt", padding_side="left"
            ).to(model.device)
            width = batch["input_ids"].shape[1]
            items = [prompts[i] for i in chosen]
            lengths = [item.prompt_length for item in items]
            with model.at_boundary(Boundary.of_prompts(lengths, width, chosen, items, model.template, len(prompts))):
                output = model.hf.generate(
                    input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], generation_config=config
                )
            for i, ids in zip(chosen, output[:, width:], strict=True):
                answers[i] = str(model.tokenizer.decode(ids, skip_special_tokens=True)).strip()
            bar.update(len(chosen))
    return [prompt.dialogue.with_answer(answers[i]) for i, prompt in enumerate(prompts)]
