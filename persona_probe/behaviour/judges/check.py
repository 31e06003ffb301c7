"""Checks of a judge before it is used: its options, its model and its chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from persona_probe.behaviour.judges.answer_tree import encoded_replies
from persona_probe.behaviour.judges.turn import plain_turn
from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.load import specify
from persona_probe.models.loading.memory import footprint
from persona_probe.models.loading.sources import read_config
from persona_probe.models.loading.spec import LoadOptions, ModelSpec, Quantize
from persona_probe.models.loading.templates import load_template
from persona_probe.models.positions import max_positions

if TYPE_CHECKING:
    from persona_probe.dialogue.rendering import ChatTemplate


_OF_THE_ADAPTER = ("adapter", "adapter_revision", "merge")
LOAD_OPTIONS = (*_OF_THE_ADAPTER, *LoadOptions.__annotations__)
"""The keyword arguments of `persona_probe.load`."""


def check_source(source: str, options: Mapping[str, Any], asked: Mapping[str, Sequence[str]]) -> None:
    """Raise if the model in a folder or with a Hub id cannot judge.

    Args:
        source: folder or Hub id.
        options: keyword arguments of `persona_probe.load`.
        asked: the replies that each prompt template asks for.

    Raises:
        PersonaProbeError: if there is no such model or no tokenizer, an option is wrong, or `check_template` raises.
    """
    spec = _specified(source, options)
    chat = load_template(spec)
    footprint(spec)  # from the config alone: it raises if this is not a causal language model, or for an unknown dtype
    check_template(chat, spec.name, max_positions(read_config(spec.source, spec.options)), asked)


def template_of(source: str, options: Mapping[str, Any]) -> ChatTemplate:
    """The chat template of the model in a folder or with a Hub id; no weights are read. Raises as `check_source`."""
    return load_template(_specified(source, options))


def _specified(source: str, options: Mapping[str, Any]) -> ModelSpec:
    """Which model ``source`` names, as `persona_probe.load` with these keyword arguments would load it."""
    rest: dict[str, Any] = {name: value for name, value in options.items() if name not in _OF_THE_ADAPTER}
    quantize = rest.get("quantize")
    if quantize not in (None, *get_args(Quantize)):
        raise PersonaProbeError(f"{source}: quantize is {quantize!r}; give one of {', '.join(get_args(Quantize))}")
    adapter = {name: options[name] for name in _OF_THE_ADAPTER if name in options}
    return specify(source, **adapter, options=LoadOptions(**rest))  # type: ignore[typeddict-item]


def tokens_to_judge(chat: ChatTemplate, template: str, replies: Sequence[str]) -> int:
    """The number of tokens that a judge reads for one score besides the question and the answer.

    They are those of its prompt, and every beginning of every reply, each once.

    Args:
        chat: the judge's chat template.
        template: a text with ``{question}`` and ``{answer}``.
        replies: what the judge may reply.
    """
    prompt = plain_turn(chat, template, name="the judge", most=None, room=0)
    encoded = encoded_replies(chat, replies, "the judge").values()
    tokens = [reply.input_ids[reply.span("response")] for reply in encoded]
    return len(prompt) + len({reply[: end + 1] for reply in tokens for end in range(len(reply))})


def check_template(chat: ChatTemplate, name: str, most: int | None, asked: Mapping[str, Sequence[str]]) -> None:
    """Raise if a chat template cannot hold a short prompt and its replies.

    Args:
        chat: the judge's chat template.
        name: the name of the judging model, for errors.
        most: the greatest number of tokens that the model reads; None if it states no limit.
        asked: the replies that each prompt template asks for.

    Raises:
        PersonaProbeError: if there is no chat template, it changes a reply or two replies are the same tokens, or a
            prompt with an answer of one character is longer than the model reads.
    """
    for template, replies in asked.items():
        encoded = encoded_replies(chat, replies, name).values()
        longest = max(reply.response_end - reply.prompt_length for reply in encoded)
        plain_turn(chat, template, name=name, most=most, room=longest)


def check_options(options: Mapping[str, Any], loaded: str | None) -> dict[str, Any]:
    """A copy of ``options``, if `persona_probe.load` has all of them.

    Args:
        options: keyword arguments.
        loaded: the name of the judging model if it is loaded already; else None.

    Raises:
        PersonaProbeError: if it does not have one of them, or the model is loaded already.
    """
    if options and loaded is not None:
        raise PersonaProbeError(
            f"LocalJudge: options={', '.join(options)} say how to load a model, but {loaded} is loaded already; "
            "give its folder or Hub id"
        )
    if unknown := [name for name in options if name not in LOAD_OPTIONS]:
        raise PersonaProbeError(
            f"LocalJudge: there is no option {unknown[0]!r}; persona_probe.load has {', '.join(LOAD_OPTIONS)}"
        )
    return dict(options)
