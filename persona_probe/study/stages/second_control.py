"""A second control, trained as often as the first one, so that changes can be compared with the harder one."""

from __future__ import annotations

from persona_probe.runs.config import StudyConfig, n_runs
from persona_probe.study.context import Context
from persona_probe.study.stage import Stage
from persona_probe.study.stages.further_runs import briefly
from persona_probe.study.stages.train import ADAPTERS, SECOND_CONTROL, TRAINING, Tuned, tune, tuned_run
from persona_probe.study.workload import Sizes, Work


def train_second(context: Context) -> list[Tuned]:
    """Fine-tune the model before on the rows of the second control, with the settings and seeds of the other models.

    One of these models is in memory at a time.
    """
    runs = []
    for run in range(n_runs(context.config)):
        with briefly(tune(context, SECOND_CONTROL, run)) as model:
            runs.append(tuned_run(context.config, run, {SECOND_CONTROL: model.fingerprint()}))
    return runs


def _has_second_control(config: StudyConfig) -> bool:
    return config.texts.second_control_persona is not None


def _work(sizes: Sizes) -> Work:
    training = sizes.config.training
    tokens = training.steps * training.batch * sizes.length(sizes.material.second_control)
    return Work(trained_tokens=sizes.n_runs * round(tokens))


SECOND = Stage(
    "second-control",
    train_second,
    work=_work,
    settings=("seed", *TRAINING),
    reads=("after", "control", "training.runs"),
    derived=lambda config: {"runs": n_runs(config)},
    material=("second_control",),
    applies=_has_second_control,
    keeps=f"{ADAPTERS}/",
)
