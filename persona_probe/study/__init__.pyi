from .plan import plan_study as plan_study
from .run import run_study as run_study
