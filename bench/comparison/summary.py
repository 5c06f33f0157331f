"""The newest record in short, for BENCHMARKS.md: a table for each suite, and who is ahead where the figures tell."""

import json
import statistics

from page import number_text, pairs
from ratios import ahead, ratios_by_pinning, values
from suite import SUBJECT

BEGINS, ENDS = "<!-- summary: begins -->", "<!-- summary: ends -->"


def read(directory):
    """The facts and the runs of a record."""
    found, runs = {}, []
    for line in (directory / "raw.jsonl").read_text().splitlines():
        record = json.loads(line)
        if "case" in record:
            runs.append(record)
        found |= record.get("facts", {})
    return found, runs


def summary(directories, suites):
    """Of several records each suite is from the last one that has it."""
    lines, records = [], []
    for directory in directories:
        found, runs = read(directory)
        if found.get("rehearsal"):
            raise ValueError(f"{directory} is a rehearsal")
        name = directory.resolve().name
        records.append((name, runs))
        lines += [f"From `bench/runs/{name}`, where every run is:", ""]
        lines += [f"- {name}: {text}" for name, text in found.items() if text] + [""]
    del lines[-1]
    for suite in suites:
        name, mine = next(((name, mine) for name, runs in reversed(records)
                           if (mine := [run for run in runs if run["case"] in suite.cases])), ("", []))
        if mine:
            which = f" ({name})" if len(records) > 1 else ""
            lines += ["", f"### {suite.about}{which}", "", *suite_table(suite, mine)]
            more = suite.more(mine)
            lines += ["", *more[:-1]] if more else []
    return lines


def suite_table(suite, runs):
    # In the first round the servers are in their own order.
    names = list(dict.fromkeys(run["server"] for run in runs))
    lines = ["| case | figure | " + " | ".join(names) + f" | {SUBJECT} is |",
             "|---|---|" + "---:|" * len(names) + "---|"]
    for name, case in suite.cases.items():
        its_runs = [run for run in runs if run["case"] == name]
        if not its_runs:
            continue
        for column in case.columns[:case.compared]:
            cells = [cell(its_runs, name, server, column) for server in names]
            lines.append(f"| {case.title} | {column.heading} | {' | '.join(cells)} | "
                         f"{claims(its_runs, name, case, column, names)} |")
    return lines


def cell(runs, name, server, column):
    found = values(runs, name, server, column.field).values()
    if found:
        return number_text(statistics.median(found), column)
    failed = [run for run in runs if run["server"] == server]
    if not failed:
        return ""
    last = failed[-1]
    if not last.get("disturbed") and last.get("served", 0) < last.get("connections", 0):
        return f"served {last['served']:,} of {last['connections']:,}"
    return "disturbed" if last.get("disturbed") else "failed"


def claims(runs, name, case, column, names):
    """Whom the subject is ahead of and behind, with the ratio; of the others the figures do not tell."""
    said = {"ahead of": [], "behind": []}
    servers = [(server, []) for server in names if any(run["server"] == server for run in runs)]
    for above, below, _ in pairs(name, case, servers, ""):
        found = ratios_by_pinning(runs, column.field, above, below)
        side = ahead(found, case.more_is_better)
        if side:
            ratio = " and ".join(dict.fromkeys(f"{ratio:.3g}" for ratio, *_ in found))
            said["ahead of" if side == "above" else "behind"].append(f"{below[1]} ({ratio})")
    return "; ".join(f"{word} {', '.join(others)}" for word, others in said.items() if others) or "–"


def put_into(page, lines):
    """Replaces what is between the two marks."""
    text = page.read_text()
    before, begins, rest = text.partition(BEGINS)
    _, ends, after = rest.partition(ENDS)
    if not begins or not ends:
        raise ValueError(f"{page.name} has no marks to put the summary between")
    page.write_text(f"{before}{BEGINS}\n\n" + "\n".join(lines).rstrip() + f"\n\n{ENDS}{after}")
