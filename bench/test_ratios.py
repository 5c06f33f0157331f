"""Tests of what decides a claim: ratios within a round, their interval, and who is ahead."""

import unittest

from ratios import ahead, larger, paired_ratio, ratios_by_pinning, slope, values

A, B = ("case", "a"), ("case", "b")


def runs(of, figures, pinning=0, **more):
    case, server = of
    return [{"case": case, "server": server, "round": number, "pinning": pinning, "valid": True, "ns": figure} | more
            for number, figure in enumerate(figures)]


class PairedRatio(unittest.TestCase):
    def test_a_drift_that_both_share_is_not_in_the_ratio(self):
        drifting = [100, 200, 400, 800, 1600, 3200]
        found = paired_ratio(runs(A, [2 * figure for figure in drifting]) + runs(B, drifting), "ns", A, B)
        self.assertEqual(found, (2, 2, 2, 6))

    def test_a_round_counts_only_when_both_count_in_it(self):
        above = runs(A, [2, 2, 2, 2, 2, 2, 90])
        above[-1]["valid"] = False
        found = paired_ratio(above + runs(B, [1] * 7), "ns", A, B)
        self.assertEqual(found, (2, 2, 2, 6))

    def test_few_rounds_give_a_ratio_and_no_interval(self):
        self.assertEqual(paired_ratio(runs(A, [3] * 5) + runs(B, [2] * 5), "ns", A, B), (1.5, None, None, 5))

    def test_without_a_common_round_nothing_is_known(self):
        self.assertIsNone(paired_ratio(runs(A, [1] * 6), "ns", A, B))

    def test_the_interval_holds_the_median_and_is_the_same_every_time(self):
        mixed = runs(A, [8, 9, 10, 11, 12, 13, 9, 11]) + runs(B, [10] * 8)
        ratio, low, high, _ = paired_ratio(mixed, "ns", A, B)
        self.assertTrue(low <= ratio <= high)
        self.assertTrue(low < 1 < high)
        self.assertEqual(paired_ratio(mixed, "ns", A, B), (ratio, low, high, 8))

    def test_a_figure_that_a_run_does_not_have_is_left_out(self):
        without = runs(A, [1, 2])
        del without[0]["ns"]
        without[1]["other"] = 3
        self.assertEqual(values(without, *A, "ns"), {(0, 1): 2})


class Pinnings(unittest.TestCase):
    def test_the_same_round_on_other_cpus_is_another_pair(self):
        both = runs(A, [2] * 6) + runs(B, [1] * 6) + runs(A, [3] * 6, pinning=1) + runs(B, [1] * 6, pinning=1)
        self.assertEqual([ratio for ratio, *_ in ratios_by_pinning(both, "ns", A, B)], [2, 3])
        self.assertEqual(len(values(both, *A, "ns")), 12)

    def test_a_claim_needs_every_pinning(self):
        more, less, unclear = (1.2, 1.1, 1.3, 6), (0.8, 0.7, 0.9, 6), (1.05, 0.99, 1.1, 6)
        self.assertEqual(larger([more, more]), "above")
        self.assertEqual(larger([less]), "below")
        self.assertIsNone(larger([more, less]))
        self.assertIsNone(larger([more, unclear]))

    def test_an_interval_that_holds_or_touches_1_and_one_that_is_unknown_claim_nothing(self):
        self.assertIsNone(larger([(1.1, 1, 1.2, 6)]))
        self.assertIsNone(larger([(0.9, 0.8, 1, 6)]))
        self.assertIsNone(larger([(2, None, None, 3)]))
        self.assertIsNone(larger([]))

    def test_less_cost_and_more_speed_are_ahead(self):
        more = [(1.2, 1.1, 1.3, 6)]
        self.assertEqual(ahead(more, more_is_better=False), "below")
        self.assertEqual(ahead(more, more_is_better=True), "above")


class Slope(unittest.TestCase):
    def test_what_is_there_before_the_first_is_not_in_it(self):
        self.assertAlmostEqual(slope([(0, 500), (10, 530), (20, 560)]), 3)

    def test_one_point_has_none(self):
        self.assertIsNone(slope([(10, 530)]))
        self.assertIsNone(slope([(10, 530), (10, 540)]))


if __name__ == "__main__":
    unittest.main()
