//! Frames that stand for several: what a system leaves to its card to cut up (GSO) passes from one TAP
//! to another as it is, and is cut up for everybody else.

use hub_protocol::gso::Gso;
use hub_protocol::stream::PREFIX_LEN;

use super::{Run, Taken};

/// A frame that stands for several.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    /// It, with a checksum that nobody has finished.
    pub frame: &'a [u8],
    /// How it is to be cut up.
    pub gso: Gso,
}

/// What leaves together.
#[derive(Clone, Copy, Debug)]
pub enum Load<'a> {
    /// Frames as they are.
    Run(Run<'a>),
    /// One that stands for several.
    Bundle(Bundle<'a>),
}

impl<'a> Bundle<'a> {
    /// The bundle of one record, if it is one.
    pub fn of(record: &'a [u8], gso: Option<Gso>) -> Option<Self> {
        Some(Self { frame: record.get(PREFIX_LEN..)?, gso: gso? })
    }

    /// The frames that it stands for.
    pub fn extent(&self) -> Taken {
        let frames = self.gso.segments(self.frame);
        Taken { octets: self.gso.octets(self.frame) + frames * PREFIX_LEN, frames }
    }

    /// Octets of the longest of them.
    pub fn longest(&self) -> usize {
        self.gso.longest(self.frame)
    }

    /// The first of them, which is written to `record`.
    pub fn first<'r>(&self, record: &'r mut Vec<u8>) -> &'r [u8] {
        record.clear();
        self.gso.segment_first(self.frame, record);
        record.get(PREFIX_LEN..).unwrap_or_default()
    }

    /// All of them, as records.
    pub fn segmented(&self) -> Vec<u8> {
        let mut records = Vec::new();
        self.segment(&mut records);
        records
    }

    /// Appends them to `records`.
    pub fn segment(&self, records: &mut Vec<u8>) {
        self.gso.segment(self.frame, records);
    }
}

impl Load<'_> {
    /// The frames that leave.
    pub fn extent(&self) -> Taken {
        match self {
            Self::Run(run) => run.extent(),
            Self::Bundle(bundle) => bundle.extent(),
        }
    }
}
