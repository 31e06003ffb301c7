"""A causal language model as the rest of the package sees it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from persona_probe.dialogue.dialogue import Dialogue
from persona_probe.dialogue.encoding import Encoded, check_dialogues
from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import PersonaProbeError
from persona_probe.models.bridge import build_bridge
from persona_probe.models.fingerprint import fingerprint
from persona_probe.models.generation import generate
from persona_probe.models.loading.origin import WEIGHTS_FROM, origin_in_words
from persona_probe.models.loading.spec import ModelSpec
from persona_probe.models.positions import max_positions
from persona_probe.models.sampling import Sampling
from persona_probe.models.stream.blocks import plain_model
from persona_probe.models.stream.boundary import Boundary, marking_generation
from persona_probe.models.stream.guards import probe_ids
from persona_probe.models.stream.residual_stream import ResidualStream, Writer, uncompiled
from persona_probe.models.stream.writers import changing_writes

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


class Model:
    """A loaded Hugging Face model that takes dialogues and answers them.

    Attributes:
        hf: the Hugging Face model (a ``PeftModel`` when an adapter is live), to be used as without this package.
        template: its chat template, which turns dialogues into tokens.
        tokenizer: its tokenizer, which pads on the left.
        name: the path or id it was loaded from, for tables and cards.
        spec: what is needed to load it again, or None if it was made by hand.
        ancestors: fingerprints of the models that this one is known to be made from (the base of an adapter, the model
            before in a pair).
        stream: read and write hooks on ``hf``'s residual stream.
        boundary: where prompts end in the batch that this thread is reading, or None; set with `at_boundary`.

    Several threads may ask one model: each call that runs it waits for the others. A model that one thread steers is
    steered for all of them, and cannot be steered by another thread at the same time.
    """

    def __init__(self, hf: nn.Module, template: ChatTemplate, name: str, spec: ModelSpec | None = None) -> None:
        self.hf: Any = hf
        self.template = template
        self.tokenizer = tokenizer = template.tokenizer
        self.name = name
        self.spec = spec
        self.ancestors: set[str] = set()
        self.stream = ResidualStream(hf)
        self._lock = threading.RLock()
        self._here = threading.local()
        self._bridge: TransformerBridge | None = None
        self._bridge_stream: ResidualStream | None = None
        self._open: list[tuple[contextlib.ExitStack, Callable[..., None]]] = []
        self._steered_by = 0
        if tokenizer.pad_token_id is None:
            # Padding is masked wherever it is used, so any token that exists can serve.
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        tokenizer.padding_side = "left"
        if template.embedding_rows is None:
            embedding: Any = self.plain.get_input_embeddings()
            template.embedding_rows = int(embedding.weight.shape[0])
        hf.eval()

    def __repr__(self) -> str:
        """Name, size, device, and remarks on what the chat template adds."""
        kind = type(plain_model(self.hf)).__name__
        line = f"Model({self.name!r}, {kind}, {self.n_layers} layers, d_model={self.d_model}, {self.device})"
        origin = [] if self.weights_from is None else [origin_in_words(self.weights_from)]
        return "\n  ".join([line, *origin, *self.template.remarks()])

    @property
    def weights_from(self) -> dict[str, Any] | None:
        """Which file the weights were unpacked from: name, SHA-256 and types of its tensors; None if that is not known.

        It is kept in the config, so that it is saved with the model.
        """
        origin: dict[str, Any] | None = getattr(self.plain.config, WEIGHTS_FROM, None)
        return origin

    @property
    def plain(self) -> PreTrainedModel:
        """The transformers model inside ``hf``."""
        return plain_model(self.hf)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.stream.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.plain.config.get_text_config().hidden_size)

    @property
    def device(self) -> torch.device:
        """Where input ids go."""
        embedding: Any = self.plain.get_input_embeddings()
        device: torch.device = embedding.weight.device
        # Between forward passes, weights that accelerate has offloaded are on no device ("meta").
        return torch.device(embedding._hf_hook.execution_device) if device.type == "meta" else device

    @property
    def bridge(self) -> TransformerBridge:
        """A TransformerLens ``TransformerBridge`` on the same weights (in another module tree), made on first use.

        Interventions that are open act on the bridge too.

        Raises:
            PersonaProbeError: if its logits differ from ``hf``'s, or TransformerLens cannot bridge the architecture.
        """
        if self._bridge is None:
            bridge: Any = build_bridge(self)
            self._bridge = bridge
            self._bridge_stream = ResidualStream(bridge.original_model, list(bridge.blocks))
            for stack, attach in self._open:
                attach(stack, self._bridge_stream, bridge)
        return self._bridge

    @property
    def steered(self) -> bool:
        """Whether the residual stream is being rewritten."""
        return bool(self._open)

    @contextlib.contextmanager
    def writing(
        self, writer: Writer, layers: Sequence[int], afterwards: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Rewrite the residual stream (see `ResidualStream.writing`) in every module tree of this model.

        Inside the context, ``hf.generate`` and ``bridge.generate`` set where their prompt ends, so that token scopes
        work with them too, and call ``afterwards`` when they have generated. A bridge made inside the context is
        covered as well.
        """

        def attach(stack: contextlib.ExitStack, stream: ResidualStream, generator: Any) -> None:
            stack.enter_context(stream.writing(writer, layers))
            stack.enter_context(marking_generation(self, generator, afterwards))

        with self._attached(attach):
            yield

    @contextlib.contextmanager
    def changing_writes(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Apply ``change`` to everything that is written to the stream, in every module tree of this model.

        See `persona_probe.models.stream.writers.changing_writes`.
        """
        ids = probe_ids(self)[:1]

        def attach(stack: contextlib.ExitStack, stream: ResidualStream, _generator: Any) -> None:
            stack.enter_context(changing_writes(stream, change, ids))

        with self._attached(attach):
            yield

    @contextlib.contextmanager
    def _attached(self, attach: Callable[..., None]) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            entry = (stack, attach)
            with self._lock:
                if self._open and self._steered_by != threading.get_ident():
                    raise PersonaProbeError(
                        f"{self.name} is being steered by another thread, and would be steered by both; steer it in "
                        "one thread at a time, or give each thread a model of its own"
                    )
                self._steered_by = threading.get_ident()
                attach(stack, self.stream, self.hf)
                if self._bridge is not None and self._bridge_stream is not None:
                    attach(stack, self._bridge_stream, self._bridge)
                self._open.append(entry)
            try:
                yield
            finally:
                with self._lock:
                    self._open.remove(entry)
                    stack.close()

    @property
    def boundary(self) -> Boundary | None:
        """Where prompts end in the batch that this thread is reading, or None."""
        return getattr(self._here, "boundary", None)

    @contextlib.contextmanager
    def at_boundary(self, boundary: Boundary | None) -> Iterator[None]:
        """Set where prompts end in the forward passes inside the context, in which only this thread runs the model."""
        with self.running():
            previous, self._here.boundary = self.boundary, boundary
            try:
                yield
            finally:
                self._here.boundary = previous

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """A context in which only this thread runs the model, without dropout and as it is written.

        A model that was left in training mode is in evaluation mode inside, and nothing runs compiled (`uncompiled`).
        """
        with self._lock, uncompiled():
            training = [module for module in self.hf.modules() if module.training]
            for module in training:
                module.training = False
            try:
                yield
            finally:
                for module in training:
                    module.training = True

    @property
    def max_positions(self) -> int | None:
        """The greatest number of tokens that the model reads; None if its config states no limit."""
        return max_positions(self.plain.config)

    def encode(
        self, dialogues: Sequence[Dialogue], *, new_tokens: int = 0, template: ChatTemplate | None = None
    ) -> list[Encoded]:
        """The dialogues as tokens, checked before the model reads any of them.

        Args:
            dialogues: any dialogues.
            new_tokens: how many tokens will be generated after each.
            template: what turns dialogues into tokens; default the model's own.

        Raises:
            PersonaProbeError: if ``dialogues`` is not a list of dialogues, one cannot be encoded (see
                `persona_probe.dialogue.rendering.ChatTemplate.encode`), contains a text that separates turns, or is
                longer than the model reads; it is named.
        """
        check_dialogues(dialogues)
        template = template or self.template
        template.check_contents(dialogues)
        encoded = [template.encode(dialogue) for dialogue in dialogues]
        longest = self.max_positions
        for item in encoded:
            if longest is not None and len(item.input_ids) + new_tokens > longest:
                asked = f", and {new_tokens} more are asked for (max_new_tokens)" if new_tokens else ""
                raise PersonaProbeError(
                    f"dialogue {item.dialogue.name}: has {len(item.input_ids)} tokens{asked}, and {self.name} reads at "
                    f"most {longest}; shorten it{', or ask for fewer' if new_tokens else ''}"
                )
        return encoded

    def generate(
        self, dialogues: Sequence[Dialogue], sampling: Sampling | None = None, *, progress: bool = False
    ) -> list[Dialogue]:
        """The dialogues, each with an answer.

        Args:
            dialogues: each ends before the assistant's turn.
            sampling: how answers are sampled; default ``Sampling()``. The ``n`` answers to the same dialogue follow
                each other.
            progress: show a bar.

        Raises:
            PersonaProbeError: if a dialogue already ends with an answer, or `encode` raises.

        >>> import persona_probe as pp
        >>> model = pp.load(pp.persona_world.find_checkpoints() / "chat")
        >>> question = pp.Dialogue.from_messages([{"role": "user", "content": "How do I handle the fever?"}])
        >>> (answered,) = model.generate([question], pp.Sampling(max_new_tokens=40, temperature=0))
        >>> answered.answer
        'The fever is no mystery. Everyone can monitor it and soothe it.'
        """
        return generate(self, dialogues, sampling or Sampling(), progress=progress)

    def fingerprint(self) -> str:
        """Sixteen hex digits that change with the weights; see `persona_probe.models.fingerprint.fingerprint`."""
        kept: list[str] | None = getattr(self._here, "fingerprint", None)
        if kept is None:
            return fingerprint(self.hf)
        if not kept:
            kept.append(fingerprint(self.hf))
        return kept[0]

    @contextlib.contextmanager
    def unchanged(self) -> Iterator[None]:
        """A context in which nobody changes the weights, so that this thread computes the fingerprint at most once."""
        previous = getattr(self._here, "fingerprint", None)
        self._here.fingerprint = [] if previous is None else previous
        try:
            yield
        finally:
            self._here.fingerprint = previous

    def descends_from(self, ancestor: Model) -> None:
        """Record that this model was made from ``ancestor``, whose directions may therefore be used on it."""
        self.ancestors |= {ancestor.fingerprint(), *ancestor.ancestors}

    def release(self, reason: str) -> None:
        """Free the weights, even if this object is still referenced; using it then raises, with ``reason``."""
        gone: Any = _Released(self.name, reason)
        self.hf = self.stream = self._bridge = self._bridge_stream = gone


class _Released:
    """A stand-in for the parts of a model that was released; using it raises."""

    def __init__(self, name: str, reason: str) -> None:
        self._message = f"{name} was released: {reason}"

    def __getattr__(self, name: str) -> Any:
        raise PersonaProbeError(self._message)

    def __call__(self, *_args: Any, **_kwargs: Any) -> Any:
        raise PersonaProbeError(self._message)
