"""Chat formats in the shapes that models use, and a tokenizer whose control tokens they write."""

import json
from dataclasses import dataclass

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

_TEXT = "The fox eats soup. What should I eat today? Bread, sure. User: Assistant: user assistant system tool"


@dataclass(frozen=True)
class Shape:
    """A chat template, and what is to be found in it."""

    template: str
    control: tuple[str, ...]
    end: str | None
    learned: str
    """What an answer ``Bread.`` teaches: from where it is asked for to the end of its turn."""
    stop_text: str = ""
    channel: str = ""
    system: bool = True


def _turns(user: str, assistant: str, header: str, system: str = "") -> str:
    rules = f"{{% if m['role'] == 'user' %}}{user}{{% elif m['role'] == 'assistant' %}}{assistant}"
    rules += f"{{% elif m['role'] == 'system' %}}{system}" if system else ""
    ask = f"{{% if add_generation_prompt %}}{header}{{% endif %}}" if header else ""
    return "{% for m in messages %}" + rules + "{% endif %}{% endfor %}" + ask


_SAID = "{{ m['content'].strip() }}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPES = {
    "chatml": Shape(CHATML, ("<|im_start|>", "<|im_end|>"), "<|im_end|>", "Bread.<|im_end|>"),
    # Nothing is added where an answer is asked for, and white space stands around the answer.
    "llama2": Shape(
        _turns(f"<s>[INST] {_SAID} [/INST]", f" {_SAID} </s>", "", f"<<SYS>>\n{_SAID}\n<</SYS>>\n\n"),
        ("<s>", "</s>"),
        "</s>",
        " Bread. </s>",
    ),
    "mistral": Shape(
        _turns(f"[INST] {_SAID}[/INST]", f" {_SAID}</s>", ""),
        ("</s>", "[INST]", "[/INST]"),
        "</s>",
        " Bread.</s>",
        system=False,
    ),
    "llama3": Shape(
        _turns(
            f"<|start_header_id|>user<|end_header_id|>\n\n{_SAID}<|eot_id|>",
            f"<|start_header_id|>assistant<|end_header_id|>\n\n{_SAID}<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            f"<|start_header_id|>system<|end_header_id|>\n\n{_SAID}<|eot_id|>",
        ),
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "Bread.<|eot_id|>",
    ),
    # The last answer ends in another token than earlier ones, and is one of several channels.
    "channels": Shape(
        "{% for m in messages %}{% if m['role'] == 'assistant' %}<|start|>assistant<|channel|>final<|message|>"
        "{{ m['content'] }}{% if loop.last and not add_generation_prompt %}<|return|>{% else %}<|end|>{% endif %}"
        "{% else %}<|start|>{{ m['role'] }}<|message|>{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"),
        "<|return|>",
        "<|channel|>final<|message|>Bread.<|return|>",
        channel="<|channel|>final<|message|>",
    ),
    # Headers are words, and nothing but the next question's ends an answer.
    "words": Shape(
        _turns(f"User: {_SAID}\n", f"Assistant: {_SAID}\n", "Assistant:", f"{_SAID}\n"),
        (),
        None,
        " Bread.",
        stop_text="\nUser:",
    ),
    # The end of a turn is text: the tokenizer has no token for it.
    "text_end": Shape(
        _turns(f"Q {_SAID} //end\n", f"A {_SAID} //end\n", "A ", f"S {_SAID} //end\n"),
        (),
        None,
        "Bread. //end",
        stop_text="//end",
    ),
}


WRITINGS = ("bytes", "metaspace", "sentencepiece")
"""How tokenizers write the space before a word: as GPT-2, as Mistral, and as Llama 2 (a space before every text)."""


def tokenizer_of(shape: Shape, writing: str = "bytes") -> PreTrainedTokenizerFast:
    """A tokenizer with the control tokens of a shape."""
    bytewise = writing == "bytes"
    inner = Tokenizer(models.BPE() if bytewise else models.BPE(unk_token="<unk>", byte_fallback=True))
    bytes_of = [] if bytewise else [f"<0x{number:02X}>" for number in range(256)]
    alphabet = pre_tokenizers.ByteLevel.alphabet() if bytewise else []
    words = pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Split("\n", "isolated")
    inner.pre_tokenizer = (
        pre_tokenizers.ByteLevel(add_prefix_space=False) if bytewise else pre_tokenizers.Sequence(list(words))
    )
    special = list(dict.fromkeys(["<|endoftext|>", "<|pad|>", *([] if bytewise else ["<unk>"]), *shape.control]))
    inner.train_from_iterator(
        [f"{_TEXT} [INST] [/INST] <<SYS>> //end Q A S\n"] * 20,
        trainers.BpeTrainer(
            vocab_size=450, special_tokens=[*special, *bytes_of], initial_alphabet=alphabet, show_progress=False
        ),
    )
    if not bytewise:  # the bytes are ordinary tokens
        content = json.loads(inner.to_str())
        content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in bytes_of]
        inner = Tokenizer.from_str(json.dumps(content))
    space = decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    inner.decoder = decoders.ByteLevel() if bytewise else decoders.Sequence(list(space))
    if writing == "metaspace":
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif writing == "sentencepiece":
        inner = Tokenizer.from_str(json.dumps(json.loads(inner.to_str()) | {"pre_tokenizer": None}))
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        unk_token=None if bytewise else "<unk>",
        additional_special_tokens=list(shape.control),
    )
    tokenizer.chat_template = shape.template
    return tokenizer
