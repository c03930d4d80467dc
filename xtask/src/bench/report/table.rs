//! Tables of samples: a row for each way of doing something, a column for each figure.

use std::fmt;

/// A figure that rows have: what it is called, and whether its spread is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Column {
    pub(super) name: &'static str,
    spread: bool,
}

impl Column {
    /// A figure shown as its median alone.
    pub(crate) const fn median(name: &'static str) -> Self {
        Self {
            name,
            spread: false,
        }
    }

    /// A figure shown as its median, with the least and the greatest sample.
    pub(crate) const fn spread(name: &'static str) -> Self {
        Self { name, spread: true }
    }
}

/// Rows named by one or more labels; both rows and columns stand in the order of their first use.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    label_names: Vec<&'static str>,
    columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug)]
pub(super) struct Row {
    pub(super) labels: Vec<String>,
    cells: Vec<(Column, Cell)>,
}

#[derive(Debug)]
enum Cell {
    /// In the order of the rounds.
    Samples(Vec<f64>),
    Text(String),
}

impl Table {
    /// An empty table whose rows are told apart by as many labels.
    pub(crate) fn new(title: impl Into<String>, label_names: &[&'static str]) -> Self {
        Self {
            title: title.into(),
            label_names: label_names.to_vec(),
            columns: Vec::new(),
            rows: Vec::new(),
        }
    }

    /// Adds what one round has found. What is no number (a rate of nothing) is left out.
    pub(crate) fn add(&mut self, labels: &[&str], column: Column, value: f64) {
        if !value.is_finite() {
            return;
        }
        match self.cell(labels, column, || Cell::Samples(Vec::new())) {
            Cell::Samples(samples) => samples.push(value),
            Cell::Text(_) => {}
        }
    }

    /// Sets a remark.
    pub(crate) fn note(&mut self, labels: &[&str], column: Column, text: impl Into<String>) {
        *self.cell(labels, column, || Cell::Text(String::new())) = Cell::Text(text.into());
    }

    /// Adds, to the row `labels`, the ratios of its samples of a figure to those of the row `base`,
    /// round by round. To be called when all rounds have been measured; without samples of both
    /// rows there is nothing to add.
    pub(crate) fn ratio(&mut self, labels: &[&str], column: Column, of: Column, base: &[&str]) {
        let (samples, others) = (self.samples(labels, of), self.samples(base, of));
        let ratios: Vec<f64> = samples.iter().zip(others).map(|(a, b)| a / b).collect();
        for ratio in ratios {
            self.add(labels, column, ratio);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn samples(&self, labels: &[&str], column: Column) -> &[f64] {
        let row = self.rows.iter().find(|row| row.labels == labels);
        row.map_or(&[], |row| row.samples(column))
    }

    fn cell(&mut self, labels: &[&str], column: Column, make: impl FnOnce() -> Cell) -> &mut Cell {
        if !self.columns.contains(&column) {
            self.columns.push(column);
        }
        let known = self.rows.iter().position(|row| row.labels == labels);
        let row = known.unwrap_or_else(|| {
            self.rows.push(Row {
                labels: labels.iter().map(|label| (*label).to_owned()).collect(),
                cells: Vec::new(),
            });
            self.rows.len() - 1
        });
        let cells = &mut self.rows[row].cells;
        let known = cells.iter().position(|(found, _)| *found == column);
        let cell = known.unwrap_or_else(|| {
            cells.push((column, make()));
            cells.len() - 1
        });
        &mut cells[cell].1
    }
}

impl Row {
    pub(super) fn samples(&self, column: Column) -> &[f64] {
        let found = self.cells.iter().find(|(found, _)| *found == column);
        match found {
            Some((_, Cell::Samples(samples))) => samples,
            _ => &[],
        }
    }

    fn show(&self, column: Column) -> String {
        let Some((_, cell)) = self.cells.iter().find(|(found, _)| *found == column) else {
            return String::new();
        };
        let samples = match cell {
            Cell::Text(text) => return text.clone(),
            Cell::Samples(samples) => samples,
        };
        let middle = median(samples).map_or_else(String::new, number);
        if !column.spread || samples.len() < 2 {
            return middle;
        }
        let (least, most) = bounds(samples);
        format!("{middle} ({}-{})", number(least), number(most))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.title.is_empty() {
            writeln!(f, "## {}\n", self.title)?;
        }
        let names = self.columns.iter().map(|column| column.name);
        let heads: Vec<_> = self.label_names.iter().copied().chain(names).collect();
        writeln!(f, "| {} |", heads.join(" | "))?;
        let left = self.label_names.iter().map(|_| "---");
        let right = self.columns.iter().map(|_| "--:");
        writeln!(f, "|{}|", left.chain(right).collect::<Vec<_>>().join("|"))?;
        for row in &self.rows {
            let cells = self.columns.iter().map(|column| row.show(*column));
            let words: Vec<_> = row.labels.iter().cloned().chain(cells).collect();
            writeln!(f, "| {} |", words.join(" | "))?;
        }
        Ok(())
    }
}

/// The least and the greatest sample.
pub(super) fn bounds(samples: &[f64]) -> (f64, f64) {
    samples.iter().fold(
        (f64::INFINITY, f64::NEG_INFINITY),
        |(least, most), value| (value.min(least), value.max(most)),
    )
}

/// The middle sample; of an even count, the mean of the two in the middle.
pub(super) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = sorted.get(sorted.len() / 2)?;
    let lower = sorted.get((sorted.len() - 1) / 2)?;
    Some((lower + upper) / 2.0)
}

/// A figure with about three digits that count.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if size == 0.0 || size >= 100.0 => format!("{value:.0}"),
        _ if size >= 10.0 => format!("{value:.1}"),
        _ if size >= 0.1 => format!("{value:.2}"),
        _ if size >= 0.001 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Column = Column::spread("MB/s");
    const FAULTS: Column = Column::median("faults");
    const OVER: Column = Column::spread("over write");

    #[test]
    fn a_table_shows_medians_spread_and_ratios_of_rounds() {
        let mut table = Table::new("Writing", &["way", "unit"]);
        for (mapped, written) in [(100.0, 50.0), (300.0, 100.0), (200.0, 50.0)] {
            table.add(&["mapping", "1 B"], RATE, mapped);
            table.add(&["write", "1 B"], RATE, written);
        }
        table.add(&["mapping", "1 B"], FAULTS, 1024.0);
        table.ratio(&["mapping", "1 B"], OVER, RATE, &["write", "1 B"]);
        table.ratio(&["mapping", "1 B"], OVER, RATE, &["nothing", "1 B"]);
        table.add(&["mapping", "1 B"], FAULTS, 1.0 / 0.0);
        let expected = "## Writing\n\n\
            | way | unit | MB/s | faults | over write |\n\
            |---|---|--:|--:|--:|\n\
            | mapping | 1 B | 200 (100-300) | 1024 | 3.00 (2.00-4.00) |\n\
            | write | 1 B | 50.0 (50.0-100) |  |  |\n";
        assert_eq!(table.to_string(), expected);
    }

    #[test]
    fn an_even_count_has_its_median_in_the_middle() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn numbers_keep_three_digits() {
        let shown = [0.0, 0.00012, 0.0123, 0.123, 1.234, 12.34, 123.4, 12345.6].map(number);
        let expected = [
            "0", "1.2e-4", "0.0123", "0.12", "1.23", "12.3", "123", "12346",
        ];
        assert_eq!(shown, expected);
    }
}
