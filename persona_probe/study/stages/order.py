"""All stages, in order."""

from __future__ import annotations

from persona_probe.study.stage import Stage
from persona_probe.study.stages.compare import COMPARE
from persona_probe.study.stages.find import FIND
from persona_probe.study.stages.further_runs import FURTHER
from persona_probe.study.stages.latents import LATENTS, LATENTS_REALIGNED
from persona_probe.study.stages.manners import MANNERS
from persona_probe.study.stages.measure import MEASURE
from persona_probe.study.stages.preference import PREFERENCE
from persona_probe.study.stages.probe import PROBED
from persona_probe.study.stages.realign import REALIGN
from persona_probe.study.stages.second_control import SECOND
from persona_probe.study.stages.steer import STEER
from persona_probe.study.stages.track import TRACK
from persona_probe.study.stages.train import TRAIN

STAGES: tuple[Stage, ...] = (
    TRAIN,
    FURTHER,
    SECOND,
    MEASURE,
    FIND,
    PREFERENCE,
    TRACK,
    COMPARE,
    PROBED,
    STEER,
    MANNERS,
    LATENTS,
    REALIGN,
    LATENTS_REALIGNED,
)
