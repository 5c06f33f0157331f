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
const RIGHT: f64 = 20.0;

/// Of a scale that is not logarithmic.
const STEPS: u32 = 4;

const CLASSES: [&str; 3] = ["a", "b", "c"];

/// Above two decades only a logarithm shows the small values.
const LOG_FROM: f64 = 100.0;

/// Where a value is drawn.
struct Axes {
    left: f64,
    right: f64,
    /// Of what is drawn: the logarithms, if it is logarithmic.
    floor: f64,
    ceiling: f64,
    is_log: bool,
}

impl Axes {
    /// `None` if there is nothing to be drawn.
    fn around(curves: &[Curve]) -> Option<Self> {
        let points = || {
            let all = curves.iter().flat_map(|curve| &curve.points);
            all.filter_map(|(x, y)| Some((*x, (*y)?)))
        };
        let least = |value: fn((f64, f64)) -> f64| points().map(value).fold(f64::MAX, f64::min);
        let most = |value: fn((f64, f64)) -> f64| points().map(value).fold(f64::MIN, f64::max);
        let (low, high) = (least(|point| point.1), most(|point| point.1));
        let is_log = low > 0.0 && high / low > LOG_FROM;
        let (floor, ceiling) = if is_log {
            (low.log10().floor(), high.log10().ceil())
        } else {
            (0.0, f64::from(STEPS) * round_step(high / f64::from(STEPS)))
        };
        points().next()?;
        Some(Self {
            left: least(|point| point.0),
            right: most(|point| point.0),
            floor,
            ceiling,
            is_log,
        })
    }

    fn x(&self, value: f64) -> f64 {
        let share = (value - self.left) / (self.right - self.left).max(f64::MIN_POSITIVE);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let value = match self.is_log {
            true => value.max(f64::MIN_POSITIVE).log10(),
            false => value,
        };
        let share = (value - self.floor) / (self.ceiling - self.floor).max(f64::MIN_POSITIVE);
        HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP)
    }

    /// The values at which there is a line across.
    fn grid(&self) -> Vec<f64> {
        if self.is_log {
            let decades = (self.floor as i32)..=(self.ceiling as i32);
            return decades.map(|decade| 10_f64.powi(decade)).collect();
        }
        let step = self.ceiling / f64::from(STEPS);
        (0..=STEPS).map(|number| f64::from(number) * step).collect()
    }
}

impl Chart<'_> {
    /// Nothing, if there is nothing to be drawn.
    pub(super) fn svg(&self) -> String {
        let Some(axes) = Axes::around(&self.curves) else {
            return String::new();
        };
        let mut svg = format!(
            "<svg viewBox='0 0 {WIDTH} {HEIGHT}' role='img' aria-label='{0}'><title>{0}</title>",
            self.title
        );
        self.background(&mut svg, &axes);
        let curves = || self.curves.iter().zip(CLASSES);
        for (curve, class) in curves() {
            // Writing to a string cannot fail, here and below.
            let _ = write!(
                svg,
                "<path class='curve {class}' d='{}'/>",
                path(curve, &axes)
            );
        }
        svg.push_str("</svg><p class='soft'>");
        for (curve, class) in curves() {
            let name = curve.name;
            let _ = write!(
                svg,
                "<span class='key {class}'>&#9644;</span> {name} &nbsp; "
            );
        }
        svg.push_str("</p>");
        svg
    }

    /// The shade, the grid and what is written at the axes.
    fn background(&self, svg: &mut String, axes: &Axes) {
        if let Some(to) = self.shaded_to.filter(|to| *to > axes.left) {
            let (width, height) = (axes.x(to) - LEFT, HEIGHT - BOTTOM - TOP);
            let _ = write!(
                svg,
                "<rect class='warmup' x='{LEFT}' y='{TOP}' width='{width:.1}' height='{height}'/>"
            );
        }
        for value in axes.grid() {
            let (at, text) = (axes.y(value), (self.shown)(value));
            let (end, before, baseline) = (WIDTH - RIGHT, LEFT - 8.0, at + 4.0);
            let _ = write!(
                svg,
                "<line class='grid' x1='{LEFT}' x2='{end}' y1='{at:.1}' y2='{at:.1}'/>\
                 <text x='{before}' y='{baseline:.1}' text-anchor='end'>{text}</text>"
            );
        }
        let within = |place: &f64| (axes.left..=axes.right).contains(place);
        for (place, text) in self.ticks.iter().filter(|(place, _)| within(place)) {
            let (x, y) = (axes.x(*place), HEIGHT - 6.0);
            let _ = write!(
                svg,
                "<text x='{x:.1}' y='{y}' text-anchor='middle'>{text}</text>"
            );
        }
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

fn path(curve: &Curve, axes: &Axes) -> String {
    let (mut path, mut pen_is_down) = (String::new(), false);
    for (place, value) in &curve.points {
        let Some(value) = value else {
            pen_is_down = false;
            continue;
        };
        let (command, x, y) = (
            if pen_is_down { 'L' } else { 'M' },
            axes.x(*place),
            axes.y(*value),
        );
        let _ = write!(path, "{command}{x:.1} {y:.1}");
        if !pen_is_down {
            // A point alone is seen, too.
            path.push_str("h2");
        }
        pen_is_down = true;
    }
    path
}
