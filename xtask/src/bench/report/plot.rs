//! Plots of a table's column: bars for things of different kinds, lines for one that grows.

use super::svg::{Anchor, Svg};
use super::table::{Column, Table, bounds, median, number};

const WIDTH: f64 = 900.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 44.0;
const LEGEND_HEIGHT: f64 = 20.0;
const BAR_HEIGHT: f64 = 14.0;
const GROUP_GAP: f64 = 12.0;
const LINES_HEIGHT: f64 = 320.0;
/// An average letter of the font used.
const LETTER_WIDTH: f64 = 6.4;
/// Told apart by colour-blind eyes as well (Okabe and Ito).
const COLOURS: [&str; 8] = [
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#8c8c00", "#444444",
];

/// A drawing of one figure of a table.
#[derive(Debug)]
pub(crate) struct Plot {
    slug: &'static str,
    title: String,
    style: Style,
    unit: &'static str,
    log: bool,
    groups: Vec<String>,
    series: Vec<String>,
    values: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Bars,
    Lines,
}

#[derive(Debug)]
struct Value {
    group: usize,
    series: usize,
    median: f64,
    least: f64,
    most: f64,
}

impl Plot {
    /// Horizontal bars, a group for each value of the label with this index, a colour for each
    /// combination of the others. `slug` becomes a part of the file's name.
    pub(crate) fn bars(
        slug: &'static str,
        title: impl Into<String>,
        table: &Table,
        column: Column,
        group_label: usize,
    ) -> Self {
        Self::new(Style::Bars, slug, title, (table, column, group_label))
    }

    /// Lines over the values of the label with this index, evenly spaced in the order of the rows;
    /// a line for each combination of the others.
    pub(crate) fn lines(
        slug: &'static str,
        title: impl Into<String>,
        table: &Table,
        column: Column,
        x_label: usize,
    ) -> Self {
        Self::new(Style::Lines, slug, title, (table, column, x_label))
    }

    /// With a logarithmic axis.
    pub(crate) fn log(mut self) -> Self {
        self.log = self.values.iter().all(|value| value.least > 0.0);
        self
    }

    fn new(
        style: Style,
        slug: &'static str,
        title: impl Into<String>,
        (table, column, group_label): (&Table, Column, usize),
    ) -> Self {
        let mut plot = Self {
            slug,
            title: title.into(),
            style,
            unit: column.name,
            log: false,
            groups: Vec::new(),
            series: Vec::new(),
            values: Vec::new(),
        };
        for row in &table.rows {
            let samples = row.samples(column);
            let Some(median) = median(samples) else {
                continue;
            };
            let (least, most) = bounds(samples);
            let mut others = row.labels.clone();
            let group = others.remove(group_label);
            let value = Value {
                group: index_of(&mut plot.groups, group),
                series: index_of(&mut plot.series, others.join(", ")),
                median,
                least,
                most,
            };
            plot.values.push(value);
        }
        plot
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    pub(super) fn file_name(&self, report: &str) -> String {
        format!("{report}-{}.svg", self.slug)
    }

    /// The drawing.
    pub(super) fn svg(&self) -> String {
        match self.style {
            Style::Bars => self.draw_bars(),
            Style::Lines => self.draw_lines(),
        }
    }

    fn draw_bars(&self) -> String {
        let left = 20.0 + LETTER_WIDTH * longest(&self.groups);
        let top = self.legend_bottom();
        let group_height = |group| self.bars_of(group) as f64 * BAR_HEIGHT + GROUP_GAP;
        let height: f64 = (0..self.groups.len()).map(group_height).sum();
        let mut svg = Svg::new(WIDTH, top + height + 40.0);
        self.draw_head(&mut svg);
        // Room for the figure behind the longest bar.
        let axis = self.axis(left, WIDTH - RIGHT - 60.0);
        for (value, label) in axis.ticks() {
            let x = axis.place(value);
            svg.line((x, top), (x, top + height), "#dddddd", 1.0);
            svg.text((x, top + height + 16.0), &label, Anchor::Middle, 11);
        }
        let end = WIDTH - RIGHT;
        svg.text((end, top + height + 34.0), self.unit, Anchor::End, 12);
        let mut y = top + GROUP_GAP / 2.0;
        for (group, name) in self.groups.iter().enumerate() {
            let bars = self.values.iter().filter(|value| value.group == group);
            let middle = y + self.bars_of(group) as f64 * BAR_HEIGHT / 2.0;
            svg.text((left - 8.0, middle + 4.0), name, Anchor::End, 12);
            for value in bars {
                let x = axis.place(value.median);
                let size = ((x - left).max(1.0), BAR_HEIGHT - 2.0);
                svg.rectangle((left, y), size, colour(value.series));
                let (least, most) = (axis.place(value.least), axis.place(value.most));
                let centre = y + BAR_HEIGHT / 2.0 - 1.0;
                svg.line((least, centre), (most, centre), "#222222", 1.0);
                let text = number(value.median);
                svg.text((most.max(x) + 5.0, centre + 4.0), &text, Anchor::Start, 11);
                y += BAR_HEIGHT;
            }
            y += GROUP_GAP;
        }
        svg.finish()
    }

    fn draw_lines(&self) -> String {
        let top = self.legend_bottom() + 10.0;
        let bottom = top + LINES_HEIGHT;
        let (left, right) = (80.0, WIDTH - RIGHT - 20.0);
        let mut svg = Svg::new(WIDTH, bottom + 40.0);
        self.draw_head(&mut svg);
        let axis = self.axis(bottom, top);
        for (value, label) in axis.ticks() {
            let y = axis.place(value);
            svg.line((left, y), (right, y), "#dddddd", 1.0);
            svg.text((left - 8.0, y + 4.0), &label, Anchor::End, 11);
        }
        svg.text((20.0, top - 8.0), self.unit, Anchor::Start, 12);
        let step = (right - left) / self.groups.len() as f64;
        let x_of = |group: usize| left + step * (group as f64 + 0.5);
        for (group, name) in self.groups.iter().enumerate() {
            svg.text((x_of(group), bottom + 18.0), name, Anchor::Middle, 12);
        }
        for series in 0..self.series.len() {
            let mut points: Vec<&Value> = self.values.iter().collect();
            points.retain(|value| value.series == series);
            points.sort_by_key(|value| value.group);
            let place = |value: &Value| (x_of(value.group), axis.place(value.median));
            for pair in points.windows(2) {
                svg.line(place(pair[0]), place(pair[1]), colour(series), 2.0);
            }
            for value in points {
                let (x, y) = place(value);
                let (least, most) = (axis.place(value.least), axis.place(value.most));
                svg.line((x, least), (x, most), colour(series), 1.0);
                svg.rectangle((x - 3.0, y - 3.0), (6.0, 6.0), colour(series));
            }
        }
        svg.finish()
    }

    fn draw_head(&self, svg: &mut Svg) {
        svg.text((20.0, 24.0), &self.title, Anchor::Start, 15);
        for (index, (x, y)) in self.legend_places().into_iter().enumerate() {
            svg.rectangle((x, y - 9.0), (10.0, 10.0), colour(index));
            svg.text((x + 15.0, y), &self.series[index], Anchor::Start, 12);
        }
    }

    /// Where the series' names stand, in rows; none for a single series without a name.
    fn legend_places(&self) -> Vec<(f64, f64)> {
        if self.series.iter().all(String::is_empty) {
            return Vec::new();
        }
        let (mut x, mut y) = (20.0, TOP);
        let mut places = Vec::new();
        for name in &self.series {
            let width = 32.0 + LETTER_WIDTH * name.chars().count() as f64;
            if x > 20.0 && x + width > WIDTH - RIGHT {
                (x, y) = (20.0, y + LEGEND_HEIGHT);
            }
            places.push((x, y));
            x += width;
        }
        places
    }

    fn legend_bottom(&self) -> f64 {
        let last = self
            .legend_places()
            .last()
            .map_or(TOP - LEGEND_HEIGHT, |place| place.1);
        last + LEGEND_HEIGHT
    }

    fn bars_of(&self, group: usize) -> usize {
        let bars = self.values.iter().filter(|value| value.group == group);
        bars.count()
    }

    fn axis(&self, start: f64, end: f64) -> Axis {
        let all: Vec<f64> = self.values.iter().flat_map(|v| [v.least, v.most]).collect();
        let (least, most) = bounds(&all);
        Axis::new(self.log, least, most, start, end)
    }
}

/// From values to places on the drawing.
struct Axis {
    log: bool,
    least: f64,
    most: f64,
    start: f64,
    end: f64,
}

impl Axis {
    /// A linear axis begins at zero, a logarithmic one at a power of ten.
    fn new(log: bool, least: f64, most: f64, start: f64, end: f64) -> Self {
        let (least, most) = match log {
            // A bar of the least value must have a length.
            true => (10_f64.powf((least * 0.9).log10().floor()), most),
            false => (0.0, if most > 0.0 { most } else { 1.0 }),
        };
        Self {
            log,
            least,
            most: most.max(least * 1.001),
            start,
            end,
        }
    }

    fn place(&self, value: f64) -> f64 {
        let part = match self.log {
            true => (value / self.least).ln() / (self.most / self.least).ln(),
            false => (value - self.least) / (self.most - self.least),
        };
        self.start + (self.end - self.start) * part.clamp(0.0, 1.0)
    }

    fn ticks(&self) -> Vec<(f64, String)> {
        let mut values = Vec::new();
        let mut value = self.least;
        if self.log {
            while value <= self.most {
                values.push(value);
                value *= 10.0;
            }
        } else {
            let rough = self.most / 5.0;
            let power = 10_f64.powf(rough.log10().floor());
            let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
            let step = steps
                .into_iter()
                .find(|step| *step >= rough)
                .unwrap_or(rough);
            while value <= self.most {
                values.push(value);
                value += step;
            }
        }
        values
            .into_iter()
            .map(|value| (value, tick(value)))
            .collect()
    }
}

/// A round figure, without the digits that say nothing.
fn tick(value: f64) -> String {
    match value {
        _ if value >= 1e6 => format!("{} M", value / 1e6),
        _ if value >= 1e4 => format!("{} k", value / 1e3),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}

fn colour(series: usize) -> &'static str {
    COLOURS[series % COLOURS.len()]
}

fn longest(names: &[String]) -> f64 {
    let longest = names.iter().map(|name| name.chars().count()).max();
    longest.unwrap_or(0) as f64
}

fn index_of(names: &mut Vec<String>, name: String) -> usize {
    let known = names.iter().position(|found| *found == name);
    known.unwrap_or_else(|| {
        names.push(name);
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Column = Column::spread("MB/s");

    fn table() -> Table {
        let mut table = Table::new("", &["unit", "way"]);
        for (unit, way, value) in [
            ("1 B", "write", 1.5),
            ("1 B", "mapping <&>", 1500.0),
            ("4 KiB", "write", 2000.0),
        ] {
            table.add(&[unit, way], RATE, value);
        }
        table
    }

    #[test]
    fn each_value_has_a_bar_and_names_are_escaped() {
        let svg = Plot::bars("rates", "Rates", &table(), RATE, 0).log().svg();
        assert!(
            svg.starts_with("<svg ") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
        assert!(svg.contains("mapping &lt;&amp;&gt;"), "{svg}");
        // The ground, two signs of the legend, three bars.
        assert_eq!(svg.matches("<rect").count(), 6, "{svg}");
    }

    #[test]
    fn a_line_joins_the_points_of_a_series() {
        let plot = Plot::lines("rates", "Rates", &table(), RATE, 0);
        assert_eq!(plot.svg().matches("stroke-width=\"2\"").count(), 1);
    }

    #[test]
    fn an_axis_places_powers_of_ten_evenly() {
        let axis = Axis::new(true, 2.0, 1000.0, 0.0, 300.0);
        let places = [1.0, 10.0, 100.0, 1000.0].map(|value| axis.place(value).round());
        assert_eq!(places, [0.0, 100.0, 200.0, 300.0]);
        assert_eq!(axis.ticks().len(), 4);
        let axis = Axis::new(false, 2.0, 0.0, 0.0, 300.0);
        assert_eq!(axis.place(0.0), 0.0);
    }
}
