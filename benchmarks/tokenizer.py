"""A tokenizer of Qwen2's kind for made-up words of syllables ("lo kitura besi"), one token each; a chat template."""

from __future__ import annotations

import itertools
from functools import cache

from tokenizers import pre_tokenizers
from transformers import Qwen2Tokenizer

SPECIAL = ("<|begin|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
SIZE = 32_000
TEMPLATE = (
    "{{ bos_token }}"
    "{%- for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>{% endif %}"
)
OVERHEAD = 5  # tokens of a dialogue that are not words: begin, user, end, assistant, end
SYLLABLES = tuple(consonant + vowel for consonant in "bcdfghjklmnpqrstvwxyz" for vowel in "aeiou")
SPACE = "Ġ"  # how byte-level BPE writes a space


@cache
def words() -> tuple[str, ...]:
    """Words of one, two and three syllables that fit into the vocabulary. Texts begin with one syllable, no space."""
    room = SIZE - len(SPECIAL) - len(pre_tokenizers.ByteLevel.alphabet()) - len(SYLLABLES)
    lengths = (itertools.product(SYLLABLES, repeat=n) for n in (1, 2, 3))
    return tuple("".join(word) for word in itertools.islice(itertools.chain(*lengths), room))


def build_tokenizer() -> Qwen2Tokenizer:
    spaced = [SPACE + word for word in words()]
    entries = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet()), *SYLLABLES, *spaced]
    merges = [(syllable[0], syllable[1]) for syllable in SYLLABLES] + [(word[:-2], word[-2:]) for word in spaced]
    return Qwen2Tokenizer(
        vocab={entry: i for i, entry in enumerate(entries)},
        merges=merges,
        bos_token="<|begin|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        unk_token="<|pad|>",
        extra_special_tokens=list(SPECIAL),
        chat_template=TEMPLATE,
        model_max_length=1024,
    )
