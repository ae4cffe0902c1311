//! Why a replica, and why all of them, could not serve a block.

use std::fmt::Write;

use tonic::{Code, Status};

use super::wire::Response;
use crate::error::{Error, Kind};
use crate::store::ozone::block::{Block, BlockId};

/// Why one replica did not serve a block.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) what: String,
    /// The node rather than the block is at fault, so others are asked before it for a while.
    pub(super) node: bool,
}

impl Fault {
    pub(super) fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), node: false }
    }

    /// The node cannot be talked to.
    pub(super) fn lost(what: impl Into<String>) -> Self {
        Self { kind: Kind::Unavailable, what: what.into(), node: true }
    }

    /// An answer that does not fit the question: nothing from this stream can be trusted.
    pub(super) fn nonsense(what: &str) -> Self {
        Self::lost(format!("the answer does not fit the question: {what}"))
    }
}

impl From<Status> for Fault {
    fn from(status: Status) -> Self {
        let mut what = match status.message() {
            "" => status.code().description().to_owned(),
            message => message.to_owned(),
        };
        let mut cause = std::error::Error::source(&status);
        while let Some(error) = cause {
            let text = error.to_string();
            if !what.contains(&text) {
                let _ = write!(what, ": {text}");
            }
            cause = error.source();
        }
        match status.code() {
            Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => Self::new(Kind::Unsupported, what),
            _ => Self::lost(what),
        }
    }
}

/// Refuses every answer but success. The numbers are those of `Result` in `DatanodeClientProtocol.proto`.
pub(super) fn succeeded(response: Response) -> Result<Response, Fault> {
    let (kind, name) = match response.result {
        1 => return Ok(response),
        2 => (Kind::Unsupported, "UNSUPPORTED_REQUEST"),
        3 => (Kind::Unsupported, "MALFORMED_REQUEST"),
        9 => (Kind::NotFound, "CONTAINER_NOT_FOUND"),
        12 => (Kind::NotFound, "NO_SUCH_BLOCK"),
        16 => (Kind::Damaged, "CHECKSUM_MISMATCH"),
        17 => (Kind::Damaged, "UNABLE_TO_FIND_CHUNK"),
        33 => (Kind::Damaged, "CONTAINER_CHECKSUM_ERROR"),
        36 => (Kind::Damaged, "CONTAINER_UNHEALTHY"),
        // The replica has not got that far (yet).
        37 => (Kind::Unavailable, "UNKNOWN_BCSID"),
        38 => (Kind::Unavailable, "BCSID_MISMATCH"),
        40 => (Kind::NotFound, "CONTAINER_MISSING"),
        41 => (Kind::Unsupported, "BLOCK_TOKEN_VERIFICATION_FAILED"),
        43 => (Kind::Damaged, "CHUNK_FILE_INCONSISTENCY"),
        _ => (Kind::Unavailable, "result"),
    };
    let message = response.message.as_deref().unwrap_or_default();
    Err(Fault::new(kind, format!("{name} ({}) {message}", response.result).trim_end().to_owned()))
}

/// Why no replica served a block.
#[derive(Debug, Clone)]
pub(super) struct Unread {
    block: BlockId,
    faults: Vec<(String, Fault)>,
}

impl Unread {
    pub(super) fn new(block: &Block) -> Self {
        Self { block: block.id, faults: Vec::new() }
    }

    /// Adds what happened at an address.
    pub(super) fn push(&mut self, address: &str, fault: Fault) {
        self.faults.push((address.to_owned(), fault));
    }

    /// What to tell the caller: the way out that is open, if one replica leaves one open.
    pub(super) fn error(&self) -> Error {
        let has = |kind| self.faults.iter().any(|(_, fault)| fault.kind == kind);
        let (kind, hint) = if has(Kind::Unsupported) {
            (Kind::Unsupported, "read it through the S3 Gateway")
        } else if has(Kind::Unavailable) || self.faults.is_empty() {
            (Kind::Unavailable, "check that the datanodes run and that their ports can be reached from here")
        } else if has(Kind::Damaged) {
            (Kind::Damaged, "compare the replicas on these datanodes, and restore the object from its other side")
        } else {
            (Kind::NotFound, "look the object up again: its blocks were moved or deleted")
        };
        let BlockId { container, local, sequence } = self.block;
        let mut what = format!("block {container}/{local} (sequence {sequence}) was read from no datanode");
        for (index, (address, Fault { what: reason, .. })) in self.faults.iter().enumerate() {
            let _ = write!(what, "{} {address}: {reason}", if index == 0 { ":" } else { ";" });
        }
        Error::new(kind, what).hint(hint)
    }
}
