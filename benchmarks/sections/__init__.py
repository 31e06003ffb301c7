"""What is measured, one file a section: ``measure(setting)``, ``ROWS`` of the table, ``HOW`` it is done in Markdown.

``measure`` returns ``figures`` (what stands under the section's name in the JSON) and ``raw`` (what they come from).
"""

from benchmarks.sections import capture, growth, import_seconds, latents, pair, probes, steer, sweep

SECTIONS = {
    "capture": capture,
    "pair": pair,
    "import_seconds": import_seconds,
    "growth": growth,
    "steer": steer,
    "sweep": sweep,
    "probes": probes,
    "latents": latents,
}
