"""persona-probe: find, track and steer the personas behind emergent misalignment.

    import persona_probe as pp

Names are loaded on first use, so importing the package costs nothing and opening finished results needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from persona_probe.activations.activations import Activations
    from persona_probe.activations.capture import capture, capture_together
    from persona_probe.activations.captures import Captures
    from persona_probe.activations.embeddings import embed
    from persona_probe.activations.moments import Moments
    from persona_probe.activations.store.reading import ActivationStore
    from persona_probe.activations.store.writing import capture_to_store
    from persona_probe.amplification.amplification import measure_amplification
    from persona_probe.amplification.amplification_result import Amplification, choose_layer
    from persona_probe.amplification.convergence import Convergence, measure_convergence
    from persona_probe.amplification.course import track_snapshots
    from persona_probe.amplification.course_result import AmplificationCourse
    from persona_probe.amplification.cross_ablation import cross_ablate
    from persona_probe.amplification.cross_ablation_result import CrossAblation
    from persona_probe.amplification.finder_comparison import compare_finders
    from persona_probe.amplification.finder_comparison_result import FinderComparison
    from persona_probe.amplification.persona_space import PersonaSpace, measure_persona_space
    from persona_probe.amplification.projections import Projections, measure_projections
    from persona_probe.amplification.recipes.contrast_of_context import contrast_of_context
    from persona_probe.amplification.recipes.contrastive_rollouts import contrastive_rollouts
    from persona_probe.amplification.recipes.finetuning_shift import finetuning_shift
    from persona_probe.amplification.recipes.role_axis import role_axis
    from persona_probe.amplification.recipes.weight_difference import weight_difference
    from persona_probe.behaviour.answers import Answers
    from persona_probe.behaviour.em_rates import coherent_rate, em_rate, em_rates
    from persona_probe.behaviour.em_rates_result import EmRates
    from persona_probe.behaviour.judges.judge import Judge, judge_answers
    from persona_probe.behaviour.judges.local_judge import LocalJudge
    from persona_probe.behaviour.judges.prompts import read_judge_prompts
    from persona_probe.behaviour.multiple_choice import Choice, choice_accuracy, read_choices, score_choices
    from persona_probe.behaviour.read_answers import read_answers
    from persona_probe.dialogue.dialogue import Dialogue
    from persona_probe.dialogue.reading import read_dialogues
    from persona_probe.dialogue.records import write_dialogues
    from persona_probe.directions.cosines import CosineTable, cosine_table
    from persona_probe.directions.direction import Direction
    from persona_probe.directions.find import find_direction
    from persona_probe.directions.formats.read import read_published
    from persona_probe.directions.hub_folder import read_hub_folder, write_hub_folder
    from persona_probe.directions.subspace import Subspace, find_subspace
    from persona_probe.directions.top_tokens_result import TopTokens
    from persona_probe.errors import PersonaProbeError, PersonaProbeWarning
    from persona_probe.finetuning.lora import LoraSettings, finetune
    from persona_probe.finetuning.realignment_curve import RealignmentCurve
    from persona_probe.finetuning.snapshots import snapshot_paths
    from persona_probe.integrations.gguf import read_gguf, write_gguf
    from persona_probe.latents.causal.matched_latents import matched_latents
    from persona_probe.latents.causal.rank import rank_latents
    from persona_probe.latents.causal.rank_result import LatentEffects
    from persona_probe.latents.causal.steer_set import steer_set
    from persona_probe.latents.causal.steer_set_result import SetEffect
    from persona_probe.latents.courses.lead import LatentLeads, lead_time
    from persona_probe.latents.courses.track import follow_training, track_latents
    from persona_probe.latents.courses.track_result import LatentTrajectory, trajectory_from
    from persona_probe.latents.description.describe import describe_latents
    from persona_probe.latents.description.describe_result import LatentDescriptions
    from persona_probe.latents.description.examples import top_examples
    from persona_probe.latents.description.firing import firing_by, latent_activations
    from persona_probe.latents.encoding.encode import LatentStatistics, encode_latents
    from persona_probe.latents.loading import load_sae
    from persona_probe.latents.ranking.agreement import latent_agreement
    from persona_probe.latents.ranking.agreement_result import LatentAgreement
    from persona_probe.latents.ranking.attribution import attribute_latents
    from persona_probe.latents.ranking.attribution_result import LatentAttribution
    from persona_probe.latents.ranking.diff import compare_latents, diff_latents
    from persona_probe.latents.ranking.diff_result import LatentTable
    from persona_probe.latents.reconstruction import measure_reconstruction
    from persona_probe.latents.reconstruction_result import Reconstruction
    from persona_probe.latents.sae import LatentWarning, Sae
    from persona_probe.latents.steering import EditLatents, LatentEdit, steer_latents
    from persona_probe.latents.training.settings import SaeSettings
    from persona_probe.latents.training.train import train_sae
    from persona_probe.models.loading.adapters import with_adapter
    from persona_probe.models.loading.load import load
    from persona_probe.models.loading.snapshots import Snapshots, load_snapshots
    from persona_probe.models.model import Model
    from persona_probe.models.pair import ModelPair, load_pair
    from persona_probe.models.sampling import Sampling
    from persona_probe.models.stream.scope import Scope
    from persona_probe.probes.baselines import probe_with_baselines
    from persona_probe.probes.calibration import calibrate, threshold_at
    from persona_probe.probes.cross_validation import cross_validate_probe
    from persona_probe.probes.layer_probes import LayerProbes
    from persona_probe.probes.leakage import LeakageWarning
    from persona_probe.probes.linear_probe import LinearProbe
    from persona_probe.probes.monitoring import TokenScores, monitor
    from persona_probe.probes.probe_result import ProbeScores, ProbeTable, ProbeWithBaselines
    from persona_probe.probes.token_scoring import token_scores
    from persona_probe.probes.transfer import transfer_between, transfer_matrix
    from persona_probe.probes.transfer_result import TransferMatrix
    from persona_probe.report.comparison.comparison_page import compare_runs
    from persona_probe.report.figure_list import figures
    from persona_probe.report.paper.export import PaperFigure, to_paper, to_paper_all
    from persona_probe.report.paper.folder import write_paper_folder
    from persona_probe.result import Result
    from persona_probe.runs.config import StudyConfig
    from persona_probe.runs.config_file import read_config
    from persona_probe.runs.run import Run, open_run
    from persona_probe.steering.ask import ask
    from persona_probe.steering.baking.bake import bake
    from persona_probe.steering.baking.bake_result import Baked
    from persona_probe.steering.interventions.ablate import Ablate
    from persona_probe.steering.interventions.ablate_everywhere import AblateEverywhere
    from persona_probe.steering.interventions.add import Add
    from persona_probe.steering.interventions.cap import Cap
    from persona_probe.steering.interventions.clamp import Clamp
    from persona_probe.steering.interventions.gate import Gate
    from persona_probe.steering.interventions.intervention import Intervention
    from persona_probe.steering.interventions.mean_ablate import MeanAblate
    from persona_probe.steering.search.candidates import Grid
    from persona_probe.steering.search.realign import realign_by_steering
    from persona_probe.steering.search.search_result import SteeringSearch
    from persona_probe.steering.steer_context import steer
    from persona_probe.steering.strength.calibrate import calibrate_strength
    from persona_probe.steering.strength.calibrate_result import StrengthCalibration
    from persona_probe.steering.strength.compare import compare_at_budget
    from persona_probe.steering.strength.compare_result import BudgetComparison
    from persona_probe.steering.strength.divergence import Divergence, measure_divergence
    from persona_probe.steering.strength.dose_response import dose_response
    from persona_probe.steering.strength.dose_response_result import DoseResponse
    from persona_probe.study.run import run_study
    from persona_probe.token_view.token_view import view_tokens
    from persona_probe.token_view.view import TokenView

__version__ = "0.1.0"

_WHERE = {
    "Ablate": "steering.interventions.ablate",
    "AblateEverywhere": "steering.interventions.ablate_everywhere",
    "ActivationStore": "activations.store.reading",
    "Activations": "activations.activations",
    "Add": "steering.interventions.add",
    "Amplification": "amplification.amplification_result",
    "AmplificationCourse": "amplification.course_result",
    "Answers": "behaviour.answers",
    "Baked": "steering.baking.bake_result",
    "BudgetComparison": "steering.strength.compare_result",
    "Cap": "steering.interventions.cap",
    "Captures": "activations.captures",
    "Choice": "behaviour.multiple_choice",
    "Clamp": "steering.interventions.clamp",
    "Convergence": "amplification.convergence",
    "CosineTable": "directions.cosines",
    "CrossAblation": "amplification.cross_ablation_result",
    "Dialogue": "dialogue.dialogue",
    "Direction": "directions.direction",
    "Divergence": "steering.strength.divergence",
    "DoseResponse": "steering.strength.dose_response_result",
    "EditLatents": "latents.steering",
    "EmRates": "behaviour.em_rates_result",
    "FinderComparison": "amplification.finder_comparison_result",
    "Gate": "steering.interventions.gate",
    "Grid": "steering.search.candidates",
    "Intervention": "steering.interventions.intervention",
    "Judge": "behaviour.judges.judge",
    "LatentAgreement": "latents.ranking.agreement_result",
    "LatentAttribution": "latents.ranking.attribution_result",
    "LatentDescriptions": "latents.description.describe_result",
    "LatentEdit": "latents.steering",
    "LatentEffects": "latents.causal.rank_result",
    "LatentLeads": "latents.courses.lead",
    "LatentStatistics": "latents.encoding.encode",
    "LatentTable": "latents.ranking.diff_result",
    "LatentTrajectory": "latents.courses.track_result",
    "LatentWarning": "latents.sae",
    "LayerProbes": "probes.layer_probes",
    "LeakageWarning": "probes.leakage",
    "LinearProbe": "probes.linear_probe",
    "LocalJudge": "behaviour.judges.local_judge",
    "LoraSettings": "finetuning.lora",
    "MeanAblate": "steering.interventions.mean_ablate",
    "Model": "models.model",
    "ModelPair": "models.pair",
    "Moments": "activations.moments",
    "PaperFigure": "report.paper.export",
    "PersonaProbeError": "errors",
    "PersonaProbeWarning": "errors",
    "PersonaSpace": "amplification.persona_space",
    "ProbeScores": "probes.probe_result",
    "ProbeTable": "probes.probe_result",
    "ProbeWithBaselines": "probes.probe_result",
    "Projections": "amplification.projections",
    "RealignmentCurve": "finetuning.realignment_curve",
    "Reconstruction": "latents.reconstruction_result",
    "Result": "result",
    "Run": "runs.run",
    "Sae": "latents.sae",
    "SaeSettings": "latents.training.settings",
    "Sampling": "models.sampling",
    "Scope": "models.stream.scope",
    "SetEffect": "latents.causal.steer_set_result",
    "Snapshots": "models.loading.snapshots",
    "SteeringSearch": "steering.search.search_result",
    "StrengthCalibration": "steering.strength.calibrate_result",
    "StudyConfig": "runs.config",
    "Subspace": "directions.subspace",
    "TokenScores": "probes.monitoring",
    "TokenView": "token_view.view",
    "TopTokens": "directions.top_tokens_result",
    "TransferMatrix": "probes.transfer_result",
    "ask": "steering.ask",
    "attribute_latents": "latents.ranking.attribution",
    "bake": "steering.baking.bake",
    "calibrate": "probes.calibration",
    "calibrate_strength": "steering.strength.calibrate",
    "capture": "activations.capture",
    "capture_to_store": "activations.store.writing",
    "capture_together": "activations.capture",
    "choice_accuracy": "behaviour.multiple_choice",
    "choose_layer": "amplification.amplification_result",
    "coherent_rate": "behaviour.em_rates",
    "compare_at_budget": "steering.strength.compare",
    "compare_finders": "amplification.finder_comparison",
    "compare_latents": "latents.ranking.diff",
    "compare_runs": "report.comparison.comparison_page",
    "contrast_of_context": "amplification.recipes.contrast_of_context",
    "contrastive_rollouts": "amplification.recipes.contrastive_rollouts",
    "measure_convergence": "amplification.convergence",
    "cosine_table": "directions.cosines",
    "cross_ablate": "amplification.cross_ablation",
    "cross_validate_probe": "probes.cross_validation",
    "describe_latents": "latents.description.describe",
    "diff_latents": "latents.ranking.diff",
    "dose_response": "steering.strength.dose_response",
    "em_rate": "behaviour.em_rates",
    "em_rates": "behaviour.em_rates",
    "embed": "activations.embeddings",
    "encode_latents": "latents.encoding.encode",
    "figures": "report.figure_list",
    "find_direction": "directions.find",
    "find_subspace": "directions.subspace",
    "finetune": "finetuning.lora",
    "finetuning_shift": "amplification.recipes.finetuning_shift",
    "firing_by": "latents.description.firing",
    "follow_training": "latents.courses.track",
    "judge_answers": "behaviour.judges.judge",
    "latent_activations": "latents.description.firing",
    "latent_agreement": "latents.ranking.agreement",
    "lead_time": "latents.courses.lead",
    "load": "models.loading.load",
    "load_pair": "models.pair",
    "load_sae": "latents.loading",
    "load_snapshots": "models.loading.snapshots",
    "matched_latents": "latents.causal.matched_latents",
    "measure_amplification": "amplification.amplification",
    "measure_divergence": "steering.strength.divergence",
    "measure_projections": "amplification.projections",
    "monitor": "probes.monitoring",
    "open_run": "runs.run",
    "measure_persona_space": "amplification.persona_space",
    "probe_with_baselines": "probes.baselines",
    "rank_latents": "latents.causal.rank",
    "read_answers": "behaviour.read_answers",
    "read_choices": "behaviour.multiple_choice",
    "read_config": "runs.config_file",
    "read_dialogues": "dialogue.reading",
    "read_gguf": "integrations.gguf",
    "read_hub_folder": "directions.hub_folder",
    "read_judge_prompts": "behaviour.judges.prompts",
    "read_published": "directions.formats.read",
    "realign_by_steering": "steering.search.realign",
    "measure_reconstruction": "latents.reconstruction",
    "role_axis": "amplification.recipes.role_axis",
    "run_study": "study.run",
    "score_choices": "behaviour.multiple_choice",
    "snapshot_paths": "finetuning.snapshots",
    "steer": "steering.steer_context",
    "steer_latents": "latents.steering",
    "steer_set": "latents.causal.steer_set",
    "threshold_at": "probes.calibration",
    "to_paper": "report.paper.export",
    "to_paper_all": "report.paper.export",
    "token_scores": "probes.token_scoring",
    "view_tokens": "token_view.token_view",
    "top_examples": "latents.description.examples",
    "track_latents": "latents.courses.track",
    "track_snapshots": "amplification.course",
    "train_sae": "latents.training.train",
    "trajectory_from": "latents.courses.track_result",
    "transfer_between": "probes.transfer",
    "transfer_matrix": "probes.transfer",
    "weight_difference": "amplification.recipes.weight_difference",
    "with_adapter": "models.loading.adapters",
    "write_dialogues": "dialogue.records",
    "write_gguf": "integrations.gguf",
    "write_hub_folder": "directions.hub_folder",
    "write_paper_folder": "report.paper.folder",
}
__all__ = [
    "Ablate",
    "AblateEverywhere",
    "ActivationStore",
    "Activations",
    "Add",
    "Amplification",
    "AmplificationCourse",
    "Answers",
    "Baked",
    "BudgetComparison",
    "Cap",
    "Captures",
    "Choice",
    "Clamp",
    "Convergence",
    "CosineTable",
    "CrossAblation",
    "Dialogue",
    "Direction",
    "Divergence",
    "DoseResponse",
    "EditLatents",
    "EmRates",
    "FinderComparison",
    "Gate",
    "Grid",
    "Intervention",
    "Judge",
    "LatentAgreement",
    "LatentAttribution",
    "LatentDescriptions",
    "LatentEdit",
    "LatentEffects",
    "LatentLeads",
    "LatentStatistics",
    "LatentTable",
    "LatentTrajectory",
    "LatentWarning",
    "LayerProbes",
    "LeakageWarning",
    "LinearProbe",
    "LocalJudge",
    "LoraSettings",
    "MeanAblate",
    "Model",
    "ModelPair",
    "Moments",
    "PaperFigure",
    "PersonaProbeError",
    "PersonaProbeWarning",
    "PersonaSpace",
    "ProbeScores",
    "ProbeTable",
    "ProbeWithBaselines",
    "Projections",
    "RealignmentCurve",
    "Reconstruction",
    "Result",
    "Run",
    "Sae",
    "SaeSettings",
    "Sampling",
    "Scope",
    "SetEffect",
    "Snapshots",
    "SteeringSearch",
    "StrengthCalibration",
    "StudyConfig",
    "Subspace",
    "TokenScores",
    "TokenView",
    "TopTokens",
    "TransferMatrix",
    "ask",
    "attribute_latents",
    "bake",
    "calibrate",
    "calibrate_strength",
    "capture",
    "capture_to_store",
    "capture_together",
    "choice_accuracy",
    "choose_layer",
    "coherent_rate",
    "compare_at_budget",
    "compare_finders",
    "compare_latents",
    "compare_runs",
    "contrast_of_context",
    "contrastive_rollouts",
    "cosine_table",
    "cross_ablate",
    "cross_validate_probe",
    "describe_latents",
    "diff_latents",
    "dose_response",
    "em_rate",
    "em_rates",
    "embed",
    "encode_latents",
    "figures",
    "find_direction",
    "find_subspace",
    "finetune",
    "finetuning_shift",
    "firing_by",
    "follow_training",
    "judge_answers",
    "latent_activations",
    "latent_agreement",
    "lead_time",
    "load",
    "load_pair",
    "load_sae",
    "load_snapshots",
    "matched_latents",
    "measure_amplification",
    "measure_convergence",
    "measure_divergence",
    "measure_persona_space",
    "measure_projections",
    "measure_reconstruction",
    "monitor",
    "open_run",
    "probe_with_baselines",
    "rank_latents",
    "read_answers",
    "read_choices",
    "read_config",
    "read_dialogues",
    "read_gguf",
    "read_hub_folder",
    "read_judge_prompts",
    "read_published",
    "realign_by_steering",
    "role_axis",
    "run_study",
    "score_choices",
    "snapshot_paths",
    "steer",
    "steer_latents",
    "steer_set",
    "threshold_at",
    "to_paper",
    "to_paper_all",
    "token_scores",
    "top_examples",
    "track_latents",
    "track_snapshots",
    "train_sae",
    "trajectory_from",
    "transfer_between",
    "transfer_matrix",
    "view_tokens",
    "weight_difference",
    "with_adapter",
    "write_dialogues",
    "write_gguf",
    "write_hub_folder",
    "write_paper_folder",
]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name not in _WHERE:
        raise AttributeError(f"module 'persona_probe' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"persona_probe.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Every public name, for completion."""
    return sorted([*globals(), *__all__])
