//! What a proof has found wrong.

use serde::Serialize;

use crate::error::{Error, Kind, Result, Side};
use crate::key::Key;

/// Differences named one by one.
const NAMED_MAX: usize = 20;

/// How a key of the target is not what the snapshot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Difference {
    /// The snapshot has it, the target has not.
    Missing,
    /// The target has it, the snapshot has not.
    Extra,
    /// Both have it, with different content, size or attributes.
    Different,
    /// Both have it, and nothing vouches for the content.
    Unproved,
}

/// A key whose content is not what the snapshot says.
#[derive(Debug, Clone, Serialize)]
pub struct Differing {
    /// The key.
    pub key: Key,
    /// How it differs.
    pub how: Difference,
    /// Where.
    pub side: Side,
}

/// The differences that were found.
#[derive(Debug, Clone, Serialize)]
pub struct Differences {
    /// How many.
    pub count: u64,
    /// The first of them by name.
    pub named: Vec<Differing>,
    /// Where those that are added are.
    #[serde(skip)]
    side: Side,
}

impl Differences {
    /// None so far, on this side.
    pub fn on(side: Side) -> Self {
        Self { count: 0, named: Vec::new(), side }
    }

    /// Notes one.
    pub fn add(&mut self, key: &Key, how: Difference) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(Differing { key: key.clone(), how, side: self.side });
        }
    }

    /// Takes over another's.
    pub fn append(&mut self, other: Differences) {
        self.count += other.count;
        self.named.extend(other.named);
        self.named.truncate(NAMED_MAX);
    }

    /// The error to end with, if there are any.
    pub fn into_result(self) -> Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        let named: Vec<String> = self
            .named
            .iter()
            .map(|Differing { key, how, side }| {
                let how = match how {
                    Difference::Missing => "missing",
                    Difference::Extra => "extra",
                    Difference::Different => "different",
                    Difference::Unproved => "unproved",
                };
                format!("`{key}` {how} at the {side}")
            })
            .collect();
        let more = self.count - named.len() as u64;
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(Error::new(
            Kind::Differ,
            format!(
                "the proof failed, {} {} {}{more}",
                self.count,
                if self.count == 1 { "key differs:" } else { "keys differ:" },
                named.join(", ")
            ),
        )
        .hint("somebody changed it, or a store lost data; sync --on-drift repair mends a target"))
    }
}
