//! The two passes that make a plan: judge every key in order, then give each change its step.

use std::path::Path;

use super::change::Change;
use super::directories::{Closed, Directories};
use super::judge::{Circumstances, Drift, Drifted, Position, Verdict, judge, same_content, same_mode};
use super::obstacles::Obstacles;
use super::renames::Renames;
use super::spool::SpoolWriter;
use super::steps::{Clear, Finish, Landing, Method, Plan, Totals};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Entry, Kind};
use crate::merge::{Entries, merge_by_key};
use crate::store::Capabilities;

/// How many drifted or impossible keys are named one by one.
const NAMED_MAX: usize = 20;

/// What a plan is made from: five streams in byte order.
pub struct Inputs<'a> {
    /// The snapshot that is being replicated.
    pub source: Entries<'a>,
    /// The target's sealed base.
    pub base: Entries<'a>,
    /// The target as it is.
    pub actual: Entries<'a>,
    /// What an unfinished job has landed, as the target's entries.
    pub landed: Entries<'a>,
    /// The snapshot that an unfinished job was replicating, where it is another one.
    pub pending: Entries<'a>,
}

/// What else a plan depends on.
pub struct Options<'a> {
    /// What the target can do.
    pub target: &'a Capabilities,
    /// Says which keys the target cannot hold.
    pub accepts: &'a (dyn Fn(&Key) -> Result<()> + Send + Sync),
    /// What is known of the whole run.
    pub run: Circumstances,
    /// Where files may be put while planning.
    pub folder: &'a Path,
}

/// Plans. Nothing is touched; memory does not grow with the number of keys.
///
/// # Errors
/// A stream that fails or is out of order; a key that the target cannot hold, with the first twenty of them named.
pub fn plan(inputs: Inputs<'_>, options: &Options<'_>) -> Result<Plan> {
    let mut survey = Survey::new(options)?;
    let streams = [inputs.source, inputs.base, inputs.actual, inputs.landed, inputs.pending];
    for row in merge_by_key(streams) {
        let (key, [source, base, actual, landed, pending]) = row?;
        survey.pass(&key, Position { source, base, actual, landed, pending })?;
    }
    survey.finish()
}

/// The first pass.
struct Survey<'a> {
    options: &'a Options<'a>,
    changes: SpoolWriter<Change>,
    clears: SpoolWriter<Clear>,
    directories: SpoolWriter<Entry>,
    finish: SpoolWriter<Finish>,
    comes: bool,
    leaves: bool,
    obstacles: Obstacles,
    open: Directories,
    totals: Totals,
    drift: Vec<Drifted>,
    keeps_base: bool,
    impossible: Vec<Error>,
    impossible_count: u64,
}

impl<'a> Survey<'a> {
    fn new(options: &'a Options<'a>) -> Result<Self> {
        Ok(Self {
            options,
            changes: SpoolWriter::new(options.folder)?,
            clears: SpoolWriter::new(options.folder)?,
            directories: SpoolWriter::new(options.folder)?,
            finish: SpoolWriter::new(options.folder)?,
            comes: false,
            leaves: false,
            obstacles: Obstacles::default(),
            open: Directories::default(),
            totals: Totals::default(),
            drift: Vec::new(),
            keeps_base: true,
            impossible: Vec::new(),
            impossible_count: 0,
        })
    }

    fn pass(&mut self, key: &Key, position: Position) -> Result<()> {
        if position.source.is_some()
            && let Err(error) = (self.options.accepts)(key)
        {
            self.impossible(error);
        }
        self.keeps_base &= match (&position.source, &position.base) {
            (Some(_), Some(_)) => position.actual.is_some() && position.landed.is_none(),
            (None, None) => true,
            _ => false,
        };
        if !self.options.target.directories {
            return self.object(position, false);
        }
        for closed in self.open.close_before(Some(key)) {
            self.closed(closed)?;
        }
        match self.obstacles.pass(key, position.source.is_some(), position.actual.is_some()) {
            Ok(clears) => {
                for key in clears {
                    self.clears.push(&Clear { key })?;
                }
            }
            Err(error) => self.impossible(error),
        }
        if key.is_directory() { self.directory(key, position) } else { self.object(position, true) }
    }

    fn directory(&mut self, key: &Key, position: Position) -> Result<()> {
        let Position { source, base, actual, landed, pending } = position;
        if source.as_ref().is_some_and(|source| source.kind != Kind::Directory) {
            self.impossible(
                Error::new(
                    ErrorKind::Unrepresentable,
                    "its name ends in `/` but it has content, which no directory has",
                )
                .key(key)
                .hint("rename it at the source, or use an object store as the target"),
            );
            return Ok(());
        }
        if base.is_some() && actual.is_none() && !self.options.run.resuming {
            self.drifted(Drifted { key: key.clone(), how: Drift::Removed });
        }
        if let Some(made) = source.as_ref().filter(|_| actual.is_none()) {
            self.directories.push(made)?;
            self.totals.directories_created += 1;
        }
        let resumed = self.options.run.resuming && (source.is_some() || pending.is_some());
        let known = base.is_some() || landed.is_some() || resumed;
        self.open.enter(key, source, actual, known);
        Ok(())
    }

    fn closed(&mut self, closed: Closed) -> Result<()> {
        if let Some(finish) = &closed.finish {
            self.totals.directories_deleted += u64::from(matches!(finish, Finish::Remove(_)));
            self.finish.push(finish)?;
        }
        self.totals.directories_modified += u64::from(closed.modified);
        if let Some(drift) = closed.drift {
            self.drifted(drift);
        }
        Ok(())
    }

    fn object(&mut self, position: Position, in_directory: bool) -> Result<()> {
        let judged = judge(&position, self.options.run);
        if let Some(how) = judged.drift
            && let Some(entry) = position.actual.as_ref().or(position.base.as_ref())
        {
            self.drifted(Drifted { key: entry.key.clone(), how });
        }
        let Position { source, base, actual, landed, pending } = position;
        if in_directory {
            let known = base.is_some() || landed.is_some() || pending.is_some();
            self.open.pass(source.is_some(), known, judged.verdict != Verdict::Keep);
        }
        match &actual {
            Some(actual) if actual.kind == Kind::Object => self.totals.target_objects += 1,
            Some(actual) if !actual.is_content() => self.totals.target_others += 1,
            _ => {}
        }
        if judged.verdict == Verdict::Keep {
            let unchanged = source.is_some_and(|source| source.kind == Kind::Object);
            self.totals.unchanged += u64::from(unchanged);
            return Ok(());
        }
        let known = judged.held.is_some();
        self.comes |= matches!(judged.verdict, Verdict::Create | Verdict::Replace);
        self.leaves |= known && matches!(judged.verdict, Verdict::Delete | Verdict::Replace);
        let landed =
            landed.filter(|landed| source.as_ref().is_some_and(|source| same_content(source, landed) == Some(true)));
        self.changes.push(&Change { verdict: judged.verdict, source, target: judged.held.or(actual), landed, known })
    }

    fn drifted(&mut self, drifted: Drifted) {
        self.totals.drift += 1;
        if self.drift.len() < NAMED_MAX {
            self.drift.push(drifted);
        }
    }

    fn impossible(&mut self, error: Error) {
        self.impossible_count += 1;
        if self.impossible.len() < NAMED_MAX {
            self.impossible.push(error);
        }
    }

    /// The second pass.
    fn finish(mut self) -> Result<Plan> {
        for closed in self.open.close_before(None) {
            self.closed(closed)?;
        }
        if let Some(error) = impossible(self.impossible, self.impossible_count) {
            return Err(error);
        }
        let folder = self.options.folder;
        let changes = self.changes.finish()?;
        let target = self.options.target;
        let mut renames = match self.comes && self.leaves && (target.copy || target.rename) {
            true => Renames::among(&changes, folder)?,
            false => Renames::none(),
        };
        let mut landings = SpoolWriter::new(folder)?;
        let mut deletes = SpoolWriter::new(folder)?;
        for change in changes.iter()? {
            assign(change?, &mut renames, target, &mut landings, &mut deletes, &mut self.totals)?;
        }
        Ok(Plan {
            landings: landings.finish()?,
            clears: self.clears.finish()?,
            directories: self.directories.finish()?,
            deletes: deletes.finish()?,
            finish: self.finish.finish()?,
            totals: self.totals,
            drift: self.drift,
            keeps_base: self.keeps_base,
        })
    }
}

/// One error for all keys that the target cannot hold.
fn impossible(mut errors: Vec<Error>, count: u64) -> Option<Error> {
    if errors.len() < 2 {
        return errors.pop();
    }
    let names: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let more = count - names.len() as u64;
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Some(
        Error::new(
            ErrorKind::Unrepresentable,
            format!("the target cannot hold {count} keys: {}{more}", names.join("; ")),
        )
        .hint("rename them at the source, or use an object store as the target"),
    )
}

/// Gives one change its steps.
fn assign(
    change: Change,
    renames: &mut Renames,
    target: &Capabilities,
    landings: &mut SpoolWriter<Landing>,
    deletes: &mut SpoolWriter<Key>,
    totals: &mut Totals,
) -> Result<()> {
    let Change { verdict, source, target: there, landed, known } = change;
    let key = match source.as_ref().or(there.as_ref()) {
        Some(entry) => entry.key.clone(),
        None => return Err(Error::internal("a change is of nothing")),
    };
    let renamed = renames.of(&key)?;
    let taken = known && !renamed.leaves;
    let Some(source) = source else {
        // A move takes the old name away itself; deleting it again does no harm, and a copy needs it.
        deletes.push(&key)?;
        let object = there.is_some_and(|there| there.kind != Kind::Directory);
        if object && !taken {
            totals.deleted += 1;
        }
        return Ok(());
    };
    let from = match verdict {
        Verdict::Reattribute if target.copy => there.clone(),
        Verdict::Create | Verdict::Replace => renamed.from,
        _ => None,
    };
    let object = source.kind == Kind::Object;
    let method = match &from {
        None => Method::Read,
        Some(from) if target.rename && from.key != key && same_mode(&source, from) => Method::Move,
        Some(_) => Method::Copy,
    };
    match (verdict, &from) {
        (Verdict::Create | Verdict::Replace, Some(_)) => totals.renamed += 1,
        (Verdict::Compare, _) => totals.compared += 1,
        (Verdict::Create, None) => totals.created += u64::from(object),
        _ => totals.modified += u64::from(object),
    }
    match method {
        Method::Read => totals.bytes_planned += source.size,
        Method::Copy | Method::Move => totals.bytes_reused += source.size,
    }
    // Without versions, writing over content that another name is waiting for would lose it.
    let staged = target.rename || (!target.versions && taken);
    let compare = verdict == Verdict::Compare;
    landings.push(&Landing { source, replaces: there, method, from, landed, compare, staged })
}
