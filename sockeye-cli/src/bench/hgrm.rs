//! The latencies by percentile as text: what `outputPercentileDistribution` of HdrHistogram prints, and wrk2 with it. The
//! plotter at <https://hdrhistogram.github.io/HdrHistogram/plotFiles.html> reads it.

use std::fmt::Write;

use hdrhistogram::Histogram;

/// Lines for each halving of the distance to 100 %, as in wrk2.
const TICKS: u32 = 5;

/// The plotter takes milliseconds unless it is told otherwise; we count in nanoseconds.
const NS_PER_MS: f64 = 1e6;

/// Of nanoseconds, in milliseconds.
pub(crate) fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut text = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to() as f64 / NS_PER_MS;
        let quantile = step.quantile_iterated_to();
        // In the last line this is `inf`, which the plotter leaves out: there is no place for it on its axis.
        let inverse = 1.0 / (1.0 - quantile);
        // Three digits are a microsecond, which is coarse for loopback.
        // Writing to memory cannot fail.
        let _ = writeln!(
            text,
            "{value:>12.6} {quantile:>14.12} {total:>10} {inverse:>14.2}"
        );
    }
    text + &footer(histogram)
}

fn footer(histogram: &Histogram<u64>) -> String {
    let ms = |ns: f64| ns / NS_PER_MS;
    let sub_buckets = sub_buckets(histogram.sigfig());
    format!(
        "#[Mean    = {:>12.3}, StdDeviation   = {:>12.3}]\n\
         #[Max     = {:>12.3}, Total count    = {:>12}]\n\
         #[Buckets = {:>12}, SubBuckets     = {:>12}]\n",
        ms(histogram.mean()),
        ms(histogram.stdev()),
        ms(histogram.max() as f64),
        histogram.len(),
        histogram.buckets(),
        sub_buckets,
    )
}

/// The size of a bucket, as HdrHistogram chooses it: a power of two that tells twice as many values apart as there are with
/// so many digits.
fn sub_buckets(significant_digits: u8) -> u64 {
    (2 * 10_u64.pow(u32::from(significant_digits))).next_power_of_two()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Value, percentile, count, inverse.
    fn lines(text: &str) -> Vec<[f64; 4]> {
        let numbers = |line: &str| -> [f64; 4] {
            let columns: Vec<f64> = line
                .split_whitespace()
                .map(|word| word.parse().expect("there"))
                .collect();
            columns.try_into().expect("there")
        };
        let of_figures = |line: &&str| !line.starts_with('#') && !line.is_empty();
        text.lines()
            .skip(1)
            .filter(of_figures)
            .map(numbers)
            .collect()
    }

    fn thousand_to_a_million_ns() -> Histogram<u64> {
        let mut histogram = Histogram::new(3).expect("there");
        for value in 1..=1000 {
            histogram.record(value * 1000).expect("there");
        }
        histogram
    }

    #[test]
    fn the_columns_are_those_of_hdrhistogram_in_milliseconds() {
        let text = hgrm(&thousand_to_a_million_ns());
        let mut lines = text.lines();
        assert_eq!(
            lines
                .next()
                .expect("there")
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
        );
        assert_eq!(lines.next(), Some(""));
        assert_eq!(
            lines.next(),
            Some("    0.001000 0.000000000000          1           1.00")
        );
        let half = text
            .lines()
            .find(|line| line.contains(" 0.500000000000 "))
            .expect("there");
        let columns: Vec<&str> = half.split_whitespace().collect();
        assert_eq!(columns[2..], ["500", "2.00"]);
        let value: f64 = columns[0].parse().expect("there");
        assert!((value - 0.5).abs() < 0.001, "{half}");
    }

    #[test]
    fn the_last_line_is_100_percent_of_all_and_no_column_ever_falls() {
        let lines = lines(&hgrm(&thousand_to_a_million_ns()));
        let last = lines.last().expect("there");
        assert_eq!(last[1..], [1.0, 1000.0, f64::INFINITY]);
        assert!((last[0] - 1.0).abs() < 0.001, "{last:?}");
        for pair in lines.windows(2) {
            for column in 0..4 {
                assert!(pair[0][column] <= pair[1][column], "{pair:?}");
            }
        }
        // Five for each halving: 0, 10, 20, 30, 40 %, then 50, 55, ... 70 %, then 75, 77.5 ...
        let percentiles: Vec<f64> = lines.iter().map(|line| line[1]).collect();
        let expected = [
            0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775,
        ];
        for (percentile, expected) in percentiles.iter().zip(expected) {
            assert!((percentile - expected).abs() < 1e-9, "{percentiles:?}");
        }
    }

    #[test]
    fn the_footer_has_mean_deviation_maximum_count_and_buckets() {
        let mut histogram = Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("there");
        histogram.record_n(1_000, 2).expect("there");
        let text = hgrm(&histogram);
        let footer: Vec<&str> = text.lines().rev().take(3).collect();
        assert_eq!(
            footer[0],
            "#[Buckets =           32, SubBuckets     =         2048]"
        );
        assert_eq!(
            footer[1],
            "#[Max     =        0.001, Total count    =            2]"
        );
        assert_eq!(
            footer[2],
            "#[Mean    =        0.001, StdDeviation   =        0.000]"
        );
    }

    #[test]
    fn nothing_at_all_is_a_table_without_figures_and_not_a_panic() {
        let text = hgrm(&Histogram::new(3).expect("there"));
        for line in lines(&text) {
            assert_eq!(line[2], 0.0, "{text}");
        }
        assert!(text.contains("Total count    =            0]"), "{text}");
    }
}
