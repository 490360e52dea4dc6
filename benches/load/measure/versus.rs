//! What devices got through, beside the two that they are compared with: a bare relay and VDE's switch.

use std::collections::BTreeMap;

use super::{Column, Row};
use crate::device::Kind;
use crate::report::{Measured, Samples, Table, down, up};

/// One flow through several devices.
pub(super) struct Versus {
    relay: Row,
    vde: Row,
    columns: BTreeMap<Row, Column>,
}

impl Versus {
    /// What a row of [`Versus::tabulate`] says.
    pub(super) const HEAD: [&str; 13] = [
        "flow",
        "device",
        "kframes/s",
        "min .. max",
        "Gbit/s",
        "of relay",
        "of VDE",
        "lost %",
        "min .. max",
        "CPU ns/frame",
        "CPU of relay",
        "CPU of VDE",
        "wrong",
    ];

    pub(super) fn new(relay: Row, vde: Row) -> Self {
        Self { relay, vde, columns: BTreeMap::new() }
    }

    /// Where the runs of a row are collected.
    pub(super) fn column(&mut self, row: Row) -> &mut Column {
        self.columns.entry(row).or_default()
    }

    /// The runs of a row, if there were any.
    pub(super) fn seen(&self, row: Row) -> Option<&Column> {
        self.columns.get(&row)
    }

    pub(super) fn of_relay(&self, row: Row, samples: fn(&Column) -> &Samples) -> Option<Measured> {
        Some(samples(self.seen(row)?).over(samples(self.seen(self.relay)?)))
    }

    pub(super) fn of_vde(&self, row: Row, samples: fn(&Column) -> &Samples) -> Option<Measured> {
        Some(samples(self.seen(row)?).over(samples(self.seen(self.vde)?)))
    }

    /// `flow` names what went through a row, in frames of `size` bytes.
    pub(super) fn tabulate(
        &self,
        table: &mut Table,
        rows: &[Row],
        size: usize,
        flow: impl Fn(Row) -> String,
    ) {
        for &row in rows {
            let Some(column) = self.seen(row) else {
                continue;
            };
            let median = |ratio: Option<Measured>| ratio.map_or(f64::NAN, |ratio| ratio.median);
            let rate = column.rate.scaled(1e-3);
            // Nobody stands in the middle of a bus.
            let cost = |value: f64, digits| up(if row.kind == Kind::Bus { f64::NAN } else { value }, digits);
            table.row([
                flow(row),
                row.kind.to_string(),
                down(rate.median(), 1),
                format!("{} .. {}", down(rate.min(), 1), down(rate.max(), 1)),
                down(column.rate.median() * size as f64 * 8e-9, 2),
                down(median(self.of_relay(row, |column| &column.rate)), 3),
                down(median(self.of_vde(row, |column| &column.rate)), 3),
                up(column.lost.median(), 3),
                format!("{} .. {}", up(column.lost.min(), 3), up(column.lost.max(), 3)),
                cost(column.nanoseconds.median(), 0),
                cost(median(self.of_relay(row, |column| &column.nanoseconds)), 3),
                cost(median(self.of_vde(row, |column| &column.nanoseconds)), 3),
                up(column.wrong.sum(), 0),
            ]);
        }
    }
}
