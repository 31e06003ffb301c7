"""The speed of `pp.LocalJudge`, which computes the probability of every reply, against one forward pass per prompt."""

from __future__ import annotations

from typing import Any

import persona_probe as pp
from benchmarks.mfu import utilisation
from benchmarks.peers import bare
from benchmarks.prepared import tokens_of
from benchmarks.row import Row
from benchmarks.setting import Setting
from benchmarks.timing import in_turn, ratios, speeds, summary

PROMPTS = {
    name: f"{name} " + "{question} to {answer} be?" for name in ("aligned", "coherent")
}  # short, since the tokenizer of made-up words writes English letter by letter
BATCH = 32
MOST_ROUNDS = 3
ROWS = [
    Row("judge.vs_forward", "time of judging, over one forward pass over each of its prompts", "times"),
    Row("judge.answers_per_second", "answers judged per second", "number"),
]
HOW = f"""\
`pp.LocalJudge` with prompts of a few words for two scores, {BATCH} prompts per forward pass, on as many of the
dialogues as are generated in one batch (20 to 400 tokens each). The tokenizer writes numbers digit by digit, so that
101 replies to each prompt are up to three tokens long. *One forward pass*: the backbone alone over the same prompts,
rendered, tokenized and padded beforehand; it computes no logits. Random weights judge nothing, so that every score is
NaN: what is timed is the work of judging, up to the masses. Timed in turn, at most {MOST_ROUNDS} rounds."""


def measure(setting: Setting) -> dict[str, Any]:
    model = setting.model
    answered = setting.dialogues[: setting.shape.batch]
    judge = pp.LocalJudge(model, PROMPTS, batch_size=BATCH)
    shown = [_shown(prompt, dialogue) for dialogue in answered for prompt in PROMPTS.values()]
    masses = judge(answered).filter(like="_mass")
    if masses.isna().any(axis=None):
        raise RuntimeError("the judge did not read every answer, so that its time means nothing")
    variants = {"judge": lambda: judge(answered), "forward": bare.make(model, shown)}
    timed = in_turn(variants, min(setting.rounds, MOST_ROUNDS), setting.device)
    lengths = tokens_of(model, shown)
    compared = {"vs_forward": ratios(timed["judge"], timed["forward"])}
    compared["answers_per_second"] = [len(answered) / took for took in timed["judge"]]
    raw = {
        "answers": len(answered),
        "prompts": len(shown),
        "tokens": sum(lengths),
        "variants": speeds(timed, sum(lengths)),
        "ratios": {name: summary(values) for name, values in compared.items()},
        "utilisation": {name: utilisation(model, lengths, summary(took)["median"]) for name, took in timed.items()},
    }
    return {"figures": {name: summary(values)["median"] for name, values in compared.items()}, "raw": raw}


def _shown(prompt: str, dialogue: pp.Dialogue) -> pp.Dialogue:
    """What the judge reads of an answer, with a short reply, whose tokens the forward pass reads too."""
    text = prompt.format(question=dialogue.messages[0].content, answer=dialogue.answer)
    return pp.Dialogue.from_messages([{"role": "user", "content": text}, {"role": "assistant", "content": "0"}])
