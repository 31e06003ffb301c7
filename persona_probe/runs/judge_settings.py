"""A study's settings on who judges: a judge by name, a local model, or a model behind an API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationInfo, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from persona_probe.behaviour.api.client import ApiClient
from persona_probe.behaviour.judges.judge import JUDGES
from persona_probe.errors import PersonaProbeError
from persona_probe.runs.model_settings import Settings, Weights


class JudgeModel(Weights):
    """A local language model as judge (`persona_probe.behaviour.LocalJudge`): no API, no data leave the machine."""

    model: str
    """Folder or Hub id of any causal language model with a chat template."""
    prompts: Path | None = None
    """A question YAML file with 'judge_prompts' (Betley et al. publish one); default our own prompts."""
    batch_size: int = Field(8, ge=1)
    """How many answers are judged in one forward pass."""
    device: str | None = None
    """cuda, cpu, ...; default a GPU if there is one."""


class JudgeApi(Settings):
    """A chat model behind an API as judge (`persona_probe.ApiJudge`): questions and answers are sent to its server."""

    api: Literal["openai"]
    """openai: any server with OpenAI's chat API (OpenAI, vLLM, llama.cpp, ...)."""
    model: str = Field(min_length=1)
    """What the server calls the model."""
    base_url: str = "https://api.openai.com/v1"
    """The server's address. A key never stands in it, nor anywhere else in a study."""
    api_key_env: str | None = "OPENAI_API_KEY"
    """The environment variable that holds the key; servers of your own need none."""
    prompts: Path | None = None
    """A question YAML file with 'judge_prompts' (Betley et al. publish one); default our own prompts."""
    one_call: bool = False
    """Ask for both scores in one reply, with a prompt of ours: half the cost, but the second score knows the first."""
    samples: int = Field(1, ge=1)
    """How many texts are averaged where the server lists no log-probabilities."""
    top_logprobs: int = Field(20, ge=0, le=20)
    """How many of the likeliest tokens the server lists; 0 reads texts."""
    most_failures: float = Field(0.1, ge=0, le=1)
    """The share of answers without a score above which the study stops; its answers and replies stay stored."""
    concurrency: int = Field(16, ge=1)
    """How many requests are under way at the same time."""
    requests_per_minute: float | None = Field(None, gt=0)
    """The most requests in a minute; default no limit."""
    prices: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = None
    """What a million tokens cost to read and to write, for the plan and the manifest."""

    @field_validator("base_url", "api_key_env")
    @classmethod
    def _holds_no_key(cls, given: str | None, info: ValidationInfo) -> str | None:
        known = {"base_url": "http://127.0.0.1:1/v1", "api_key_env": None} | {str(info.field_name): given}
        try:
            ApiClient(model="any", **known)  # type: ignore[arg-type]
        except PersonaProbeError as error:
            raise PydanticCustomError(MAY_BE_A_KEY, "{words}", {"words": str(error)}) from None
        return given


MAY_BE_A_KEY = "may_be_a_key"
"""The type of mistakes whose value may be a key, which no message quotes."""


def _kind_of_judge(given: object) -> str:
    """Which kind of judge was meant, so that only mistakes in that kind are reported."""
    if isinstance(given, JudgeApi) or (isinstance(given, dict) and {"api", "base_url", "api_key_env"} & {*given}):
        return API
    return LOCAL if isinstance(given, dict | JudgeModel) else NAMED


def _known_judge(name: str) -> str:
    if name not in JUDGES:
        raise ValueError(
            f"there is no such judge; choose one of {', '.join(JUDGES)}, or give a model: {{model: FOLDER_OR_ID}}, or "
            "{api: openai, model: NAME}"
        )
    return name


LOCAL, API, NAMED = "local model", "model behind an API", "named"
NamedJudge = Annotated[str, AfterValidator(_known_judge), WithJsonSchema({"enum": list(JUDGES), "type": "string"})]
AnyJudge = Annotated[
    Annotated[JudgeModel, Tag(LOCAL)] | Annotated[JudgeApi, Tag(API)] | Annotated[NamedJudge | None, Tag(NAMED)],
    Discriminator(_kind_of_judge),
]
