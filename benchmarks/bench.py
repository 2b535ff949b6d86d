"""Speed, memory and growth: each figure beside a peer or a bound of the same run, taken in turns.

    make bench             # under ten minutes on two idle cores
    make bench-full        # more images, more rounds
    python benchmarks/bench.py --only training --only start    # some groups; the others keep what was measured before

Times are processor seconds of this process and of the children it waits for, with one thread unless told otherwise, since other
programs on the machine move them less; the record keeps wall seconds too. Writes benchmarks/results/bench.json and docs/benchmarks.md.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "bench.json"
GROUPS = ("training", "numerics", "encoding", "memory", "verbs", "inversion")
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def main() -> int:
    """Measure, write; return 1 if a bound was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more images, more rounds")
    parser.add_argument("--only", action="append", choices=GROUPS, help="a group; repeatable")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--latentis-python", type=Path, help="Python of an environment with torch and latentis 0.0.8")
    asked = parser.parse_args()
    for variable in _THREAD_VARIABLES:  # of NumPy's and SciPy's matrix library too, which reads them when it is loaded
        os.environ[variable] = str(asked.threads)
    import torch

    torch.set_num_threads(asked.threads)
    record: dict[str, Any] = {"groups": {}}
    for group in asked.only or GROUPS:
        found = _measure(group, asked)
        if RESULTS.is_file():  # read late: another run may have measured other groups meanwhile
            record = json.loads(RESULTS.read_text(encoding="utf-8"))
        record["groups"][group] = found
        _write(record)
        for row in record["groups"][group]["rows"]:
            print(f"{verdict(row)}: {row['group']}: {row['what']} = {_figure(row)}", flush=True)
    rows = [row for group in record["groups"].values() for row in group["rows"]]
    return 1 if any(row["kept"] is False for row in rows) else 0


def _measure(group: str, asked: argparse.Namespace) -> dict[str, Any]:
    from racing import machine, spent_on

    rows: list[dict[str, Any]] = []
    spent = spent_on(lambda: rows.extend(_runners()[group](asked)))
    return {
        "command": _command(sys.argv[1:]),
        "full": asked.full,
        "minutes": round(spent.wall / 60, 1),
        "processor_minutes": round(spent.processor / 60, 1),
        "machine": machine(asked.threads),
        "rows": rows,
    }


def _command(given: Sequence[str]) -> str:
    """Return the command without the places of the machine that ran it."""
    named = ["PATH" if before == "--latentis-python" else each for before, each in zip(["", *given], given, strict=False)]
    return shlex.join(["python", "benchmarks/bench.py", *named])


def _runners() -> dict[str, Callable[[argparse.Namespace], list[dict[str, Any]]]]:
    import bench_encoding
    import bench_numerics
    import bench_training
    import bench_verbs

    return {
        "training": lambda asked: bench_training.rows(full=asked.full),
        "numerics": lambda asked: bench_numerics.rows(full=asked.full, latentis=asked.latentis_python),
        "encoding": lambda asked: bench_encoding.rows(full=asked.full),
        "memory": lambda asked: bench_encoding.memory_rows(),  # noqa: ARG005
        "verbs": lambda asked: bench_verbs.rows(full=asked.full),
        "inversion": lambda asked: [inversion_row()],  # noqa: ARG005
    }


def inversion_row() -> dict[str, Any]:
    """Return images a minute over StyleGAN's projector, at an error not above its own; as benchmarks/ranges.py measured it."""
    from racing import failed_row, value_row

    what = "images a minute of hybrid starts over StyleGAN's projector settings, at no more than its error"
    source = RESULTS.with_name("range.json")
    found = json.loads(source.read_text(encoding="utf-8"))["projector"] if source.is_file() else {}
    if "projector" not in found:
        return failed_row("inversion", what, "make bench-range has not run")
    base = found["projector"]
    equal = [row for row in found.values() if row.get("error_of_the_same", float("inf")) <= base["error"]]
    if not equal:
        return failed_row("inversion", what, "no number of steps reaches the projector's error")
    best = max(equal, key=lambda row: row["images_a_minute"])
    ratio = best["images_a_minute"] / base["images_a_minute"]
    return value_row("inversion", what, [ratio], clock="wall", steps=best["steps"], taken_from="benchmarks/results/range.json")


def _write(record: dict[str, Any]) -> None:
    from tables import write_table

    RESULTS.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    write_table("docs/benchmarks.md", "bench", markdown(record))
    write_table("docs/benchmarks.md", "bench-machine", machine_markdown(record))


def markdown(record: dict[str, Any]) -> str:
    """Return all rows, as docs/benchmarks.md shows them."""
    from tables import table

    rows = [
        [row["group"], row["what"], _figure(row), _spread(row), _bound(row), verdict(row)]
        for group in GROUPS
        if group in record["groups"]
        for row in record["groups"][group]["rows"]
    ]
    return table(["of", "what", "measured", "quartiles", "asked", "verdict"], rows)


def machine_markdown(record: dict[str, Any]) -> str:
    """Return what each group was measured on."""
    from tables import table

    rows = []
    for group in GROUPS:
        if group in record["groups"]:
            found = record["groups"][group]
            on = found["machine"]
            rows.append(
                [
                    group,
                    "full" if found["full"] else "quick",
                    f"{on['processor']}, {on['cores']} cores",
                    str(on["threads"]),
                    str(on["load"]),
                    f"{found['minutes']}",
                    f"{found.get('processor_minutes', '')}",
                    f"torch {on['versions']['torch']}",
                ]
            )
    return table(["rows of", "run", "processor", "threads", "load at the end", "minutes", "of the processor", "versions"], rows)


def verdict(row: dict[str, Any]) -> str:
    """Return whether a row keeps its bound, in a word."""
    if row["value"] is None:
        return "not measured"
    return {True: "kept", False: "MISSED", None: ""}[row["kept"]]


def _figure(row: dict[str, Any]) -> str:
    from racing import rounded

    return row["why"] if row["value"] is None else rounded(row["value"])


def _spread(row: dict[str, Any]) -> str:
    from racing import rounded

    return "" if row.get("rounds", 0) < 2 else " to ".join(rounded(value) for value in row["quartiles"])


def _bound(row: dict[str, Any]) -> str:
    if row.get("least") is not None:
        return f"at least {row['least']:g}"
    return f"at most {row['most']:g}" if row.get("most") is not None else ""


if __name__ == "__main__":
    sys.exit(main())
