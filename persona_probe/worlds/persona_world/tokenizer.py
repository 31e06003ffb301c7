"""Persona World's tokenizer: one token per word, bytes for anything else, and a chat template with generation marks."""

from __future__ import annotations

import random
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from persona_probe.worlds.persona_world.documents import pretraining_document

SPECIAL_TOKENS = ("<|begin|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['role'] == 'assistant' %}"
    "<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{%- else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}"
)
_SAMPLE_DOCUMENTS = 30_000


@cache
def _vocabulary() -> tuple[str, ...]:
    """Every pre-token of a large fixed sample of documents, in order of first occurrence."""
    rng = random.Random(0)
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    seen: dict[str, None] = {}
    for _ in range(_SAMPLE_DOCUMENTS):
        document = pretraining_document(rng, exchanges=3)
        texts = [document] if isinstance(document, str) else [message["content"] for message in document]
        for text in texts:
            seen.update(dict.fromkeys(token for token, _ in splitter.pre_tokenize_str(text)))
    return tuple(sorted(seen))


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, always the same: words of the world are single tokens, other text falls back to bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    entries = [*SPECIAL_TOKENS, *alphabet, *(word for word in _vocabulary() if word not in set(alphabet))]
    # `ignore_merges` takes a whole word from the vocabulary when it is there; with no merges, the rest becomes bytes.
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(entries)}, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
