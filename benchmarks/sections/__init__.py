"""What is measured, one file per section: ``measure(setting)``, ``ROWS`` of the table, and ``HOW`` in Markdown.

``measure`` returns ``figures`` (the entry of the section in the JSON) and ``raw`` (from which they were computed).
"""

from benchmarks.sections import capture, growth, import_seconds, judge, latents, pair, probes, steer, sweep

SECTIONS = {
    "capture": capture,
    "pair": pair,
    "import_seconds": import_seconds,
    "growth": growth,
    "steer": steer,
    "sweep": sweep,
    "judge": judge,
    "probes": probes,
    "latents": latents,
}
