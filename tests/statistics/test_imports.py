import subprocess
import sys

ROOM = [
    "auroc",
    "average_precision",
    "clustered_variance",
    "effect_sizes",
    "estimate",
    "inputs",
    "kappa",
    "max_statistic",
    "nulls",
    "power",
    "rates",
    "rogan_gladen",
    "score_intervals",
    "specificity",
]


def test_the_room_opens_without_any_model_library() -> None:
    imports = "; ".join(f"import persona_probe.statistics.{name}" for name in ROOM)
    heavy = "{'torch', 'transformers', 'sklearn', 'pandas'} & set(sys.modules)"
    code = f"import sys; {imports}; sys.exit(str({heavy}) if {heavy} else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
