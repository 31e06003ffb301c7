"""Our tiny models behind the loopback server, run by transformers alone: its template, its generate, its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from persona_probe.models.model import Model
from tests.behaviour.loopback import Answer, completion


def served(models: dict[str, Model], *, template: str | None = None, logprobs: bool = True) -> Answer:
    """Answers as these models do.

    Args:
        models: by the names that the server has for them.
        template: a chat template to use instead of their own.
        logprobs: whether the server gives log-probabilities, if it is asked for them.
    """

    @torch.inference_mode()
    def answer(body: dict[str, Any]) -> dict[str, Any]:
        model = models[body["model"]]
        with model.running():
            tokenizer, end = model.tokenizer, model.template.format.end
            text = tokenizer.apply_chat_template(
                body["messages"], tokenize=False, add_generation_prompt=True, chat_template=template
            )
            prompt = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids
            torch.manual_seed(body.get("seed", 0))
            random = {"do_sample": True, "temperature": body["temperature"], "top_k": 0} if body["temperature"] else {}
            whole = model.hf.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=body["max_tokens"],
                eos_token_id=end,
                pad_token_id=tokenizer.pad_token_id,
                **random,
            )
            written = whole[0, prompt.shape[1] :].tolist()
            content = [token for token in written if token != end]
            scores = _log_probs(model, whole, prompt.shape[1]) if logprobs and body.get("logprobs") else None
        listed = None
        if scores is not None:
            listed = {
                "content": [
                    {"token": tokenizer.decode([token]), "logprob": score, "top_logprobs": []}
                    for token, score in zip(written, scores, strict=True)
                ]
            }
        reply = completion(
            tokenizer.decode(content),
            body["model"],
            finish_reason="stop" if len(content) < len(written) else "length",
            logprobs=listed,
        )
        reply["usage"] = {"prompt_tokens": prompt.shape[1], "completion_tokens": len(written)}
        return reply

    return answer


def _log_probs(model: Model, ids: torch.Tensor, start: int) -> Sequence[float]:
    logits = model.hf(input_ids=ids).logits[0, start - 1 : -1].float()
    return torch.log_softmax(logits, dim=-1).gather(1, ids[0, start:, None])[:, 0].tolist()
