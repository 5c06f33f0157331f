"""The page about a record: its tables, its ratios, its targets and what did not count."""

import collections
import itertools
import shlex
import statistics

import machine
from machine import (LEAST_ELSEWHERE_TICKS, LEAST_STEAL_TICKS, MOST_ELSEWHERE_PERCENT, MOST_STEAL_PERCENT, first_line,
                     without_paths)
from ratios import ahead, paired_ratio, ratios_by_pinning, values
from suite import MOST_ATTEMPTS, SUBJECT, takes_part


def number_text(value, column):
    return "–" if value is None else f"{value / column.divisor:,.{column.digits}f}"


def interval_text(low, high):
    return "too few rounds to tell" if low is None else f"{low:.3f}–{high:.3f}"


def case_table(runs, name, case, servers):
    lines = [f"### {case.title[0].upper()}{case.title[1:]}", "",
             "| server | " + " | ".join(column.heading for column in case.columns) + " | runs that count |",
             "|---|" + "---:|" * (len(case.columns) + 1)]
    for server, command in servers:
        if not takes_part((server, command), name, case):
            continue
        cells = []
        for column in case.columns:
            found = values(runs, name, server, column.field).values()
            cells.append(f"{number_text(statistics.median(found), column)} "
                         f"({number_text(min(found), column)}–{number_text(max(found), column)})" if found else "–")
        all_runs = [run for run in runs if run["case"] == name and run["server"] == server]
        counted = sum(run["valid"] for run in all_runs)
        lines.append(f"| {server} | " + " | ".join(cells) + f" | {counted} of {len(all_runs)} |")
    return lines + [""]


def pairs(name, case, servers, reference):
    """What ratios are taken of in a case: two cases with their servers, and what to call the pair."""
    names = [server[0] for server in servers if takes_part(server, name, case)]
    if case.against:
        return [((name, server), (case.against, server), f"{server}: {name} / {case.against}") for server in names]
    found = [(server, reference) for server in names if server != reference and reference in names]
    found += [(SUBJECT, server) for server in names if SUBJECT in names and server not in (SUBJECT, reference)]
    return [((name, above), (name, below), f"{above} / {below}") for above, below in found]


def ratio_table(runs, options, suite, servers):
    lines = ["| case | figure | pair | ratio | 95 % interval | rounds | ahead |", "|---|---|---|---:|---|---:|---|"]
    for name, case in suite.cases.items():
        if name not in options.cases:
            continue
        compared = pairs(name, case, servers, suite.reference)
        for column, (above, below, title) in itertools.product(case.columns[:case.compared], compared):
            found = ratios_by_pinning(runs, column.field, above, below)
            if not found:
                continue
            side = ahead(found, case.more_is_better)
            winner = {"above": above, "below": below, None: ("not known", "not known")}[side]
            lines.append(f"| {case.title} | {column.heading} | {title} | "
                         + "; ".join(f"{ratio:.3f}" for ratio, *_ in found) + " | "
                         + "; ".join(interval_text(low, high) for _, low, high, _ in found) + " | "
                         + "; ".join(str(rounds) for *_, rounds in found)
                         + f" | {winner[0 if case.against else 1]} |")
    return lines + [""]


def target_line(runs, target, suite):
    def keeps(value):
        return value >= target.limit if target.at_least else value <= target.limit

    if target.is_ratio:
        against = suite.cases[target.case].against
        below = (against, SUBJECT) if against else (target.case, suite.reference)
        found = paired_ratio(runs, target.field, (target.case, SUBJECT), below)
        if not found:
            return f"- {target.text}: **not measured**"
        ratio, low, high, _ = found
        met, detail = keeps(ratio), f"{ratio:.3f}, 95 % interval: {interval_text(low, high)}"
        if low and keeps(low) != keeps(high):
            detail += "; the limit is inside the interval, so more rounds may decide otherwise"
    else:
        found = values(runs, target.case, SUBJECT, target.field).values()
        if not found:
            return f"- {target.text}: **not measured**"
        middle = statistics.median(found)
        met, detail = keeps(middle), f"median {middle:,.1f}, worst {max(found):,.1f}"
    if target.without_drops:
        # Also of runs that do not count: a burst that lost connections is just what this is about.
        drops = max(run.get("listen_drops", 0) for run in runs
                    if run["case"] == target.case and run["server"] == SUBJECT)
        met, detail = met and drops == 0, f"{detail}; most ListenDrops in a run {drops}"
    return f"- {target.text}: **{'met' if met else 'not met'}** ({detail})"


def facts(options, control, more):
    version = "" if SUBJECT in options.without else first_line(options.built / SUBJECT, "--version")
    pinnings = " and, in runs of their own, ".join(f"server on {server}, client on {client}"
                                                   for server, client in options.pinnings)
    return {
        "machine": machine.description(),
        "kernel": machine.kernel(control),
        "CPUs": f"{pinnings}, loopback",
        "commit": machine.commit(),
        "versions": ", ".join(filter(None, [version, first_line("rustc", "--version")])),
        "command": f"`{without_paths(options.typed)}`",
        "rehearsal": "**runs count however disturbed they were, so no figure here is one**" if options.rehearsal else "",
    } | more


def fact_lines(found):
    return [f"- {name}: {text}" for name, text in found.items() if text]


def server_lines(servers, missing):
    lines = []
    for name, command in servers:
        # In those by cases there are signs of the shell, and words to be filled in.
        texts = [" ".join(map(str, words)) for words in command.values()] if isinstance(command, dict) \
            else [shlex.join(map(str, command))]
        lines.append(f"- {name}: " + ", ".join(dict.fromkeys(f"`{without_paths(text)}`" for text in texts)))
    return lines + [f"- {name}: not available ({reason})" for name, reason in missing.items()]


def stricter(cases):
    usual = (MOST_STEAL_PERCENT, MOST_ELSEWHERE_PERCENT)
    limits = {name: (case.most_steal_percent, case.most_elsewhere_percent) for name, case in cases.items()}
    return "".join(f" For {name} it is {steal} % and {elsewhere} %."
                   for name, (steal, elsewhere) in limits.items() if (steal, elsewhere) != usual)


def rule(suite):
    return ("Decided beforehand: a run counts unless a connection failed or went unserved, or (but for memory and "
            f"the start-up) the hypervisor took more than {MOST_STEAL_PERCENT} % of the CPUs and at least "
            f"{LEAST_STEAL_TICKS} clock ticks, or other processes took more than {MOST_ELSEWHERE_PERCENT} % and at "
            f"least {LEAST_ELSEWHERE_TICKS}.{stricter(suite.cases)} A run so disturbed is repeated, up to "
            f"{MOST_ATTEMPTS - 1} times.")


def invalid_lines(runs):
    invalid = collections.Counter((run["case"], run["server"], run["objection"]) for run in runs if not run["valid"])
    return [f"- {case}, {server}: {count} × {why}" for (case, server, why), count in invalid.items()] or ["None."]


def page(options, control, suite, measured):
    servers, missing, runs = measured.servers, measured.missing, measured.runs
    lines = [f"# Figures of {options.date}, {options.label}", "",
             f"Written by `bench/{suite.name}`; every run is a line of `raw.jsonl`. What the figures mean, and what "
             "they do not, is in `bench/README.md`.", "",
             *fact_lines(facts(options, control, suite.facts(runs))), "", "Servers:", "",
             *server_lines(servers, missing), "", "## Targets", "",
             *(target_line(runs, target, suite) for target in suite.targets), "",
             "## Medians (lowest–highest)", ""]
    for name in options.cases:
        lines += case_table(runs, name, suite.cases[name], servers)
    lines += ["## Ratios within a round", "",
              "The median over the rounds, and a bootstrap 95 % interval of it. Where the interval holds 1, the "
              "figures do not tell which is ahead. Of a few rounds such an interval is rather too narrow.", "",
              *ratio_table(runs, options, suite, servers), "## Runs that do not count", "", rule(suite), "",
              *invalid_lines(runs)]
    return "\n".join(lines) + "\n"
