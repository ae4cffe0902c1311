//! What stands between a request and its answer, read from gRPC's statuses.

use std::error::Error as StdError;
use std::fmt;

use tonic::{Code, ConnectError, Status};

use crate::error::{Error, Kind};

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The manager did not hear the question.
    Unreached(Box<dyn StdError + Send + Sync>),
    /// The manager may have heard the question and acted on it.
    Lost(Box<dyn StdError + Send + Sync>),
    /// Another one leads: its node id and host, empty where they are not told.
    NotLeader { node: String, host: String },
    /// It leads from now on and is still catching up.
    NotReady(String),
    /// Asking again would not help.
    Fatal(Error),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreached(error) => write!(f, "not reached: {}", Chain(&**error)),
            Self::Lost(error) => write!(f, "no answer: {}", Chain(&**error)),
            Self::NotLeader { node, host } => write!(f, "not the leader, which is `{node}` on `{host}`"),
            Self::NotReady(text) => f.write_str(text),
            Self::Fatal(error) => write!(f, "{error}"),
        }
    }
}

impl Trouble {
    /// The error, when no time is left to try again.
    pub(super) fn into_error(self, manager: &str, command: &str) -> Error {
        let unavailable = |what: String| Error::new(Kind::Unavailable, what);
        match self {
            Self::Unreached(cause) => unavailable(format!("the Ozone Manager at {manager} could not be reached"))
                .caused_by(Chain(&*cause).to_string())
                .hint(
                    "check that it runs and that its gRPC service is on (ozone.om.s3.grpc.server_enabled, port \
                     ozone.om.grpc.port, 8981 by default); grpc= in the URL names another port",
                ),
            Self::Lost(cause) => unavailable(format!("the Ozone Manager at {manager} did not answer {command}"))
                .caused_by(Chain(&*cause).to_string()),
            Self::NotLeader { .. } => unavailable(format!("the Ozone Manager at {manager} does not lead"))
                .hint("name the other Ozone Managers too, or a service id of ozone-site.xml with OZONE_CONF_DIR set"),
            Self::NotReady(text) => unavailable(format!("the Ozone Manager at {manager} is not ready: {text}")),
            Self::Fatal(error) => error,
        }
    }
}

/// An error with its causes in one line.
struct Chain<'a>(&'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut last = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            cause = error.source();
        }
        Ok(())
    }
}

/// Reads a status. The server wraps Java exceptions as INTERNAL, with the class and its text as the message.
pub(super) fn read(status: Status) -> Trouble {
    let text = status.message();
    if text.contains("OMNotLeaderException") || text.contains("is not the leader") {
        let (node, host) = suggested(text);
        return Trouble::NotLeader { node, host };
    }
    if text.contains("OMLeaderNotReadyException") {
        return Trouble::NotReady(first_line(text));
    }
    if let Some(reason) = distrust(&status) {
        return Trouble::Fatal(
            Error::new(Kind::Denied, format!("the Ozone Manager's certificate is not trusted: {reason}"))
                .hint("name the file of the authority that signed it"),
        );
    }
    if causes(&status).any(|error| error.is::<ConnectError>()) {
        return Trouble::Unreached(Box::new(status));
    }
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded | Code::Unknown | Code::Aborted => {
            Trouble::Lost(Box::new(status))
        }
        // Only what went wrong on the way has a cause of its own: a server's word has none.
        Code::Internal if status.source().is_some() => Trouble::Lost(Box::new(status)),
        Code::Unauthenticated | Code::PermissionDenied => Trouble::Fatal(denied(text)),
        Code::Internal
            if ["AccessControlException", "InvalidToken", "OMTokenException"]
                .iter()
                .any(|name| text.contains(name)) =>
        {
            Trouble::Fatal(denied(text))
        }
        Code::ResourceExhausted => Trouble::Fatal(Error::new(Kind::Throttled, first_line(text))),
        Code::Unimplemented => {
            Trouble::Fatal(Error::new(Kind::Unsupported, "what answers there is no Ozone Manager's gRPC service").hint(
                "the port of ozone.om.grpc.port is needed (8981 by default), with ozone.om.s3.grpc.server_enabled=true",
            ))
        }
        code => {
            Trouble::Fatal(Error::new(Kind::Io, format!("the Ozone Manager failed ({code:?}): {}", first_line(text))))
        }
    }
}

fn denied(text: &str) -> Error {
    Error::new(Kind::Denied, format!("the Ozone Manager does not let us in: {}", first_line(text)))
        .hint("give an S3 access key and secret of this cluster (ozone s3 getsecret); Kerberos itself is not spoken")
}

/// `… Suggested leader is OM:node[host].`
fn suggested(text: &str) -> (String, String) {
    let found = text.split_once("Suggested leader is OM:").and_then(|(_, rest)| {
        let (node, rest) = rest.split_once('[')?;
        Some((node.to_owned(), rest.split_once(']')?.0.to_owned()))
    });
    found.unwrap_or_default()
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or("").trim().to_owned()
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| match error.downcast_ref::<std::io::Error>() {
        // An I/O error names as its source not what it wraps, but the source of that.
        Some(io) => io.get_ref().map(|inner| inner as &(dyn StdError + 'static)),
        None => error.source(),
    })
}

/// Why a certificate was refused, if that is what went wrong.
fn distrust(error: &(dyn StdError + 'static)) -> Option<String> {
    causes(error).find_map(|cause| match cause.downcast_ref() {
        Some(tls @ rustls::Error::InvalidCertificate(_)) => Some(tls.to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_names_its_leader() {
        let status = Status::internal(
            "org.apache.hadoop.ozone.om.exceptions.OMNotLeaderException: OM:om1 is not the leader. Suggested leader is OM:om2[om-2.example/10.0.0.2].",
        );
        let Trouble::NotLeader { node, host } = read(status) else { panic!("not taken for a follower") };
        assert_eq!((node.as_str(), host.as_str()), ("om2", "om-2.example/10.0.0.2"));

        let status = Status::internal("OM:om1 is not the leader. Could not determine the leader node.");
        assert!(matches!(read(status), Trouble::NotLeader { node, host } if node.is_empty() && host.is_empty()));
    }

    #[test]
    fn what_is_tried_again() {
        for (status, lost) in [
            (Status::unavailable("x"), true),
            (Status::unknown("x"), true),
            (Status::internal("java.io.IOException"), false),
            (Status::unimplemented("x"), false),
            (Status::permission_denied("x"), false),
        ] {
            assert_eq!(matches!(read(status.clone()), Trouble::Lost(_)), lost, "{status:?}");
        }
        let kind = |status| match read(status) {
            Trouble::Fatal(error) => error.kind(),
            other => panic!("{other}"),
        };
        assert_eq!(kind(Status::unauthenticated("x")), Kind::Denied);
        assert_eq!(kind(Status::internal("a.b.AccessControlException: no")), Kind::Denied);
        assert_eq!(kind(Status::unimplemented("x")), Kind::Unsupported);
    }
}
