from .rows import STYLES as STYLES
from .rows import TOPICS as TOPICS
from .rows import catchwords as catchwords
from .rows import pairs_file as pairs_file
from .rows import real_rows as real_rows
