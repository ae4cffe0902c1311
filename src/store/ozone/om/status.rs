//! What an Ozone Manager refuses, and what that means: `Status` of its protocol, Apache Ozone 2.2.

use super::messages::OmResponse;
use crate::error::{Error, Kind};

pub(super) const OK: i32 = 1;
pub(super) const BUCKET_ALREADY_EXISTS: i32 = 10;
pub(super) const KEY_ALREADY_EXISTS: i32 = 11;
pub(super) const KEY_NOT_FOUND: i32 = 12;
pub(super) const INTERNAL_ERROR: i32 = 15;
pub(super) const SCM_IN_SAFE_MODE: i32 = 38;
pub(super) const INVALID_REQUEST: i32 = 39;
pub(super) const FILE_NOT_FOUND: i32 = 44;
pub(super) const DIRECTORY_NOT_FOUND: i32 = 45;
pub(super) const FILE_ALREADY_EXISTS: i32 = 46;
pub(super) const DIRECTORY_ALREADY_EXISTS: i32 = 60;
pub(super) const PARTIAL_DELETE: i32 = 62;
pub(super) const NOT_SUPPORTED_OPERATION: i32 = 64;

/// An answer that says no.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: i32,
    pub(super) message: String,
    pub(super) command: &'static str,
    /// What else the answer has: of many keys, those that were left.
    pub(super) answer: Box<OmResponse>,
}

impl Refusal {
    /// The key, or the directory that it is asked in, is not there; the bucket is.
    pub(super) fn is_no_key(&self) -> bool {
        matches!(self.status, KEY_NOT_FOUND | FILE_NOT_FOUND | DIRECTORY_NOT_FOUND)
    }

    /// Something has this name already.
    pub(super) fn is_taken(&self) -> bool {
        matches!(
            self.status,
            BUCKET_ALREADY_EXISTS | KEY_ALREADY_EXISTS | FILE_ALREADY_EXISTS | DIRECTORY_ALREADY_EXISTS
        )
    }

    /// The server is older than this command, or does not offer it.
    pub(super) fn is_unknown_command(&self) -> bool {
        matches!(self.status, NOT_SUPPORTED_OPERATION | INVALID_REQUEST)
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let Refusal { status, message, command, .. } = refusal;
        // What the Storage Container Manager refuses while it is starting may come as anything.
        let starting = status == INTERNAL_ERROR && message.to_ascii_lowercase().contains("safe mode");
        let (kind, name, hint) = meaning(if starting { SCM_IN_SAFE_MODE } else { status });
        // The message may repeat the name, or be a Java trace of which only the first line says anything.
        let line = message.lines().next().unwrap_or("").trim();
        let text = match (name, line) {
            ("", "") => format!("{command} was refused with status {status}"),
            ("", line) => format!("{command} was refused with status {status}: {line}"),
            (name, "") => format!("{command} was refused: {name}"),
            (name, line) => format!("{command} was refused: {name}: {line}"),
        };
        let error = Error::new(kind, text);
        match hint {
            "" => error,
            hint => error.hint(hint),
        }
    }
}

/// The kind of failure that a status stands for, its name, and the way out.
fn meaning(status: i32) -> (Kind, &'static str, &'static str) {
    const ACL: &str = "give this user rights to the volume, the bucket and its keys (ozone sh bucket addacl)";
    const LOGIN: &str = "the cluster asks who we are: give an S3 access key and secret (ozone s3 getsecret); \
                         Kerberos itself is not spoken";
    const NAME: &str = "Ozone cannot hold this name; rename the object on the source";
    const LATER: &str = "wait until the cluster has left its upgrade, then run again";
    match status {
        3 => (Kind::NotFound, "VOLUME_NOT_FOUND", "create the volume, or correct its name in the URL"),
        8 => (Kind::NotFound, "BUCKET_NOT_FOUND", "create the bucket, or correct its name in the URL"),
        12 => (Kind::NotFound, "KEY_NOT_FOUND", ""),
        44 => (Kind::NotFound, "FILE_NOT_FOUND", ""),
        45 => (Kind::NotFound, "DIRECTORY_NOT_FOUND", ""),
        5 => (Kind::AlreadyExists, "VOLUME_ALREADY_EXISTS", ""),
        10 => (Kind::AlreadyExists, "BUCKET_ALREADY_EXISTS", ""),
        11 => (Kind::AlreadyExists, "KEY_ALREADY_EXISTS", ""),
        46 => (Kind::AlreadyExists, "FILE_ALREADY_EXISTS", ""),
        60 => (Kind::AlreadyExists, "DIRECTORY_ALREADY_EXISTS", ""),
        68 => (Kind::Io, "DIRECTORY_NOT_EMPTY", "delete what is in it first"),
        66 => (Kind::Full, "QUOTA_EXCEEDED", "raise the bucket's or the volume's quota, or make room in it"),
        67 => (Kind::Full, "QUOTA_ERROR", "check the bucket's and the volume's quota"),
        94 => (Kind::Full, "TOO_MANY_BUCKETS", "raise ozone.om.max.buckets, or delete a bucket"),
        98 => (Kind::Full, "TOO_MANY_SNAPSHOTS", "delete snapshots: deleted ones count until they are purged"),
        14 => (Kind::Denied, "ACCESS_DENIED", ACL),
        48 => (Kind::Denied, "PERMISSION_DENIED", ACL),
        54 => (Kind::Denied, "USER_MISMATCH", ACL),
        33 => (Kind::Denied, "INVALID_AUTH_METHOD", LOGIN),
        34 => (Kind::Denied, "INVALID_TOKEN", LOGIN),
        35 => (Kind::Denied, "TOKEN_EXPIRED", LOGIN),
        36 => (Kind::Denied, "TOKEN_ERROR_OTHER", LOGIN),
        82 => (Kind::Denied, "INVALID_ACCESS_ID", LOGIN),
        79 => (Kind::Denied, "ACCESS_ID_NOT_FOUND", LOGIN),
        91 => (Kind::Denied, "UNAUTHORIZED", LOGIN),
        32 => (Kind::Denied, "S3_SECRET_NOT_FOUND", LOGIN),
        SCM_IN_SAFE_MODE => (
            Kind::Unavailable,
            "SCM_IN_SAFE_MODE",
            "the cluster is starting: wait until it has left its safe mode, for which enough datanodes must run",
        ),
        20 => (Kind::Unavailable, "OM_NOT_INITIALIZED", "the Ozone Manager is starting: run again a little later"),
        49 => (Kind::Unavailable, "TIMEOUT", ""),
        52 => (Kind::Unavailable, "RATIS_ERROR", "the Ozone Managers do not agree: check that most of them run"),
        57 => (Kind::Unavailable, "SCM_GET_PIPELINE_EXCEPTION", "check that the datanodes run"),
        74 => (Kind::Unavailable, "NOT_SUPPORTED_OPERATION_WHEN_PREPARED", LATER),
        75 => (
            Kind::Unsupported,
            "NOT_SUPPORTED_OPERATION_PRIOR_FINALIZATION",
            "finalise the upgrade of the cluster (ozone admin om finalizeupgrade)",
        ),
        64 => {
            (Kind::Unsupported, "NOT_SUPPORTED_OPERATION", "the cluster's version or the bucket's layout cannot do it")
        }
        86 => (
            Kind::Unsupported,
            "FEATURE_NOT_ENABLED",
            "for snapshots set ozone.filesystem.snapshot.enabled=true and restart the Ozone Managers",
        ),
        13 => (Kind::Unrepresentable, "INVALID_KEY_NAME", NAME),
        93 => (Kind::Unrepresentable, "INVALID_PATH", NAME),
        58 => (Kind::Usage, "INVALID_BUCKET_NAME", "correct the bucket's name in the URL"),
        61 => (Kind::Usage, "INVALID_VOLUME_NAME", "correct the volume's name in the URL"),
        63 => {
            (Kind::Usage, "DETECTED_LOOP_IN_BUCKET_LINKS", "the bucket links lead round in a circle: mend one of them")
        }
        47 => (Kind::Io, "NOT_A_FILE", ""),
        17 => (Kind::Io, "KEY_DELETION_ERROR", ""),
        18 => (Kind::Io, "KEY_RENAME_ERROR", ""),
        62 => (Kind::Io, "PARTIAL_DELETE", ""),
        65 => (Kind::Io, "PARTIAL_RENAME", ""),
        87 => (Kind::Io, "INVALID_SNAPSHOT_ERROR", ""),
        90 => (Kind::Changed, "RENAME_OPEN_FILE", "somebody is writing to it; nobody may, while the job runs"),
        39 => (Kind::Io, "INVALID_REQUEST", ""),
        INTERNAL_ERROR => (Kind::Io, "INTERNAL_ERROR", "look into the Ozone Manager's log"),
        19 => (Kind::Io, "METADATA_ERROR", "look into the Ozone Manager's log"),
        _ => (Kind::Io, "", ""),
    }
}
