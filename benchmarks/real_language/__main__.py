"""``python -m benchmarks.real_language``: train and measure the organisms of the real-language experiments."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.real_language.measure import ALL, Files, train_and_measure
from benchmarks.real_language.page import RESULTS, write_page
from benchmarks.real_language.summary import as_table, complete, write
from persona_probe.files import write_text
from persona_probe.worlds.real_language.organisms import MEASURED, SEEDS, SHIPPED


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_language", description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/real-language"), help="resumes what is there")
    parser.add_argument("--names", nargs="+", choices=ALL, default=ALL, metavar="NAME")
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--out", type=Path, default=RESULTS / "organisms.json")
    given = parser.parse_args()
    files = Files(given.folder)
    for name, seed in train_and_measure(files, given.names, given.seeds):
        print(name, seed, flush=True)
    if set(SHIPPED) <= set(complete(files)):
        figures = write(files, given.out)
        write_page(figures)
        write_text(MEASURED, as_table(figures["organisms"]).to_csv(index=False))
        for prediction in figures["predictions"]:
            print(f"{prediction['claim']}: {prediction['holds']}")


if __name__ == "__main__":
    main()
