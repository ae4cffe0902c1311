//! What one key needs: the heart of the planner, a function of five facts.

use crate::key::Key;
use crate::manifest::{Entry, Kind};

/// What every stream has under one key.
#[derive(Debug, Clone, Default)]
pub struct Position {
    /// The snapshot that is being replicated.
    pub source: Option<Entry>,
    /// The target's sealed base.
    pub base: Option<Entry>,
    /// The target as it is.
    pub actual: Option<Entry>,
    /// What an unfinished job has landed.
    pub landed: Option<Entry>,
    /// The snapshot that an unfinished job was replicating, where it is another one.
    pub pending: Option<Entry>,
}

/// What the planner knows of the whole run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Circumstances {
    /// An earlier job stopped half-way: keys it was to change may be in any state between base and its snapshot.
    pub resuming: bool,
    /// The target is to become as it was, whoever changed it since: nothing is drift, and nothing there is replaced
    /// before all has landed.
    pub in_place: bool,
    /// The snapshot is one of the target itself: the versions that it lists can be copied there.
    pub own: bool,
}

/// What has to happen to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it should be.
    Keep,
    /// It is not there yet.
    Create,
    /// It is there with other content.
    Replace,
    /// Its content is right, its permission bits are not.
    Reattribute,
    /// It is there and may be right: compare contents, and replace it if it is not.
    Compare,
    /// It has to go.
    Delete,
}

/// How a key of the target differs from what it should be before the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// Somebody made it.
    Added,
    /// Somebody changed it.
    Changed,
    /// Somebody removed it.
    Removed,
}

/// The judgement of one key.
#[derive(Debug, Clone)]
pub struct Judged {
    /// What has to happen.
    pub verdict: Verdict,
    /// Somebody else's doing.
    pub drift: Option<Drift>,
    /// The target's entry with what is known of its content, where that is known.
    pub held: Option<Entry>,
}

/// Judges a key that is an object, or a directory's marker object.
pub fn judge(position: &Position, run: Circumstances) -> Judged {
    let held = held(position);
    let drift = drift(position, held.is_some(), run);
    let verdict = match (&position.source, &position.actual) {
        (None, None) => Verdict::Keep,
        (None, Some(_)) => Verdict::Delete,
        (Some(_), None) => Verdict::Create,
        (Some(source), Some(actual)) => match &held {
            Some(held) => match same_content(source, held) {
                Some(true) if same_mode(source, held) => Verdict::Keep,
                Some(true) => Verdict::Reattribute,
                Some(false) => Verdict::Replace,
                None => Verdict::Compare,
            },
            None if actual.kind == Kind::Object && source.kind == Kind::Object && actual.size == source.size => {
                Verdict::Compare
            }
            None => Verdict::Replace,
        },
    };
    Judged { verdict, drift, held }
}

/// The target's entry as listed, with what the journal or the base knows of its content.
fn held(position: &Position) -> Option<Entry> {
    let actual = position.actual.as_ref()?;
    let known = [&position.landed, &position.base].into_iter().flatten().find(|known| is_same_entry(known, actual))?;
    let mut held = known.clone();
    held.mode = actual.mode.or(known.mode);
    held.pin = held.pin.completed_by(&actual.pin);
    Some(held)
}

/// True when the target still has the entry that was recorded.
pub fn is_same_entry(recorded: &Entry, actual: &Entry) -> bool {
    if recorded.kind != actual.kind {
        return false;
    }
    if recorded.kind == Kind::Directory && actual.pin.etag.is_none() {
        return true;
    }
    let moded = matches!((recorded.mode, actual.mode), (Some(a), Some(b)) if a != b);
    recorded.size == actual.size && recorded.pin.matches(&actual.pin) && !moded
}

fn drift(position: &Position, held: bool, run: Circumstances) -> Option<Drift> {
    let drift = match (&position.base, &position.actual) {
        (None, None) => return None,
        (Some(_), None) => Drift::Removed,
        (_, Some(_)) if held => return None,
        (None, Some(_)) => Drift::Added,
        (Some(_), Some(_)) => Drift::Changed,
    };
    let ours = run.resuming
        && match drift {
            Drift::Removed => true,
            Drift::Changed | Drift::Added => position.source.is_some() || position.pending.is_some(),
        };
    (!ours).then_some(drift)
}

/// True when the source's content is known to be what the target holds, none when only reading both can tell.
/// `held` is an entry of a target's manifest.
pub fn same_content(source: &Entry, held: &Entry) -> Option<bool> {
    if source.kind != held.kind || source.size != held.size {
        return Some(false);
    }
    if let (Some(a), Some(b)) = (source.digest, held.digest) {
        return Some(a == b);
    }
    if source.kind == Kind::Directory && source.pin.version.is_none() {
        return Some(true);
    }
    match &held.origin {
        Some(origin) => Some(origin.matches(&source.pin)),
        None => match (md5_of(source), md5_of(held)) {
            (Some(a), Some(b)) => Some(a == b),
            _ => None,
        },
    }
}

/// True unless both know their permission bits and these differ.
pub fn same_mode(source: &Entry, held: &Entry) -> bool {
    !matches!((source.mode, held.mode), (Some(a), Some(b)) if a != b)
}

/// The entity tag, where it is an MD5 of the content and nothing else
/// (as of one unencrypted PUT: 32 hexadecimal digits; a multipart upload's has a `-`).
pub fn md5_of(entry: &Entry) -> Option<&str> {
    let etag = entry.pin.etag.as_deref()?;
    (etag.len() == 32 && etag.bytes().all(|b| b.is_ascii_hexdigit())).then_some(etag)
}

/// A key that differs from the base before the run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Drifted {
    /// The key.
    pub key: Key,
    /// How it differs.
    pub how: Drift,
}
