"""Tests of what is said from the runs: the cells of the summary, its claims, and where it is put."""

import pathlib
import tempfile
import unittest

import machine
from comparison import scale, summary
from comparison.generators import program_says, wrk_says
from figures import schedule
from server import filled_in
from suite import Case, Column, takes_part

COLUMN = Column("ns", "ns", 1, 0)
CASE = Case("a case", ("load",), (COLUMN,))


def run(server, figure=None, number=0, **more):
    return {"case": "c", "server": server, "round": number, "pinning": 0, "valid": figure is not None,
            "ns": figure} | more


class Cells(unittest.TestCase):
    def test_a_cell_that_a_peer_cannot_serve_says_how_much_it_served(self):
        failed = run("ncat", served=87, connections=1000, objection="served 87 of 1000 connections")
        self.assertEqual(summary.cell([failed], "c", "ncat", COLUMN), "served 87 of 1,000")

    def test_a_cell_without_a_run_is_empty_and_one_that_was_disturbed_says_so(self):
        self.assertEqual(summary.cell([], "c", "ncat", COLUMN), "")
        disturbed = run("ncat", disturbed=True, objection="others")
        self.assertEqual(summary.cell([disturbed], "c", "ncat", COLUMN), "disturbed")

    def test_claims_name_those_of_whom_the_figures_tell(self):
        runs = [run(server, figure, number) for number in range(6)
                for server, figure in (("sockeye", 10), ("slow", 20), ("fast", 8), ("same", 9 + number % 3))]
        said = summary.claims(runs, "c", CASE, COLUMN, ["sockeye", "slow", "fast", "same"])
        self.assertEqual(said, "ahead of slow (0.5); behind fast (1.25)")


class Page(unittest.TestCase):
    def test_the_summary_replaces_the_one_before_and_nothing_else(self):
        with tempfile.TemporaryDirectory() as directory:
            page = pathlib.Path(directory) / "page.md"
            page.write_text(f"above\n{summary.BEGINS}\nold\n{summary.ENDS}\nbelow\n")
            summary.put_into(page, ["new"])
            summary.put_into(page, ["newer"])
            self.assertEqual(page.read_text(), f"above\n{summary.BEGINS}\n\nnewer\n\n{summary.ENDS}\nbelow\n")

    def test_a_page_without_marks_is_left_alone(self):
        with tempfile.TemporaryDirectory() as directory:
            page = pathlib.Path(directory) / "page.md"
            page.write_text("above\n")
            with self.assertRaises(ValueError):
                summary.put_into(page, ["new"])
            self.assertEqual(page.read_text(), "above\n")

    def test_paths_lose_their_directories_and_addresses_do_not(self):
        self.assertEqual(machine.without_paths("/a/b/tool --x=/c/d 'http://{address}/'"),
                         "tool --x=d 'http://{address}/'")


class Schedule(unittest.TestCase):
    def test_every_case_is_run_with_whoever_takes_part_in_both_pinnings(self):
        class Options:
            cases, rounds, starts, pinnings = ["c", "d"], 2, 3, [(0, 1), (1, 0)]

        cases = {"c": Case("c", ("load",), (COLUMN,), without=("b",)),
                 "d": Case("d", (), (COLUMN,), is_start=True)}
        servers = [("a", ["a"]), ("b", ["b"])]
        steps = list(schedule(Options, servers, cases))
        self.assertEqual(sorted(step[:3] for step in steps if step[0] == "c"),
                         [("c", number, pinning) for number in range(2) for pinning in range(2)])
        self.assertEqual(len([step for step in steps if step[0] == "d"]), 3 * 2 * 2)

    def test_a_program_with_commands_by_case_takes_part_in_those(self):
        self.assertTrue(takes_part(("nc", {"c": ["nc"]}), "c", CASE))
        self.assertFalse(takes_part(("nc", {"c": ["nc"]}), "d", CASE))


class Programs(unittest.TestCase):
    def test_words_are_filled_in_and_other_braces_stay(self):
        self.assertEqual(filled_in(["nc", "{host}", "{port}", "{x}"], host="h", port=7), ["nc", "h", "7", "{x}"])

    def test_what_wrk_prints_is_read_and_its_errors_are_an_objection(self):
        text = "  123456 requests in 3.00s, 145.5MB read\n"
        self.assertEqual(wrk_says(text), {"messages": 123456, "seconds": 3.0, "valid": True})
        wrong = wrk_says(text + "  Socket errors: connect 0, read 12, write 0, timeout 0\n")
        self.assertEqual((wrong["valid"], wrong["objection"]),
                         (False, "Socket errors: connect 0, read 12, write 0, timeout 0"))
        with self.assertRaises(ValueError):
            wrk_says("unable to connect")

    def test_a_generator_counts_if_no_other_generator_would_object_to_its_run(self):
        def said(kind, errors="{}"):
            return program_says('{"valid": false, "messages": 9, "measured_ms": 500.0, "errors": %s, '
                                '"invalid": [{"kind": "%s", "text": "so it was"}]}' % (errors, kind))
        run = {"messages": 9, "seconds": 0.5}
        self.assertEqual(said("generator_busy"), run | {"valid": True})
        self.assertEqual(said("few_served"), run | {"valid": False, "objection": "so it was"})
        self.assertEqual(said("generator_busy", '{"reset": 2}'),
                         run | {"valid": False, "objection": "2 errors: reset"})
        self.assertEqual(program_says('{"valid": false, "messages": 9, "seconds": 0.5, "objection": "1 error"}'),
                         run | {"valid": False, "objection": "1 error"})


class Million(unittest.TestCase):
    def test_slopes_leave_out_what_a_process_has_before_its_first_connection(self):
        steps = [{"connections": 1000 * number, "user_bytes": 50 * 1000 * number,
                  "kernel_bytes": 7_000_000 + 8000 * 1000 * number, "available_bytes": 10**9 - 9000 * 1000 * number,
                  "seconds": 0.02 if number else 0} for number in range(4)]
        said = [{"messages": 300, "server_cpu_ns_per_message": 3000, "client_cpu_ns_per_message": 4000, "served": 9},
                {"messages": 100, "server_cpu_ns_per_message": 7000, "client_cpu_ns_per_message": 8000, "served": 9}]
        found = scale.figures_of(steps, said)
        self.assertAlmostEqual(found["user_bytes_per_connection"], 50)
        self.assertAlmostEqual(found["kernel_bytes_per_connection"], 8000)
        self.assertAlmostEqual(found["memory_bytes_per_connection"], 9000)
        self.assertAlmostEqual(found["open_us_per_connection"], 20)
        self.assertEqual(found["server_cpu_ns_per_message"], 4000)
        self.assertEqual(found["served"], 18)


if __name__ == "__main__":
    unittest.main()
