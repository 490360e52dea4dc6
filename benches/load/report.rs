//! Samples, tables and verdicts. A number is never rounded to its own advantage.

use std::fmt;

/// One value per run, in the order of the runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// A run that failed counts as `NaN`, and so does the median of runs of which one failed.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        if sorted.is_empty() || sorted.iter().any(|value| value.is_nan()) {
            return f64::NAN;
        }
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
    }

    pub(crate) fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    pub(crate) fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The ratio of the medians, and the range of the ratios of runs made one after the other.
    pub(crate) fn over(&self, base: &Self) -> Measured {
        let pairs = Self(self.0.iter().zip(&base.0).map(|(value, base)| value / base).collect());
        Measured { median: self.median() / base.median(), min: pairs.min(), max: pairs.max() }
    }

    /// The difference of the medians, and the range of the differences of runs made one after the other.
    pub(crate) fn minus(&self, base: &Self) -> Measured {
        let pairs = Self(self.0.iter().zip(&base.0).map(|(value, base)| value - base).collect());
        Measured { median: self.median() - base.median(), min: pairs.min(), max: pairs.max() }
    }

    pub(crate) fn measured(&self) -> Measured {
        Measured { median: self.median(), min: self.min(), max: self.max() }
    }

    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self(self.0.iter().map(|value| value * factor).collect())
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// A bound, and what is held against it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtLeast(f64),
    /// More than.
    Above(f64),
    AtMost(f64),
    /// Less than.
    Under(f64),
    /// At most, in every single run.
    NeverOver(f64),
}

impl Target {
    fn is_met(self, value: Measured) -> bool {
        match self {
            Self::AtLeast(bound) => value.median >= bound,
            Self::Above(bound) => value.median > bound,
            Self::AtMost(bound) => value.median <= bound,
            Self::Under(bound) => value.median < bound,
            Self::NeverOver(bound) => value.median <= bound && value.max <= bound,
        }
    }

    /// Three digits, rounded away from the target.
    fn show(self, value: f64) -> String {
        match self {
            Self::AtLeast(_) | Self::Above(_) => down(value, 3),
            Self::AtMost(_) | Self::Under(_) | Self::NeverOver(_) => up(value, 3),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, ">= {bound}"),
            Self::Above(bound) => write!(f, "> {bound}"),
            Self::AtMost(bound) => write!(f, "<= {bound}"),
            Self::Under(bound) => write!(f, "< {bound}"),
            Self::NeverOver(bound) => write!(f, "<= {bound} in every run"),
        }
    }
}

/// What the whole benchmark has to say.
pub(crate) struct Report {
    targets: Table,
    missed: usize,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            targets: Table::new(&["what", "target", "median", "min .. max", ""]),
            missed: 0,
            failures: Vec::new(),
        }
    }

    pub(crate) fn check(&mut self, what: impl Into<String>, target: Target, value: Measured) {
        let met = target.is_met(value);
        self.missed += usize::from(!met);
        self.targets.row([
            what.into(),
            target.to_string(),
            target.show(value.median),
            format!("{} .. {}", target.show(value.min), target.show(value.max)),
            if met { "met" } else { "**MISSED**" }.to_owned(),
        ]);
    }

    /// Notes a run that could not be made. What needs it is missed.
    pub(crate) fn attempt<T>(&mut self, what: &str, result: anyhow::Result<T>) -> Option<T> {
        result
            .map_err(|error| {
                eprintln!("{what}: {error:#}");
                self.failures.push(format!("{what}: {error:#}"));
            })
            .ok()
    }

    pub(crate) fn section(title: &str, text: &str, table: &Table) {
        println!("## {title}\n\n{text}\n\n{table}");
    }

    pub(crate) fn finish(&self) {
        println!("## Targets\n\n{}", self.targets);
        println!("{} missed.", self.missed);
        for failure in &self.failures {
            println!("* run failed: {failure}");
        }
    }
}

/// A markdown table.
pub(crate) struct Table(Vec<Vec<String>>);

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self(vec![head.iter().map(ToString::to_string).collect()])
    }

    pub(crate) fn row(&mut self, cells: impl Into<Vec<String>>) {
        self.0.push(cells.into());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths: Vec<usize> = (0..self.0[0].len())
            .map(|column| self.0.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for (n, row) in self.0.iter().enumerate() {
            for (cell, width) in row.iter().zip(&widths) {
                write!(f, "| {cell:width$} ")?;
            }
            writeln!(f, "|")?;
            if n == 0 {
                for width in &widths {
                    write!(f, "|-{:-<width$}-", "")?;
                }
                writeln!(f, "|")?;
            }
        }
        Ok(())
    }
}

/// Rounded towards minus infinity; `-` for what was not measured.
pub(crate) fn down(value: f64, digits: usize) -> String {
    round(value, digits, f64::floor)
}

/// Rounded towards plus infinity; `-` for what was not measured.
pub(crate) fn up(value: f64, digits: usize) -> String {
    round(value, digits, f64::ceil)
}

fn round(value: f64, digits: usize, how: fn(f64) -> f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    let scale = (0..digits).fold(1.0, |scale, _| scale * 10.0);
    format!("{:.digits$}", how(value * scale) / scale)
}
