//! `snapferry verify`

use std::fmt;

use clap::Args;
use serde::Serialize;

use super::options::Common;
use super::output::Output;
use crate::error::{Result, Side};
use crate::report::Bytes;
use crate::snapshot::Name;
use crate::snapshot::clone::CloneMode;
use crate::units::percent;
use crate::verify::{Verified, verify};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The bucket that was replicated.
    source: String,
    /// Its copy.
    target: String,
    /// The snapshot to compare.
    #[arg(long, value_name = "NAME")]
    snapshot: Name,
    /// Read the target's content, too: all of it, or a share.
    #[arg(long, value_name = "P%", num_args = 0..=1, default_missing_value = "100%", value_parser = percent)]
    read: Option<f64>,
}

/// The outcome, for people and programs.
#[derive(Debug, Serialize)]
struct Answer {
    snapshot: Name,
    equal: bool,
    #[serde(flatten)]
    verified: Verified,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verified { objects, bytes, read, .. } = &self.verified;
        write!(f, "equal: {}, {objects} objects, {}", self.snapshot, Bytes(*bytes))?;
        if let Some(read) = read {
            write!(f, "; read back {} objects, {}", read.objects, Bytes(read.bytes))?;
        }
        Ok(())
    }
}

pub(super) async fn run(arguments: Arguments, common: &Common, output: &Output) -> Result<()> {
    let source = common.open(&arguments.source, CloneMode::Auto).await.map_err(|error| error.on(Side::Source))?;
    let target = common.open(&arguments.target, CloneMode::Auto).await.map_err(|error| error.on(Side::Target))?;
    let folder = common.folder("tmp")?;
    let verified = verify(&source, &target, &arguments.snapshot, arguments.read, &folder).await?;
    let outcome = verified.differences.clone().into_result();
    let answer = Answer { snapshot: arguments.snapshot, equal: outcome.is_ok(), verified };
    output.result(&answer, outcome.as_ref().err())?;
    outcome
}
