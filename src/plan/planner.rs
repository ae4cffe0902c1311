//! The two passes that make a plan: judge every key in order, then give each change its step.

use std::iter::Peekable;
use std::path::Path;

use super::change::Change;
use super::directories::{Closed, Directories};
use super::judge::{Circumstances, Drift, Drifted, Position, Verdict, judge, same_content, same_mode};
use super::obstacles::Obstacles;
use super::renames::Renames;
use super::spool::{Spool, SpoolReader, SpoolWriter};
use super::steps::{Clear, Finish, Landing, Method, Plan, Totals};
use super::trees::{Prefixes, TreeMove, Trees};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Entry, Kind};
use crate::merge::{Entries, merge_by_key};
use crate::sort::Sorter;
use crate::store::Capabilities;

/// How many drifted or impossible keys are named one by one.
const NAMED_MAX: usize = 20;

/// The way out where something that is left alone is in the way of what is restored.
const IN_THE_WAY: &str = "move what is in the way, or choose it, too, with --key or --prefix";

/// Memory for sorting directories that go, in bytes.
const SORT_MEMORY: usize = 4 << 20;

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
    /// Says what on the target is left alone, whatever the snapshot says: it neither goes nor counts.
    pub leaves: &'a (dyn Fn(&Entry) -> bool + Send + Sync),
    /// What is known of the whole run.
    pub run: Circumstances,
    /// Directories that change their name with all in them.
    pub trees: &'a Trees,
    /// Where files may be put while planning.
    pub folder: &'a Path,
}

/// Plans. Nothing is touched; memory does not grow with the number of keys.
///
/// # Errors
/// A stream that fails or is out of order; a key that the target cannot hold, with the first twenty of them named.
pub fn plan(inputs: Inputs<'_>, options: &Options<'_>) -> Result<Plan> {
    let mut survey = Survey::new(options)?;
    let (trees, folder) = (options.trees, options.folder);
    let (base, actual) = (trees.of_base(inputs.base, folder)?, trees.of_actual(inputs.actual, folder)?);
    let streams = [inputs.source, base, actual, inputs.landed, trees.of_pending(inputs.pending, folder)?];
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
    /// Directories that go, where they go as a whole.
    gone: Sorter,
    places: Prefixes<TreeMove>,
    tree_bytes: u64,
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
            gone: Sorter::new(options.folder, SORT_MEMORY),
            places: options.trees.places(),
            tree_bytes: 0,
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
        if position.source.is_none() && position.actual.as_ref().is_some_and(self.options.leaves) {
            return self.bystander(key);
        }
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
                // Where directories go as a whole, those that are in the way are among them.
                for key in clears.into_iter().filter(|key| !(self.options.target.trees && key.is_directory())) {
                    self.clears.push(&Clear { key })?;
                }
            }
            Err(error) => self.in_the_way(error),
        }
        if key.is_directory() { self.directory(key, position) } else { self.object(position, true) }
    }

    /// Something on the target that stays: so does the directory that it is in, and nothing can come in its place.
    fn bystander(&mut self, key: &Key) -> Result<()> {
        if !self.options.target.directories {
            return Ok(());
        }
        for closed in self.open.close_before(Some(key)) {
            self.closed(closed)?;
        }
        if let Err(error) = self.obstacles.pass(key, true, true) {
            self.in_the_way(error);
        }
        self.open.pass(true, true, false);
        Ok(())
    }

    fn in_the_way(&mut self, error: Error) {
        self.impossible(error.hint(match self.options.run.in_place {
            true => IN_THE_WAY,
            false => "rename one of the two at the source, or use an object store as the target",
        }));
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
        } else if source.is_some() && self.is_renamed(key) {
            self.totals.directories_renamed += 1;
        }
        let resumed = self.options.run.resuming && (source.is_some() || pending.is_some());
        let known = base.is_some() || landed.is_some() || resumed || self.is_in_our_hands(key);
        self.open.enter(key, source, actual, known);
        Ok(())
    }

    fn closed(&mut self, closed: Closed) -> Result<()> {
        match &closed.finish {
            Some(Finish::Remove(key)) => {
                self.totals.directories_deleted += 1;
                match self.options.target.trees {
                    true => self.gone.push(key.as_bytes(), &[])?,
                    false => self.finish.push(&Finish::Remove(key.clone()))?,
                }
            }
            Some(attributes) if self.options.target.file_attributes => self.finish.push(attributes)?,
            _ => {}
        }
        self.totals.directories_modified += u64::from(closed.modified);
        if let Some(drift) = closed.drift {
            self.drifted(drift);
        }
        Ok(())
    }

    fn object(&mut self, position: Position, in_directory: bool) -> Result<()> {
        let mut judged = judge(&position, self.options.run);
        if judged.verdict == Verdict::Keep && self.has_another_time(&position) {
            judged.verdict = Verdict::Reattribute;
        }
        if let Some(how) = judged.drift
            && let Some(entry) = position.actual.as_ref().or(position.base.as_ref())
            && !(how == Drift::Added && self.is_in_our_hands(&entry.key))
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
            if let Some(source) = source.filter(|source| source.kind == Kind::Object) {
                match self.is_renamed(&source.key) {
                    true => self.renamed(source.size),
                    false => self.totals.unchanged += 1,
                }
            }
            return Ok(());
        }
        let known = judged.held.is_some();
        self.comes |= matches!(judged.verdict, Verdict::Create | Verdict::Replace);
        self.leaves |= known && matches!(judged.verdict, Verdict::Delete | Verdict::Replace);
        let landed =
            landed.filter(|landed| source.as_ref().is_some_and(|source| same_content(source, landed) == Some(true)));
        self.changes.push(&Change { verdict: judged.verdict, source, target: judged.held.or(actual), landed, known })
    }

    /// True when the content of a file that is to be as it was is there, with another modification time.
    fn has_another_time(&self, position: &Position) -> bool {
        let Position { source: Some(source), actual: Some(actual), .. } = position else { return false };
        self.options.run.in_place && !same_time(source, actual, self.options.target)
    }

    /// True when the key, which is on the target, is in a tree that changes its name. Ask in the order of the keys.
    fn is_renamed(&mut self, key: &Key) -> bool {
        self.places.seek(key).is_some_and(|(_, tree)| tree.from != tree.to && tree.base != tree.to)
    }

    /// True when the key is in a tree that an earlier run has moved: what it held then had passed that run's guards.
    /// Ask in the order of the keys.
    fn is_in_our_hands(&mut self, key: &Key) -> bool {
        self.places.seek(key).is_some_and(|(_, tree)| tree.from != tree.base)
    }

    /// An object changes its name with the directory that it is in.
    fn renamed(&mut self, size: u64) {
        self.totals.renamed += 1;
        self.totals.bytes_reused += size;
        self.tree_bytes += size;
    }

    fn drifted(&mut self, drifted: Drifted) {
        if self.options.run.in_place {
            return;
        }
        self.totals.drift += 1;
        if self.drift.len() < NAMED_MAX {
            self.drift.push(Drifted { key: self.options.trees.physical(&drifted.key), ..drifted });
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
        let run = self.options.run;
        let own = run.own && target.copy && target.versions;
        let mut renames = match self.comes && self.leaves && !own && (target.copy || target.rename) {
            true => Renames::among(&changes, folder)?,
            false => Renames::none(),
        };
        let gone = outermost(self.gone, folder)?;
        for key in gone.iter()? {
            let key = key?;
            // What gave way to another tree is in the staging folder by then.
            if !key.is_reserved() {
                self.clears.push(&Clear { key })?;
            }
        }
        let mut steps = Steps {
            target,
            in_place: run.in_place,
            own,
            trees: self.options.trees,
            gone: gone.iter()?.peekable(),
            within: None,
            landings: SpoolWriter::new(folder)?,
            deletes: SpoolWriter::new(folder)?,
            totals: self.totals,
        };
        for change in changes.iter()? {
            steps.assign(change?, &mut renames)?;
        }
        let Steps { landings, deletes, totals, .. } = steps;
        Ok(Plan {
            landings: landings.finish()?,
            trees: self.options.trees.clone(),
            tree_bytes: self.tree_bytes,
            clears: self.clears.finish()?,
            directories: self.directories.finish()?,
            deletes: deletes.finish()?,
            finish: self.finish.finish()?,
            totals,
            drift: self.drift,
            keeps_base: self.keeps_base,
        })
    }
}

/// True unless both are files, and of different times.
fn same_time(source: &Entry, there: &Entry, target: &Capabilities) -> bool {
    !target.file_attributes || source.pin.file.is_none() || source.mtime_ns == there.mtime_ns
}

/// One error for all keys that the target cannot hold.
fn impossible(mut errors: Vec<Error>, count: u64) -> Option<Error> {
    if errors.len() < 2 {
        return errors.pop();
    }
    let names: Vec<String> = errors.iter().map(ToString::to_string).collect();
    let more = count - names.len() as u64;
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    let otherwise = "rename them at the source, or use an object store as the target";
    let way_out = if errors.iter().all(|error| error.way_out() == Some(IN_THE_WAY)) { IN_THE_WAY } else { otherwise };
    Some(
        Error::new(
            ErrorKind::Unrepresentable,
            format!("the target cannot hold {count} keys: {}{more}", names.join("; ")),
        )
        .hint(way_out),
    )
}

/// The directories among these that are in no other of them, in byte order.
fn outermost(directories: Sorter, folder: &Path) -> Result<Spool<Key>> {
    let mut outermost = SpoolWriter::new(folder)?;
    let mut last: Option<Key> = None;
    for record in directories.finish()? {
        let key = Key::copy_from(&record?.key);
        if !last.as_ref().is_some_and(|last| key.starts_with(last.as_bytes())) {
            outermost.push(&key)?;
            last = Some(key);
        }
    }
    outermost.finish()
}

/// The second pass: steps for each change.
struct Steps<'a> {
    target: &'a Capabilities,
    in_place: bool,
    /// The target has the snapshot's content itself, as older versions.
    own: bool,
    trees: &'a Trees,
    /// Directories that go as a whole.
    gone: Peekable<SpoolReader<Key>>,
    /// The one of them that was begun last.
    within: Option<Key>,
    landings: SpoolWriter<Landing>,
    deletes: SpoolWriter<Key>,
    totals: Totals,
}

impl Steps<'_> {
    /// True when the key goes with a directory that it is in. Ask in the order of the keys.
    fn goes_along(&mut self, key: &Key) -> Result<bool> {
        while let Some(next) = self.gone.next_if(|next| next.as_ref().map_or(true, |next| next <= key)) {
            self.within = Some(next?);
        }
        Ok(self.within.as_ref().is_some_and(|within| key.starts_with(within.as_bytes())))
    }

    fn assign(&mut self, change: Change, renames: &mut Renames) -> Result<()> {
        let Self { target, in_place, own, trees, .. } = *self;
        let Change { verdict, source, target: there, landed, known } = change;
        let key = match source.as_ref().or(there.as_ref()) {
            Some(entry) => entry.key.clone(),
            None => return Err(Error::internal("a change is of nothing")),
        };
        let renamed = renames.of(&key)?;
        let taken = known && !renamed.leaves;
        let Some(source) = source else {
            // A move takes the old name away itself; deleting it again does no harm, and a copy needs it.
            if !self.goes_along(&key)? {
                self.deletes.push(&key)?;
            }
            let totals = &mut self.totals;
            let object = there.is_some_and(|there| there.kind != Kind::Directory);
            if object && !taken {
                totals.deleted += 1;
            }
            return Ok(());
        };
        let own = own && source.pin.version.is_some();
        let verdict = if own && verdict == Verdict::Compare { Verdict::Replace } else { verdict };
        let from = match verdict {
            Verdict::Create | Verdict::Replace if own => Some(source.clone()),
            Verdict::Reattribute if target.copy => there.clone(),
            Verdict::Create | Verdict::Replace => renamed.from,
            _ => None,
        };
        let object = source.kind == Kind::Object;
        let method = match &from {
            None => Method::Read,
            Some(from) if in_place && !same_time(&source, from, target) => Method::Copy,
            Some(from) if target.rename && from.key != key && same_mode(&source, from) => Method::Move,
            Some(_) => Method::Copy,
        };
        let totals = &mut self.totals;
        match (verdict, &from) {
            (Verdict::Create | Verdict::Replace, Some(_)) if !own => totals.renamed += 1,
            (Verdict::Compare, _) => totals.compared += 1,
            (Verdict::Create, _) => totals.created += u64::from(object),
            _ => totals.modified += u64::from(object),
        }
        match method {
            Method::Read => totals.bytes_planned += source.size,
            Method::Copy | Method::Move => totals.bytes_reused += source.size,
        }
        // In place nothing is replaced before all has landed. A version need not land first: it stays whatever is written.
        let replaces = in_place && there.is_some();
        let stays = target.versions && from.as_ref().is_some_and(|from| from.pin.version.is_some());
        let late = replaces && stays && !target.rename;
        // Without versions, writing over content that another name is waiting for would lose it.
        let staged = target.rename || (replaces && !late) || (!target.versions && taken);
        let compare = verdict == Verdict::Compare;
        // Content lands, and is taken away, before any tree moves.
        let now = |entry: Entry| Entry { key: trees.physical(&entry.key), ..entry };
        let (replaces, from) = (there.map(now), from.map(now));
        self.landings.push(&Landing { source, replaces, method, from, landed, compare, staged, late })
    }
}
