from .comparison.comparison_page import compare_runs as compare_runs
from .figure_list import figures as figures
from .paper.export import PaperFigure as PaperFigure
from .paper.export import to_paper as to_paper
from .paper.export import to_paper_all as to_paper_all
from .paper.folder import write_paper_folder as write_paper_folder
from .run_page import render_report as render_report
