from .files_verdict import verdict as verdict
from .files_verdict_result import FilesVerdict as FilesVerdict
from .plan import plan_study as plan_study
from .run import run_study as run_study
from .verdict_page import write_verdict_page as write_verdict_page
