//! A chart of lines, as SVG. Pure.

use std::fmt::Write;

/// A line; a gap where there is no value.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) curves: Vec<Curve>,
    /// Places on the x axis, with what is written there.
    pub(super) ticks: Vec<(f64, String)>,
    /// Shaded from the left up to there.
    pub(super) shaded_to: Option<f64>,
    pub(super) shown: fn(f64) -> String,
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 90.0;
const BOTTOM: f64 = 26.0;
const TOP: f64 = 10.0;
const CLASSES: [&str; 3] = ["a", "b", "c"];

/// Above two decades only a logarithm shows the small values.
const LOG_FROM: f64 = 100.0;

impl Chart<'_> {
    /// Nothing, if there is nothing to be drawn.
    pub(super) fn svg(&self) -> String {
        let values = || {
            let points = self.curves.iter().flat_map(|curve| &curve.points);
            points.filter_map(|(x, y)| Some((*x, (*y)?)))
        };
        let bounds = |value: fn(&(f64, f64)) -> f64| {
            let all = || values().map(|point| value(&point));
            (
                all().fold(f64::MAX, f64::min),
                all().fold(f64::MIN, f64::max),
            )
        };
        let ((left, right), (low, high)) = (bounds(|point| point.0), bounds(|point| point.1));
        if left > right {
            return String::new();
        }
        let is_log = low > 0.0 && high / low > LOG_FROM;
        let scale = |y: f64| {
            if is_log {
                y.max(f64::MIN_POSITIVE).log10()
            } else {
                y
            }
        };
        let (floor, ceiling) = if is_log {
            (low.log10().floor(), high.log10().ceil())
        } else {
            (0.0, 4.0 * round_step(high / 4.0))
        };
        let x = |value: f64| {
            let share = (value - left) / (right - left).max(f64::MIN_POSITIVE);
            LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - 20.0)
        };
        let y = |value: f64| {
            let share = (scale(value) - floor) / (ceiling - floor).max(f64::MIN_POSITIVE);
            HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
        };
        let mut svg = format!(
            "<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{0}'><title>{0}</title>",
            self.title
        );
        if let Some(to) = self.shaded_to.filter(|to| *to > left) {
            let height = HEIGHT - BOTTOM - TOP;
            // Writing to a string cannot fail, here and below.
            let _ = write!(
                svg,
                "<rect class='warmup' x='{LEFT}' y='{TOP}' width='{:.1}' height='{height}'/>",
                x(to) - LEFT
            );
        }
        let steps = if is_log {
            (ceiling - floor) as usize
        } else {
            4
        };
        for step in 0..=steps {
            let share = floor + (ceiling - floor) * step as f64 / steps.max(1) as f64;
            let value = if is_log { 10_f64.powf(share) } else { share };
            let at = y(value).clamp(TOP, HEIGHT - BOTTOM);
            let _ = write!(
                svg,
                "<line class='grid' x1='{LEFT}' x2='{:.0}' y1='{at:.1}' y2='{at:.1}'/><text x='{:.0}' y='{:.1}' text-anchor='end'>{}</text>",
                WIDTH - 20.0,
                LEFT - 8.0,
                at + 4.0,
                (self.shown)(value)
            );
        }
        for (place, text) in self
            .ticks
            .iter()
            .filter(|(place, _)| (left..=right).contains(place))
        {
            let _ = write!(
                svg,
                "<text x='{:.1}' y='{:.0}' text-anchor='middle'>{text}</text>",
                x(*place),
                HEIGHT - 6.0
            );
        }
        for (curve, class) in self.curves.iter().zip(CLASSES) {
            let _ = write!(
                svg,
                "<path class='curve {class}' d='{}'/>",
                path(curve, &x, &y)
            );
        }
        svg.push_str("</svg><p class='soft'>");
        for (curve, class) in self.curves.iter().zip(CLASSES) {
            let _ = write!(
                svg,
                "<span class='key {class}'>&#9644;</span> {} &nbsp; ",
                curve.name
            );
        }
        svg.push_str("</p>");
        svg
    }
}

/// The next larger number that reads well.
fn round_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let decade = 10_f64.powf(least.log10().floor());
    let factors = [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0].into_iter();
    let mut steps = factors.map(|factor| factor * decade);
    steps.find(|step| *step >= least).unwrap_or(10.0 * decade)
}

fn path(curve: &Curve, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
    let (mut path, mut pen_is_down) = (String::new(), false);
    for (place, value) in &curve.points {
        let Some(value) = value else {
            pen_is_down = false;
            continue;
        };
        let (command, x, y) = (if pen_is_down { 'L' } else { 'M' }, x(*place), y(*value));
        let _ = write!(path, "{command}{x:.1} {y:.1}");
        if !pen_is_down {
            // A point alone is seen, too.
            let _ = write!(path, "h2");
        }
        pen_is_down = true;
    }
    path
}
