"""What `bench/compare` measures: a file for each group of cases, and the summary."""
