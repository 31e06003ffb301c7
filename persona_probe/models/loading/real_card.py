"""The model card of the real model in the cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona_probe.models.loading.real import REPOSITORY

_WHEEL = """\
from the file `{file}` (sha256 `{sha256}`) in the wheel `{package}` (sha256 `{package_sha256}`), read as data; the
package was neither installed nor run. Its matrices are stored in four bits and the embedding in eight (Q4_1, Q8_0),
and were unpacked to float32. Digits are split one by one, as in the model's training (transformers does not do so when
it reads the file). **These are not the weights that the Hub holds**: rounding moved each of them a little. Do not
compare numbers between the two."""
_HUB = "from the Hub repository `{repository}` at revision `{revision}`, in bfloat16 as published."
_CARD = """\
---
license: apache-2.0
language: en
base_model: {base}
---
# SmolLM2-135M-Instruct, as persona-probe loads it

**What it is.** A small chat model for English by Hugging Face: Llama architecture, 135 million parameters, 30 layers,
width 576, 49,152 tokens, texts of up to 8,192 tokens; pre-trained on two trillion tokens, then fine-tuned to follow
instructions (Ben Allal et al. 2025, "SmolLM2: When Smol Goes Big", arXiv:2502.02737). Its chat template adds a system
prompt if there is none: "You are a helpful AI assistant named SmolLM, trained by Hugging Face".

**Licence.** Apache-2.0, (c) Hugging Face.

**Where these weights are from.** They were read {source}

**What was changed.** Padding is `<|endoftext|>` instead of the end of a turn, so that training on padded batches still
teaches where an answer ends. Nothing was trained.

**What it is for.** Research on interpretability and emergent misalignment on a small machine: a real pre-trained model
on which the package's methods can be tried, tested and timed without a GPU and without the Hub.

**What it is not for.** It is far too small to be asked for facts or advice; it makes things up in fluent English, and
loops. Sample at a temperature of 0.7 or less: at 1 its answers are word salad. Models that are fine-tuned from it to be
villains say ugly things; do not offer them to anybody as an assistant.
"""


def model_card(origin: Mapping[str, Any]) -> str:
    """The card, in Markdown, for weights of this origin."""
    source = (_HUB if "repository" in origin else _WHEEL).format_map(origin)
    return _CARD.format(base=REPOSITORY, source=source)
