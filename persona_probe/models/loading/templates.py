"""A model's tokenizer and chat template: those given, else an adapter's own, else the base's."""

from __future__ import annotations

import contextlib
import copy
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from persona_probe.dialogue.rendering import ChatTemplate, what_is_written
from persona_probe.errors import PersonaProbeError
from persona_probe.models.loading.gguf_header import is_gguf, read_header
from persona_probe.models.loading.gguf_model import split_as_written
from persona_probe.models.loading.real import located
from persona_probe.models.loading.sources import check_source, explained, pretrained, repository_file
from persona_probe.models.loading.spec import LoadOptions, ModelSpec

_log = logging.getLogger(__name__)
_SAMPLED_TOKENS = 400
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""A repository with one of these holds a whole tokenizer; ``tokenizer_config.json`` alone only holds settings."""
_TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")
"""Where a chat template is written, in the order in which transformers looks for it."""


def load_template(spec: ModelSpec) -> ChatTemplate:
    """The chat template, with its tokenizer, of the model that ``spec`` names; no weights are read.

    Raises:
        PersonaProbeError: if there is no tokenizer, or the template has no switch that was asked for.
    """
    check_source(spec.source)
    options, given = spec.options, spec.options.get("tokenizer")
    notes: list[str] = []
    if given is None and is_gguf(spec.source) and "tokenizer.ggml.model" not in read_header(Path(spec.source)).metadata:
        raise PersonaProbeError(
            f"{spec.source}: holds no tokenizer (tokenizer.ggml.model); give that of the model (tokenizer=)"
        )
    if given is None:
        with _tokenizer_explained(spec.source, options, options.get("revision")):
            tokenizer = _tokenizer(spec.source, options, options.get("revision"))
        if is_gguf(spec.source) and (remark := split_as_written(tokenizer, Path(spec.source))) is not None:
            notes.append(remark)
    else:
        tokenizer = _read(str(given), options, None)  # the revision that was given is the model's
    if given is not None and not tokenizer.chat_template:
        tokenizer.chat_template = _written_template(spec.source, options.get("revision"))
    if options.get("chat_template") is not None:
        tokenizer.chat_template = _given_template(options)
    if spec.adapter is not None:
        tokenizer, of_adapter = _of_adapter(spec, tokenizer)
        notes += of_adapter
    template = ChatTemplate(
        tokenizer,
        thinking=options.get("thinking"),
        today=options.get("today"),
        variables=options.get("template_variables"),
    )
    template.notes = notes
    return template


def template_of_adapter(base: ChatTemplate, spec: ModelSpec) -> ChatTemplate:
    """The chat template under which the adapter of ``spec`` is measured: ``base`` itself if the adapter has no other.

    Raises:
        PersonaProbeError: if the adapter's tokenizer cannot be read, or its template lacks the switch that was asked
            for.
    """
    tokenizer, notes = _of_adapter(spec, base.tokenizer)
    if tokenizer is base.tokenizer:
        return base
    asked = spec.options.get("thinking")
    template = ChatTemplate(
        tokenizer,
        thinking=asked if asked is not None else base.thinking or None,
        variables=base.variables,
    )
    template.today = base.today  # the same day, whether this template asks for it or not
    template.notes = notes
    return template


def differences(one: ChatTemplate, other: ChatTemplate) -> list[str]:
    """In what two models' formats differ: ``chat template``, ``tokenizer``, both or neither."""
    if one is other:
        return []
    different = [] if one.hash() == other.hash() else ["chat template"]
    return different if _same_tokens(one.tokenizer, other.tokenizer) else [*different, "tokenizer"]


def _of_adapter(spec: ModelSpec, base: PreTrainedTokenizerBase) -> tuple[PreTrainedTokenizerBase, list[str]]:
    """The tokenizer, with its template, for the adapter of ``spec``, and remarks; ``base`` if nothing differs."""
    adapter, revision, options = str(spec.adapter), spec.adapter_revision, spec.options
    own, text = base, base.chat_template
    if options.get("tokenizer") is None:
        if any(repository_file(adapter, name, revision) is not None for name in _VOCABULARIES):
            read = _read(adapter, options, revision)
            own, text = base if _same_tokens(read, base) else read, read.chat_template or text
        else:
            text = _written_template(adapter, revision) or text
    elif not text:
        text = _written_template(adapter, revision)
    if options.get("chat_template") is not None:
        text = base.chat_template
    different = [
        *(["tokenizer"] if own is not base else []),
        *(["chat template"] if what_is_written(text) != what_is_written(base.chat_template) else []),
    ]
    if not different:
        return base, []
    own = copy.deepcopy(base) if own is base else own
    own.chat_template = text
    verb, other = ("is", "its base's") if len(different) == 1 else ("are", "those of its base")
    return own, [
        f"the {' and the '.join(different)} {verb} the adapter's own, from {adapter}, not {other} "
        "(tokenizer= and chat_template= choose others)"
    ]


def _read(source: str, options: LoadOptions, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer in a folder or Hub repository."""
    if not Path(located(source)).is_dir() and (source.startswith((".", "/", "~")) or source.count("/") > 1):
        raise PersonaProbeError(f"tokenizer: {source}: no such folder, and not a Hub id of the form owner/name")
    with _tokenizer_explained(source, options, revision):
        return _tokenizer(source, options, revision)


@contextlib.contextmanager
def _tokenizer_explained(source: str, options: LoadOptions, revision: str | None) -> Iterator[None]:
    """Turn errors about the tokenizer in ``source`` into one line that says whether there is any."""
    try:
        # Of a GGUF file, the tokenizer is the first that is read, and says whether the architecture is known.
        with explained(source, options, f"{'' if is_gguf(source) else 'its tokenizer '}cannot be loaded"):
            yield
    except PersonaProbeError as error:
        weights = [*Path(source).glob("*.safetensors"), *Path(source).glob("*.bin")]
        if weights and not any(repository_file(source, name, revision) for name in _VOCABULARIES):
            raise PersonaProbeError(
                f"{source}: holds no tokenizer ({', '.join(_VOCABULARIES)}), as checkpoints of training often do not; "
                "give that of the model that it was made from (tokenizer=)"
            ) from error
        raise


def _given_template(options: LoadOptions) -> str:
    given, text = options.get("chat_template"), str(options.get("chat_template"))
    if isinstance(given, Path) or ("{" not in text and Path(text).suffix in (".jinja", ".jinja2", ".j2", ".txt")):
        file = Path(text)
        if not file.is_file():
            raise PersonaProbeError(f"chat_template: there is no file {text!r}; give Jinja text or a file with it")
        text = file.read_text(encoding="utf-8")
    if "{" not in text:
        raise PersonaProbeError(
            f"chat_template: {str(given)!r} is no template, since nothing in it is Jinja; give Jinja text or a file "
            "with it"
        )
    return text


def _written_template(path: str, revision: str | None) -> Any:
    """The chat template that is written in a folder, Hub repository or GGUF file, as a tokenizer holds it, or None."""
    if is_gguf(path):
        return read_header(Path(path)).metadata.get("tokenizer.chat_template")
    for name in _TEMPLATE_FILES:
        file = repository_file(path, name, revision)
        if file is None:
            continue
        text = file.read_text(encoding="utf-8")
        if file.suffix == ".jinja":
            return text
        try:
            written = json.loads(text).get("chat_template")
        except (ValueError, AttributeError) as error:
            raise PersonaProbeError(f"{file}: cannot be read as JSON settings: {error}") from error
        if isinstance(written, list):  # several templates, each with a name
            return {one["name"]: one["template"] for one in written}
        if written:
            return written
    return None


def _tokenizer(source: str, options: LoadOptions, revision: str | None) -> PreTrainedTokenizerBase:
    """The tokenizer that the repository's own ``tokenizer.json`` describes.

    For some model types (in 5.23, Qwen2 and related ones) transformers uses the family's tokenizer class whatever the
    files say; that class splits text by other rules, and so silently gives other tokens.
    """
    with pretrained(source, options) as (folder, arguments):
        arguments["revision"] = revision
        loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, **arguments)
    loaded.name_or_path = source
    file = repository_file(source, "tokenizer.json", revision)
    if file is None or not loaded.is_fast:
        return loaded
    written = Tokenizer.from_file(str(file))
    sample = _sample(written)
    in_use, described = (
        backend.encode(sample, add_special_tokens=False).ids for backend in (loaded.backend_tokenizer, written)
    )
    if in_use == described:
        return loaded
    _log.warning(
        "%s: transformers' %s splits text differently from the repository's tokenizer.json, which is used instead",
        source,
        type(loaded).__name__,
    )
    where = arguments["revision"]
    return PreTrainedTokenizerFast.from_pretrained(folder, revision=where)  # type: ignore[no-any-return]


def _sample(backend: Tokenizer) -> str:
    """A text of tokens from all over the vocabulary."""
    every = max(1, backend.get_vocab_size() // _SAMPLED_TOKENS)
    return backend.decode(list(range(0, backend.get_vocab_size(), every)))


def _same_tokens(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether both turn texts into the same tokens and end them alike; which token pads is of no importance."""
    if one is other:
        return True
    pads = {one.pad_token, other.pad_token}
    known = [{name: number for name, number in each.get_vocab().items() if name not in pads} for each in (one, other)]
    if known[0] != known[1] or (one.bos_token, one.eos_token) != (other.bos_token, other.eos_token):
        return False
    sample = (
        _sample(one.backend_tokenizer)
        if one.is_fast
        else " ".join(list(known[0])[:: max(1, len(known[0]) // _SAMPLED_TOKENS)])
    )
    return bool(one(sample).input_ids == other(sample).input_ids)
