//! What can go wrong: where, with which key, and what to do next.

use std::error::Error as StdError;
use std::fmt;

use crate::key::Key;

/// The result of nearly everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One of the two sides of a replication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// Where data comes from.
    Source,
    /// Where data goes.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Target => "target",
        })
    }
}

/// What kind of failure it is: this decides retries and the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Wrong usage or configuration.
    Usage,
    /// Not done because a guard forbids it (drift, max-delete, a missing confirmation); nothing was touched.
    Refused,
    /// Not done because another job works on the target; nothing was touched.
    Held,
    /// The proof failed: the two sides differ.
    Differ,
    /// The object, bucket or snapshot does not exist.
    NotFound,
    /// It is there already, though the write asked for it not to be.
    AlreadyExists,
    /// The object is not the one that was pinned: somebody changed it.
    Changed,
    /// Credentials are missing, wrong or not enough.
    Denied,
    /// The store asks for less load.
    Throttled,
    /// The store or the way to it failed for the moment.
    Unavailable,
    /// Content does not match its checksum.
    Damaged,
    /// The store cannot do this at all.
    Unsupported,
    /// The store cannot hold this key.
    Unrepresentable,
    /// A listing ended early, repeated itself, went backwards or did not make sense.
    BadListing,
    /// The lease on the target was lost to another job.
    LeaseLost,
    /// Stopped on request.
    Cancelled,
    /// The store has no room left.
    Full,
    /// Reading or writing failed otherwise.
    Io,
    /// A promise inside snapferry was broken.
    Internal,
}

/// A failure with what a person needs to act on it.
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    what: String,
    side: Option<Side>,
    place: Option<String>,
    key: Option<Key>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of this kind; `what` says what was being done and what happened, without the side or the key.
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, what: what.into(), side: None, place: None, key: None, hint: None, source: None }))
    }

    /// Wrong usage or configuration.
    pub fn usage(what: impl Into<String>) -> Self {
        Self::new(Kind::Usage, what)
    }

    /// A promise inside snapferry was broken.
    pub fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal, what).hint("this is a defect in snapferry; please report it")
    }

    /// Names the side, unless it is named already.
    #[must_use]
    pub fn on(mut self, side: Side) -> Self {
        self.0.side.get_or_insert(side);
        self
    }

    /// Names the store (its address without secrets), unless it is named already.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.0.place.get_or_insert_with(|| place.into());
        self
    }

    /// Names the key, unless it is named already.
    #[must_use]
    pub fn key(mut self, key: &Key) -> Self {
        self.0.key.get_or_insert_with(|| key.clone());
        self
    }

    /// Names the key as it is written here, whatever a protocol called it.
    #[must_use]
    pub fn about(mut self, key: &Key) -> Self {
        self.0.key = Some(key.clone());
        self
    }

    /// Names the key that a name of snapferry's own, such as a staging name, stands for.
    #[must_use]
    pub fn standing_for(mut self, key: &Key) -> Self {
        if self.0.key.as_ref().is_none_or(Key::is_reserved) {
            self.0.key = Some(key.clone());
        }
        self
    }

    /// Says what to do next, unless that is said already.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Keeps the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// The kind of failure.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The side it happened on, where it is known.
    pub fn side(&self) -> Option<Side> {
        self.0.side
    }

    /// The key it happened with, where there is one.
    pub fn failed_key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// What to do next, where something can be said.
    pub fn way_out(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// True when the same call may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, Kind::Throttled | Kind::Unavailable)
    }

    /// The exit code for a program that stops on this: 2 usage, 3 refused (a key that cannot be held, too: that shows before anything is touched), 4 proof failed, else 1.
    pub fn exit_code(&self) -> u8 {
        match self.0.kind {
            Kind::Usage => 2,
            Kind::Refused | Kind::Held | Kind::Unrepresentable => 3,
            Kind::Differ => 4,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { side, place, key, what, source, .. } = &*self.0;
        match (side, place) {
            (Some(side), Some(place)) => write!(f, "{side} {place}: ")?,
            (Some(side), None) => write!(f, "{side}: ")?,
            (None, Some(place)) => write!(f, "{place}: ")?,
            (None, None) => {}
        }
        if let Some(key) = key {
            write!(f, "key `{key}`: ")?;
        }
        f.write_str(what)?;
        let mut cause = source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        let kind = match error.kind() {
            ErrorKind::NotFound => Kind::NotFound,
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Kind::Denied,
            ErrorKind::AlreadyExists => Kind::AlreadyExists,
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Kind::Full,
            ErrorKind::Interrupted | ErrorKind::TimedOut => Kind::Unavailable,
            _ => Kind::Io,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(errno: rustix::io::Errno) -> Self {
        std::io::Error::from(errno).into()
    }
}
