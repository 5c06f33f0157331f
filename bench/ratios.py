"""What the figures of many runs say: medians, ratios within a round, and who is ahead. Pure."""

import random
import statistics

LEAST_ROUNDS = 6  # fewer say nothing of an interval


def values(runs, case, server, field):
    """Of the runs that count, by pinning and round."""
    return {(run.get("pinning", 0), run["round"]): run[field] for run in runs
            if run["case"] == case and run["server"] == server and run["valid"] and run.get(field) is not None}


def paired_ratio(runs, field, above, below):
    """The median of the ratios within each round, and a bootstrap 95 % interval of it. None for what is unknown.
    What is compared is a case and a server each."""
    over, under = values(runs, *above, field), values(runs, *below, field)
    ratios = [over[number] / under[number] for number in sorted(over.keys() & under.keys()) if under[number]]
    if not ratios:
        return None
    if len(ratios) < LEAST_ROUNDS:
        return statistics.median(ratios), None, None, len(ratios)
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(10_000))
    return statistics.median(ratios), medians[249], medians[9749], len(ratios)


def ratios_by_pinning(runs, field, above, below):
    """The same for each way the programs were pinned to CPUs, in order."""
    pinnings = sorted({run.get("pinning", 0) for run in runs})
    found = (paired_ratio([run for run in runs if run.get("pinning", 0) == pinning], field, above, below)
             for pinning in pinnings)
    return [ratio for ratio in found if ratio]


def larger(found):
    """Which of two is larger by every interval: "above", "below", or None where one of them holds 1 or is unknown.
    Every way of pinning has to agree: what changes with the CPU is a property of the machine."""
    sides = {None if low is None or low <= 1 <= high else "above" if low > 1 else "below"
             for _, low, high, _ in found}
    return sides.pop() if len(sides) == 1 else None


def ahead(found, more_is_better):
    """Which of two is better by every interval, or None where the figures do not tell."""
    side = larger(found)
    if side is None or more_is_better:
        return side
    return "below" if side == "above" else "above"


def slope(points):
    """Of the straight line through points (x, y) with the least squares. None if they all lie above one another."""
    if len(points) < 2:
        return None
    middle_x, middle_y = (statistics.fmean(point[axis] for point in points) for axis in (0, 1))
    spread = sum((x - middle_x) ** 2 for x, _ in points)
    return sum((x - middle_x) * (y - middle_y) for x, y in points) / spread if spread else None
