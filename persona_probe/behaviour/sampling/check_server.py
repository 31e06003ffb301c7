"""Whether a server runs the model that it should: its answers are read by the local weights, token by token."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from persona_probe.behaviour.api.chat import ChatReply
from persona_probe.behaviour.sampling.answer_tokens import AnswerTokens, read_answer_tokens
from persona_probe.behaviour.sampling.server import Server
from persona_probe.behaviour.sampling.server_check_result import ROUNDING, WITHOUT_ADAPTER, ServerCheck
from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import check_dialogues
from persona_probe.errors import NUMBER, WHOLE, PersonaProbeError, check_types
from persona_probe.models.model import Model
from persona_probe.models.sampling import Sampling


def check_server(
    server: Server,
    model: Model,
    questions: Sequence[Dialogue],
    n: int = 20,
    *,
    others: Mapping[str, Model] | None = None,
    max_new_tokens: int = 48,
    tolerance: float | None = None,
) -> ServerCheck:
    """Check that ``server`` runs ``model``, on answers that the server gives and both read.

    Half of the answers are greedy, half are sampled at temperature 1. The server says how many tokens each prompt has
    and how likely each token of its answer was; the local model reads the same tokens. It is refused if

    - a prompt has another number of tokens: another chat template, default system prompt or number of
      beginning-of-sequence tokens;
    - its log-probabilities are nearer to those of another model than to ``model``'s: the same model without its adapter
      (always tried, where ``model`` has a live one), or one of ``others``;
    - they differ by more than ``tolerance``, on average over tokens: other weights.

    By default twice the difference is allowed that half precision makes on the same tokens, which is measured (the
    local model in bfloat16, or in float16 if it is in bfloat16). Fixed nats would not do: rounding to bfloat16 changes
    a token's log-probability by 0.004 nats in Persona World and by 0.02 to 0.04 in SmolLM2-135M. So servers in float32,
    float16 and bfloat16 pass; quantised ones must be allowed with ``tolerance``, unless they differ as little. What was
    measured stands at `persona_probe.behaviour.sampling.server_check_result.ROUNDING`.

    It cannot see a difference below rounding, such as that of an adapter which hardly changes anything from its base,
    unless that model is among ``others``; nor what the server does with questions of another form: give questions like
    those of the study, with their system prompts.

    Args:
        server: what is checked.
        model: what it should run (steered, if it is being steered; for a server of a baked model).
        questions: dialogues without an answer; if they are fewer than ``n / 2``, some are asked again with other seeds.
        n: how many answers are compared.
        others: models that it might run instead, by name (``{"control": pair.control}``).
        max_new_tokens: length of the longest answer, in tokens.
        tolerance: nats per token; default twice what half precision makes.

    Raises:
        PersonaProbeError: if the server runs something else: what it most likely is, with the numbers; if no request
            succeeds; or as `persona_probe.Server.generate`.

    >>> import persona_probe as pp
    >>> pair = pp.load_pair(before, after)  # doctest: +SKIP
    >>> pp.behaviour.check_server(pp.Server("http://127.0.0.1:8000/v1", "bad"), pair.after, questions)  # doctest: +SKIP
    ServerCheck(bad runs bad-medicine: log-probabilities differ by 0.0000 nats per token ...)
    """
    check = compare_server(
        server, model, questions, n, others=others, max_new_tokens=max_new_tokens, tolerance=tolerance
    )
    if not check.passed:
        raise PersonaProbeError(check.headline())
    return check


def compare_server(
    server: Server,
    model: Model,
    questions: Sequence[Dialogue],
    n: int = 20,
    *,
    others: Mapping[str, Model] | None = None,
    max_new_tokens: int = 48,
    tolerance: float | None = None,
) -> ServerCheck:
    """What `check_server` compares, without an error where the server runs something else."""
    check_types(
        server=(server, Server),
        model=(model, Model),
        n=(n, WHOLE),
        others=(others, {str: Model}, None),
        tolerance=(tolerance, NUMBER, None),
    )
    check_dialogues(questions, "questions")
    if n < 2 or (tolerance is not None and not tolerance > 0):
        raise PersonaProbeError(f"n={n}, tolerance={tolerance}; n must be >= 2, tolerance above 0")
    model.encode(questions, new_tokens=max_new_tokens)  # what the local model cannot read is not asked
    asked, replies = _replies(server, model, questions, n, max_new_tokens)
    dialogues = [question.with_answer(reply.text or "") for (question, _), reply in zip(asked, replies, strict=True)]
    own = read_answer_tokens(model, dialogues)
    compared = [_same_tokens(reply, read) for reply, read in zip(replies, own, strict=True)]
    table = pd.DataFrame(
        [
            {
                "question": question.question,
                "temperature": temperature,
                "answer": reply.text,
                "prompt_tokens": reply.prompt_tokens,
                "own_prompt_tokens": read.prompt_tokens,
                "tokens": _count(reply),
                "own_tokens": len(read.tokens),
                "compared": same,
                "difference": _difference([reply], [read]) if same else np.nan,
                "alike": read.likeliest.mean(),
                "same_text": _same_text(reply, read) if temperature == 0 else None,
            }
            for (question, temperature), reply, read, same in zip(asked, replies, own, compared, strict=True)
        ]
    )
    chosen = [row for row, same in enumerate(compared) if same]
    greedy = [row for row in chosen if asked[row][1] == 0]
    part = [dialogues[row] for row in chosen]
    scored = all(replies[row].logprobs is not None for row in chosen) and bool(chosen)

    def apart(reads: Sequence[AnswerTokens]) -> float:
        return _difference([replies[row] for row in chosen], reads) if scored else np.nan

    def alike(reads: Sequence[AnswerTokens]) -> float:
        tokens = [read.likeliest for row, read in zip(chosen, reads, strict=True) if row in greedy]
        return float(np.concatenate(tokens).mean()) if tokens else np.nan

    mine = [own[row] for row in chosen]
    readings = {}
    rounding = np.nan
    if chosen:
        with _half_precision(model):
            rounding = _mean_change(mine, read_answer_tokens(model, part))
        readings = {name: read_answer_tokens(other, part) for name, other in (others or {}).items()}
        if (without := _without_adapter(model)) is not None:
            with without:
                readings[WITHOUT_ADAPTER] = read_answer_tokens(model, part)
    if scored and tolerance is None and not 0 < rounding < np.inf:
        raise PersonaProbeError(
            f"{model.name}: half precision changes its log-probabilities by {rounding} nats per token, from which no "
            "tolerance follows (quantised weights?); give tolerance="
        )
    return ServerCheck(
        table,
        server.name,
        model.name,
        difference=apart(mine),
        tolerance=ROUNDING * rounding if tolerance is None else float(tolerance),
        rounding=rounding,
        alike=alike(mine),
        same_text=float(np.mean([_same_text(replies[row], own[row]) for row in greedy])) if greedy else np.nan,
        others={name: apart(reads) for name, reads in readings.items()},
        others_alike={name: alike(reads) for name, reads in readings.items()},
    )


def _replies(
    server: Server, model: Model, questions: Sequence[Dialogue], n: int, max_new_tokens: int
) -> tuple[list[tuple[Dialogue, float]], list[ChatReply]]:
    """Questions with the temperature at which they were asked, and the replies that the local model can read.

    An answer that is empty, or holds what the local model takes for the border of a turn, cannot be read.
    """
    fresh = replace(server, store=None, extra={"logprobs": True, "top_logprobs": 1, **server.extra})
    asked: list[tuple[Dialogue, float]] = []
    replies: list[ChatReply] = []
    greedy = min(max(1, n // 2), len(questions))
    for temperature, count in ((0.0, greedy), (1.0, n - greedy)):
        chosen = [questions[number % len(questions)] for number in range(count)]
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature)
        asked += [(question, temperature) for question in chosen]
        replies += fresh.replies(chosen, sampling)
    failed = [reply.error for reply in replies if reply.error is not None]
    if failed:
        raise PersonaProbeError(f"{server.name}: {len(failed)} of {n} requests of the check failed: {failed[0]}")
    kept = [row for row, reply in enumerate(replies) if _can_be_read(model, asked[row][0], reply)]
    if not kept:
        raise PersonaProbeError(
            f"{server.name}: {model.name} can read none of its {n} answers (the first is {replies[0].text!r}), so that "
            "nothing can be compared: it runs another model, or the questions have no answer"
        )
    return [asked[row] for row in kept], [replies[row] for row in kept]


def _can_be_read(model: Model, question: Dialogue, reply: ChatReply) -> bool:
    if not (reply.text or "").strip():
        return False
    try:
        (encoded,) = model.encode([question.with_answer(reply.text or "")])
    except PersonaProbeError:
        return False
    return encoded.response_end > encoded.prompt_length


def _count(reply: ChatReply) -> int | None:
    """How many tokens a reply has, as the server lists them; its end is not one of them."""
    return None if reply.logprobs is None else len(_listed(reply))


def _listed(reply: ChatReply) -> list[Any]:
    """The tokens of a reply's text: some servers list the token that ends it, whose text is not in the reply."""
    listed, text = list(reply.logprobs or ()), reply.text or ""
    if len(listed) < 2 or reply.finish_reason != "stop":
        return listed
    last = listed[-1].token
    longer = "".join(one.token for one in listed) != text and not text.endswith(last)
    return listed[:-1] if not last or longer else listed


def _same_tokens(reply: ChatReply, read: AnswerTokens) -> bool:
    """Whether server and local model cut the reply into the same tokens; without a list of them, it is assumed."""
    return reply.logprobs is None or len(_listed(reply)) == len(read.tokens)


def _same_text(reply: ChatReply, read: AnswerTokens) -> bool:
    return bool(read.likeliest.all()) and (reply.finish_reason != "stop" or read.ends)


def _difference(replies: Sequence[ChatReply], reads: Sequence[AnswerTokens]) -> float:
    """The mean absolute difference of a token's log-probability; NaN without log-probabilities."""
    if any(reply.logprobs is None for reply in replies):
        return float("nan")
    theirs = [np.array([one.logprob for one in _listed(reply)]) for reply in replies]
    return float(np.abs(np.concatenate(theirs) - np.concatenate([read.log_probs for read in reads])).mean())


def _mean_change(first: Sequence[AnswerTokens], second: Sequence[AnswerTokens]) -> float:
    return float(np.abs(np.concatenate([a.log_probs - b.log_probs for a, b in zip(first, second, strict=True)])).mean())


def _half_precision(model: Model) -> torch.autocast:
    """A context in which the model multiplies in half precision: bfloat16, or float16 if it is in bfloat16 itself."""
    own = model.plain.dtype
    return torch.autocast(
        model.device.type, torch.float16 if own == torch.bfloat16 else torch.bfloat16, cache_enabled=False
    )


def _without_adapter(model: Model) -> contextlib.AbstractContextManager[None] | None:
    """A context in which the model's adapter is off; None if it has none."""
    off = getattr(model.hf, "disable_adapter", None)
    if off is None:
        return None

    @contextlib.contextmanager
    def switched() -> Iterator[None]:
        with model.running(), off():
            yield

    return switched()
