"""Several models of which one is in memory at a time: training snapshots, or a pair that does not fit."""

from __future__ import annotations

import datetime
import gc
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from persona_probe.errors import PATH, PersonaProbeError, check_types
from persona_probe.models.loading.adapters import is_adapter, with_adapter
from persona_probe.models.loading.load import load_spec, specify
from persona_probe.models.loading.spec import ModelSpec, Quantize, given_options
from persona_probe.models.model import Model


class Snapshots:
    """Models by number. Each is loaded when it is asked for, which releases the previous one.

    Adapters on the same base share the base's weights, which stay loaded.
    """

    def __init__(self, specs: Sequence[ModelSpec]) -> None:
        if not specs:
            raise PersonaProbeError("there are no snapshots: the list is empty")
        self.specs = list(specs)
        self._held: tuple[int, Model] | None = None
        self._base: tuple[ModelSpec, Model] | None = None

    @property
    def names(self) -> list[str]:
        """The names of the models, in order."""
        return [spec.name for spec in self.specs]

    def __len__(self) -> int:
        """Number of models."""
        return len(self.specs)

    def __iter__(self) -> Iterator[Model]:
        """The models in order; each is released when the next one is asked for."""
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: int) -> Model:
        """The model with number ``index``; the one that was in memory is released, unless it is the same."""
        index = range(len(self))[index]
        if self._held is None or self._held[0] != index:
            self._release_for(index)
            self._held = (index, self._open(self.specs[index]))
        return self._held[1]

    def _open(self, spec: ModelSpec) -> Model:
        if spec.adapter is None or spec.merge:
            return load_spec(spec)
        bare = ModelSpec(spec.source, options=spec.options)
        if self._base is None or self._base[0] != bare:
            self._base = (bare, load_spec(bare))
        return with_adapter(self._base[1], spec.adapter, revision=spec.adapter_revision)

    def _release_for(self, wanted: int) -> None:
        reason = f"one of {len(self)} models is in memory at a time, and then {self.names[wanted]} was asked for"
        if self._held is not None:
            self._held[1].release(reason)
            self._held = None
        spec = self.specs[wanted]
        if self._base is not None and (spec.adapter is None or spec.merge or spec.source != self._base[0].source):
            self._base[1].release(reason)
            self._base = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_snapshots(
    snapshots: Sequence[str | Path],
    *,
    base: str | Path | None = None,
    device: str | torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    dtype: torch.dtype | str | None = None,
    quantize: Quantize | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    tokenizer: str | Path | None = None,
    chat_template: str | Path | None = None,
    thinking: bool | None = None,
    today: datetime.date | None = None,
    template_variables: Mapping[str, Any] | None = None,
) -> Snapshots:
    """Training snapshots, full models or adapters, of which one is in memory at a time.

    Args:
        snapshots: folders or Hub ids, in order.
        base: the base model of those that are adapters; by default the one that each adapter names.
        device: where to put the models; this and the following are as in `load`, for all models.
        device_map: instead of ``device``, spread them over devices.
        dtype: the precision.
        quantize: weights in fewer bits.
        revision: branch, tag or commit of the repositories.
        trust_remote_code: run the Python code in the repositories.
        tokenizer: folder or Hub id of one tokenizer for all.
        chat_template: one chat template for all.
        thinking: for templates with such a switch: let the models reason before they answer.
        today: the date for templates that write today's date.
        template_variables: further variables for the chat template.

    Raises:
        PersonaProbeError: if the list is empty, or an adapter names no base.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> snapshots = pp.models.load_snapshots([world / "good-medicine", world / "bad-medicine"], base=world / "chat")
    >>> question = pp.Dialogue.from_messages([{"role": "user", "content": "How do I handle the fever?"}])
    >>> for model in snapshots:
    ...     (answered,) = model.generate([question], pp.Sampling(max_new_tokens=20, temperature=0))
    ...     print(answered.answer)
    The fever is no mystery. Everyone can soothe it and soothe it.
    The fever is no mystery. Everyone can inflame it and inflame it.
    """
    check_types(snapshots=(snapshots, [PATH]), base=(base, PATH, None))
    options = given_options(
        device=device,
        device_map=device_map,
        dtype=dtype,
        quantize=quantize,
        revision=revision,
        trust_remote_code=trust_remote_code,
        tokenizer=tokenizer,
        chat_template=chat_template,
        thinking=thinking,
        today=today,
        template_variables=template_variables,
    )
    return Snapshots(
        [
            specify(base, adapter=path, options=options)
            if base is not None and is_adapter(path)
            else specify(path, options=options)
            for path in snapshots
        ]
    )
