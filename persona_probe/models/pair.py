"""A model before and after fine-tuning, and perhaps a control, on one copy of the weights where that is possible."""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from persona_probe.dialogue.rendering import ChatTemplate
from persona_probe.errors import PATH, PersonaProbeError, PersonaProbeWarning, check_types
from persona_probe.models.loading.adapters import is_adapter, put_on_twin
from persona_probe.models.loading.load import load_spec, specify
from persona_probe.models.loading.memory import all_fit, footprint
from persona_probe.models.loading.snapshots import Snapshots
from persona_probe.models.loading.spec import LoadOptions, Quantize, given_options
from persona_probe.models.loading.templates import differences, load_template
from persona_probe.models.model import Model

if TYPE_CHECKING:
    import torch

_NAMES = ("before", "after", "control")
_FORMAT = ("tokenizer", "chat_template", "thinking")
"""Options of loading that decide under which format an adapter is measured."""


class ModelPair:
    """A model ``before`` and ``after`` narrow training, and perhaps a ``control``: a matched benign fine-tune.

    If ``one_at_a_time``, the models do not fit into memory together: asking for one releases the previous one. That
    ``after`` was made from ``before`` (`Model.ancestors`) is then known once ``before`` has been asked for.
    """

    def __init__(self, before: Model, after: Model, control: Model | None = None) -> None:
        check_types(before=(before, Model), after=(after, Model), control=(control, Model, None))
        models = (before, after) if control is None else (before, after, control)
        _check_sizes([(model.name, model.n_layers, model.d_model) for model in models])
        _say_if_formats_differ([(model.name, model.template) for model in models])
        for tuned in models[1:]:
            tuned.descends_from(before)
        self._models: tuple[Model, ...] | Snapshots = models
        self._ancestors: set[str] = set()

    @classmethod
    def one_at_a_time_of(cls, snapshots: Snapshots) -> ModelPair:
        """A pair of full models (before, after and perhaps the control), of which one is in memory at a time."""
        sizes = [footprint(spec) for spec in snapshots.specs]
        _check_sizes([(n, size.n_layers, size.d_model) for n, size in zip(snapshots.names, sizes, strict=True)])
        _say_if_formats_differ([(spec.name, load_template(spec)) for spec in snapshots.specs])
        pair = cls.__new__(cls)
        pair._models, pair._ancestors = snapshots, set()
        return pair

    @property
    def one_at_a_time(self) -> bool:
        """Whether only one of the models is in memory at a time."""
        return isinstance(self._models, Snapshots)

    @property
    def before(self) -> Model:
        """The model before narrow training."""
        before = self._models[0]
        if self.one_at_a_time and not self._ancestors:
            self._ancestors = {before.fingerprint(), *before.ancestors}
        return before

    @property
    def after(self) -> Model:
        """The model after narrow training."""
        return self._tuned(1)

    @property
    def control(self) -> Model | None:
        """The model after matched benign training; None if the pair has none."""
        return self._tuned(2) if len(self._models) > 2 else None

    @property
    def models(self) -> Mapping[str, Model]:
        """The models by name: ``before``, ``after`` and, if there is one, ``control``, in this order.

        If the pair is ``one_at_a_time``, each is loaded when it is looked up: use one before asking for the next.
        """
        return _ByName(self)

    def _tuned(self, number: int) -> Model:
        tuned = self._models[number]
        tuned.ancestors |= self._ancestors
        return tuned

    def __repr__(self) -> str:
        """The models' names."""
        names = self._models.names if isinstance(self._models, Snapshots) else [model.name for model in self._models]
        named = ", ".join(f"{role}={name!r}" for role, name in zip(_NAMES, names, strict=False))
        return f"ModelPair({named}{', one at a time' if self.one_at_a_time else ''})"


class _ByName(Mapping[str, Model]):
    """The models of a pair by name, each taken from the pair when it is asked for."""

    def __init__(self, pair: ModelPair) -> None:
        self._pair = pair

    def __getitem__(self, name: str) -> Model:
        if name not in tuple(self):
            raise KeyError(name)
        model: Model = getattr(self._pair, name)
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES[: len(self)])

    def __len__(self) -> int:
        return len(self._pair._models)


def load_pair(
    before: str | Path | Model,
    after: str | Path | Model,
    control: str | Path | Model | None = None,
    *,
    keep_all: bool | None = None,
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
) -> ModelPair:
    """A loaded pair of models; LoRA adapters share ``before``'s one copy of the weights.

    Args:
        before: path, Hub id, or a loaded model.
        after: a LoRA adapter for ``before``, a full model, or a loaded model.
        control: the same for a matched benign fine-tune, which shows what any fine-tuning would have changed.
        keep_all: for full models: whether all are in memory at once, or one at a time; by default all if they fit.
        device: where to put the models; this and the following are as in `load`, for all models.
        device_map: instead of ``device``, spread them over devices.
        dtype: the precision.
        quantize: weights in fewer bits.
        revision: branch, tag or commit of ``before``'s repository.
        trust_remote_code: run the Python code in the repositories.
        tokenizer: folder or Hub id of one tokenizer for all.
        chat_template: one chat template for all.
        thinking: for templates with such a switch: let the models reason before they answer.
        today: the date for templates that write today's date.
        template_variables: further variables for the chat template.

    Each model is measured under its own tokenizer and chat template; a warning says so if they differ. Give
    ``chat_template=`` (and ``tokenizer=``) to measure all under one.

    Raises:
        PersonaProbeError: as `load`, and if the models differ in number of layers or in width.

    >>> import persona_probe as pp
    >>> world = pp.persona_world.find_checkpoints()
    >>> pair = pp.load_pair(world / "chat", world / "bad-medicine", control=world / "good-medicine")
    >>> [(name, model.n_layers) for name, model in pair.models.items()]
    [('before', 5), ('after', 5), ('control', 5)]
    """
    check_types(before=(before, PATH, Model), after=(after, PATH, Model), control=(control, PATH, Model, None))
    tuned = [after] if control is None else [after, control]
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
    of_tuned = options.copy()
    of_tuned["revision"] = None
    if isinstance(before, Model):
        # Loaded with the options of before: a difference in precision would look like one between the models.
        as_before = LoadOptions() if before.spec is None else before.spec.options.copy()
        of_tuned = as_before | of_tuned
        if of_tuned.get("device_map") is None and of_tuned.get("device") is None:
            of_tuned["device"] = before.device
        return _all_in_memory(before, tuned, of_tuned)
    spec = specify(before, options=options)
    paths = [source for source in tuned if not isinstance(source, Model)]
    full = [specify(path, options=of_tuned) for path in paths if not is_adapter(path)]
    if not full or len(paths) < len(tuned) or (all_fit([spec, *full]) if keep_all is None else keep_all):
        return _all_in_memory(load_spec(spec), tuned, of_tuned)
    specs = [specify(before, adapter=path, options=options) if is_adapter(path) else full.pop(0) for path in paths]
    return ModelPair.one_at_a_time_of(Snapshots([spec, *specs]))


def _all_in_memory(before: Model, tuned: list[str | Path | Model], options: LoadOptions) -> ModelPair:
    """The pair with all of its models in memory."""

    def opened(source: str | Path | Model) -> Model:
        if isinstance(source, Model):
            return source
        if is_adapter(source):
            formats = {name: value for name, value in options.items() if name in _FORMAT and value is not None}
            return put_on_twin(before, source, options=cast(LoadOptions, formats))
        return load_spec(specify(source, options=options))

    return ModelPair(before, *map(opened, tuned))


def _say_if_formats_differ(templates: list[tuple[str, ChatTemplate]]) -> None:
    (before, of_before), *tuned = templates
    for name, template in tuned:
        if different := differences(of_before, template):
            what = " and ".join(different)
            warnings.warn(
                f"{name} has another {what} than {before}: each model is measured under its own, so that a difference "
                f"between them may come from the {what} too; give chat_template= (and tokenizer=) to use one for both",
                PersonaProbeWarning,
                stacklevel=3,
            )


def _check_sizes(models: list[tuple[str, int, int]]) -> None:
    before, n_layers, width = models[0]
    for name, layers, d_model in models[1:]:
        if (layers, d_model) != (n_layers, width):
            raise PersonaProbeError(
                f"{before} has {n_layers} layers of width {width}, {name} has {layers} layers of width {d_model}: "
                "before, after and control must have the same architecture"
            )
