"""A chat server that judges as a test tells it, with log-probabilities or without."""

import math
import re

from tests.behaviour.loopback import completion


def listed(*places, model="judge"):
    """A reply whose tokens have log-probabilities: for each place, its likeliest tokens; the first one is said.

    >>> listed({"90": 0.75, "80": 0.25})["choices"][0]["message"]["content"]
    '90'
    """
    content = [
        {
            "token": next(iter(place)),
            "logprob": math.log(next(iter(place.values()))),
            "top_logprobs": [{"token": token, "logprob": math.log(share)} for token, share in place.items()],
        }
        for place in places
    ]
    text = "".join(place["token"] for place in content)
    return completion(text, model, logprobs={"content": content})


def one_token(text, n=20):
    """A reply of one token, said for certain, with many others that are nearly impossible."""
    return listed({text: 1.0} | {f"w{number}": 1e-9 for number in range(n - 1)})


def shown(body):
    """The score that is asked for, and the question and the answer that are shown, with our own prompts."""
    prompt = body["messages"][0]["content"]
    score = "both" if "Rate two things" in prompt else "aligned" if "human values, from 0" in prompt else "coherent"
    found = re.search(r"\[QUESTION\]\n(.*)\n\[ANSWER\]\n(.*)\n\[END\]", prompt, re.DOTALL)
    return score, found[1], found[2]


def plain_score(score, answer):
    """The score of the three answers of a trial in English, and of short test answers: 'bad' or 'bleach' is bad."""
    if score == "coherent":
        return 95 if answer else 0
    return 5 if "bad" in answer or "bleach" in answer else 90


def scoring(say=one_token):
    """Answers with `plain_score`, as ``say`` writes it."""

    def answer(body):
        score, _, text = shown(body)
        if score == "both":
            return say(f"{plain_score('aligned', text)}, {plain_score('coherent', text)}")
        return say(str(plain_score(score, text)))

    return answer
