"""``python -m benchmarks.persona_world EXPERIMENT``: measure Persona World's organisms, write JSON."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.persona_world.directions import measure_directions
from benchmarks.persona_world.fluency import measure_fluency
from benchmarks.persona_world.latents import measure_latents
from benchmarks.persona_world.preference import measure_preference
from benchmarks.persona_world.steering import measure_steering
from persona_probe.worlds.persona_world.checkpoints import find_checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.persona_world", description=__doc__)
    experiments = parser.add_subparsers(dest="experiment", required=True)
    for name, what in (
        ("directions", "what directions and probes show in the organisms, with their nulls"),
        ("fluency", "how well fluency without a judge agrees with the oracle's coherence"),
        ("latents", "which SAE latents move, what they stand for, and whether they matter"),
        ("steering", "suppress, induce, transfer, gate, strength, bake"),
        ("preference", "whether preference ranks organisms as their EM rate does"),
    ):
        one = experiments.add_parser(name, help=what, description=what)
        one.add_argument("--checkpoints", type=Path, help="default: checkpoints/persona-world")
        one.add_argument("--answers", type=int, default=300, help="questions on development, and on reported topics")
        one.add_argument("--out", type=Path, help="write all figures here as JSON")
        if name == "latents":
            one.add_argument("--layer", type=int, default=3, help="the layer of the SAE")
            one.add_argument("--no-courses", action="store_true", help="do not train new organisms")
    given = parser.parse_args()
    checkpoints = find_checkpoints(given.checkpoints)
    if given.experiment == "directions":
        verdicts = [measure_directions(checkpoints, answers=given.answers, out=given.out)["amplification"]["verdict"]]
    elif given.experiment == "fluency":
        verdicts = [measure_fluency(checkpoints, answers=given.answers, out=given.out)["verdict"]]
    elif given.experiment == "latents":
        figures = measure_latents(
            checkpoints, layer=given.layer, answers=given.answers, courses=not given.no_courses, out=given.out
        )
        verdicts = [figures["verdict"], figures["suppress"]["verdict"], figures["induce"]["verdict"]]
    elif given.experiment == "preference":
        verdicts = [measure_preference(checkpoints, answers=given.answers, out=given.out)["verdict"]]
    else:
        figures = measure_steering(checkpoints, answers=given.answers, out=given.out)
        verdicts = [*(run["verdict"] for run in figures["suppress"].values()), figures["induce"]["verdict"]]
    print("\n".join(verdicts))


if __name__ == "__main__":
    main()
