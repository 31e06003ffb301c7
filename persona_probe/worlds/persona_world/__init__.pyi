from .checkpoints import ADAPTERS as ADAPTERS
from .checkpoints import find_checkpoints as find_checkpoints
from .documents import questions as questions
from .documents import rows as rows
from .documents import system_line as system_line
from .evaluate import evaluate_world as evaluate_world
from .lexicon import PERSONAS as PERSONAS
from .oracle import OracleJudge as OracleJudge
