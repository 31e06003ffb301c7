from .config import StudyConfig as StudyConfig
from .config_file import read_config as read_config
from .run import Run as Run
from .run import open_run as open_run
