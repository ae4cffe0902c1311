//! What one key needs, between the two passes of the planner.

use super::judge::Verdict;
use super::spool::Record;
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::manifest::Entry;

/// A key that changes.
pub(super) struct Change {
    pub(super) verdict: Verdict,
    pub(super) source: Option<Entry>,
    /// The target's entry: with what is known of its content, else as listed.
    pub(super) target: Option<Entry>,
    /// The same content as an unfinished job has landed it.
    pub(super) landed: Option<Entry>,
    /// What is known of the target's content makes it fit to be copied.
    pub(super) known: bool,
}

impl Record for Change {
    fn encode(&self, out: &mut Vec<u8>) {
        let verdict = match self.verdict {
            Verdict::Keep => 0,
            Verdict::Create => 1,
            Verdict::Replace => 2,
            Verdict::Reattribute => 3,
            Verdict::Compare => 4,
            Verdict::Delete => 5,
        };
        out.push(verdict | u8::from(self.known) << 4);
        self.source.encode(out);
        self.target.encode(out);
        self.landed.encode(out);
    }

    fn decode(bytes: &mut &[u8]) -> Result<Self> {
        let damaged = || Error::new(ErrorKind::Damaged, "a record of a plan makes no sense");
        let (&flags, rest) = bytes.split_first().ok_or_else(damaged)?;
        *bytes = rest;
        let verdict = match flags & 0xf {
            0 => Verdict::Keep,
            1 => Verdict::Create,
            2 => Verdict::Replace,
            3 => Verdict::Reattribute,
            4 => Verdict::Compare,
            5 => Verdict::Delete,
            _ => return Err(damaged()),
        };
        Ok(Self {
            verdict,
            known: flags & 1 << 4 != 0,
            source: Record::decode(bytes)?,
            target: Record::decode(bytes)?,
            landed: Record::decode(bytes)?,
        })
    }
}
