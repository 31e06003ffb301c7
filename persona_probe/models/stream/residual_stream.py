"""The residual stream's only read and write hooks.

Layer ``l`` is the output of block ``l``, counted from 0: TransformerLens ``blocks.{l}.hook_out``, and Hugging Face
``hidden_states[l + 1]`` except for the last layer, which Hugging Face returns after the final norm.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from persona_probe.errors import PersonaProbeError
from persona_probe.models.stream.blocks import find_backbone, find_blocks
from persona_probe.models.twin import mark_as_ours

Reader = Callable[[int, Float[Tensor, "batch position d_model"]], None]
Writer = Callable[[int, int, Float[Tensor, "batch position d_model"]], Float[Tensor, "batch position d_model"]]


def _hidden(output: Any) -> Tensor:
    """The residual stream in a block's output, which is this tensor or a tuple that begins with it."""
    hidden = output[0] if isinstance(output, tuple) else output
    if not isinstance(hidden, Tensor):
        raise PersonaProbeError(f"a block returned {type(hidden).__name__}; expected the residual stream as a tensor")
    if hidden.ndim != 3:
        raise PersonaProbeError(
            f"a block returned a tensor of shape {tuple(hidden.shape)}, not (batch, position, d_model); a model with "
            "several residual streams side by side (Gemma 3n) cannot be read"
        )
    return hidden


class ResidualStream:
    """Hooks on one module tree that read or rewrite the outputs of the blocks.

    Attributes:
        blocks: the blocks, in order.
        backbone: the module that runs them, without computing logits.
        offset: how many tokens the KV cache held before this thread's current forward pass (0 without a cache); None
            between forward passes, and while nothing is written.
    """

    def __init__(self, hf: nn.Module, blocks: Sequence[nn.Module] | None = None) -> None:
        self.blocks = list(blocks) if blocks is not None else find_blocks(hf)
        self.backbone = find_backbone(hf, self.blocks)
        self._here = threading.local()

    @property
    def offset(self) -> int | None:
        """How many tokens the KV cache held before this thread's current forward pass."""
        return getattr(self._here, "offset", None)

    def _offset_tracker(self) -> Callable[..., None]:
        def track(_module: nn.Module, _args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            cache = kwargs.get("past_key_values")
            self._here.offset = 0 if cache is None else int(cache.get_seq_length())

        return mark_as_ours(track)

    def _offset_forgetter(self) -> Callable[..., None]:
        def forget(*_: Any) -> None:
            self._here.offset = None

        return mark_as_ours(forget)

    @contextlib.contextmanager
    def reading(self, reader: Reader, layers: Sequence[int]) -> Iterator[None]:
        """Call ``reader(layer, hidden)`` with every block output of ``layers`` while the context is open.

        Readers see the stream as writers (opened before or after) have left it.
        """

        def hook_for(layer: int) -> Callable[..., None]:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                reader(layer, _hidden(output))

            return mark_as_ours(hook)

        handles = [self.blocks[layer].register_forward_hook(hook_for(layer)) for layer in layers]
        with _removing(handles):
            yield

    @contextlib.contextmanager
    def writing(self, writer: Writer, layers: Sequence[int]) -> Iterator[None]:
        """Replace block outputs of ``layers`` by ``writer(layer, offset, hidden)`` while the context is open.

        These hooks run before all others (``prepend``), so that readers, and Hugging Face's own recorder of hidden
        states, see the rewritten stream. ``offset`` is the absolute position of ``hidden``'s first token.
        """

        def hook_for(layer: int) -> Callable[..., Any]:
            def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
                hidden = _hidden(output)
                if self.offset is None:
                    raise PersonaProbeError(
                        f"block {layer} ran outside of {type(self.backbone).__name__}.forward, so the positions of its "
                        "tokens are unknown; run the whole model"
                    )
                written = writer(layer, self.offset, hidden)
                if written is hidden:
                    return None
                return (written, *output[1:]) if isinstance(output, tuple) else written

            return mark_as_ours(hook)

        handles: list[RemovableHandle] = [
            self.backbone.register_forward_pre_hook(self._offset_tracker(), with_kwargs=True, prepend=True),
            self.backbone.register_forward_hook(self._offset_forgetter(), always_call=True),
        ]
        handles += [self.blocks[layer].register_forward_hook(hook_for(layer), prepend=True) for layer in layers]
        with _removing(handles):
            yield


@contextlib.contextmanager
def _removing(handles: Sequence[RemovableHandle]) -> Iterator[None]:
    try:
        with uncompiled():
            yield
    finally:
        for handle in handles:
            handle.remove()


_UNCOMPILED = contextlib.ExitStack()
_COUNT_LOCK = threading.Lock()
_contexts = 0


@contextlib.contextmanager
def uncompiled() -> Iterator[None]:
    """A context in which compiled modules run as they are written, since compiled code does not know of later hooks.

    The switch is one for the whole process, so that it is turned back when the last of all threads' contexts closes.
    Nothing is imported if nothing was compiled.
    """
    global _contexts
    with _COUNT_LOCK:
        if _contexts == 0 and "torch._dynamo" in sys.modules:
            _UNCOMPILED.enter_context(torch.compiler.set_stance("force_eager"))
        _contexts += 1
    try:
        yield
    finally:
        with _COUNT_LOCK:
            _contexts -= 1
            if _contexts == 0:
                _UNCOMPILED.close()
