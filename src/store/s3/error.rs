//! What a server's refusal means.

use std::error::Error as StdError;

use http::StatusCode;

use super::xml;
use crate::error::{Error, Kind};

/// Longest part of a server's message that is repeated.
const MESSAGE_CHARS_MAX: usize = 300;

/// A request that did not succeed: refused by the server, or lost on the way (then without a status).
#[derive(Debug)]
pub(super) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: Option<StatusCode>,
    code: String,
    message: String,
    region: Option<String>,
    server: String,
    error: Error,
}

impl Failure {
    /// The server's refusal.
    pub(super) fn refused(status: StatusCode, body: &[u8]) -> Self {
        let (mut code, mut message, mut region) = (String::new(), String::new(), None);
        // A proxy's page or an empty body (HEAD) has no code: then the status alone decides.
        let _ = xml::walk(body, |path, text| {
            match path {
                "Code" | "Error/Code" => code = text.trim().to_owned(),
                "Message" | "Error/Message" => message = text.trim().chars().take(MESSAGE_CHARS_MAX).collect(),
                "Region" | "Error/Region" => region = Some(text.trim().to_owned()),
                _ => {}
            }
            Ok(())
        });
        let kind = kind(Some(status), &code);
        let mut what = format!("the server answered {}", status.as_u16());
        if !code.is_empty() {
            what.push(' ');
            what.push_str(&code);
        }
        if !message.is_empty() {
            what.push_str(": ");
            what.push_str(&message);
        }
        let error = with_hint(Error::new(kind, what), &code, kind);
        Self(Box::new(Inner { status: Some(status), code, message, region, server: String::new(), error }))
    }

    /// A refusal that came inside a reply of status 200.
    pub(super) fn inside(code: &str, message: &str) -> Self {
        let kind = kind(None, code);
        let clipped: String = message.chars().take(MESSAGE_CHARS_MAX).collect();
        let error = with_hint(Error::new(kind, format!("the server answered {code}: {clipped}")), code, kind);
        Self(Box::new(Inner {
            status: None,
            code: code.to_owned(),
            message: clipped,
            region: None,
            server: String::new(),
            error,
        }))
    }

    /// The way to the server failed, or its answer broke off.
    pub(super) fn lost(what: impl Into<String>, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Error::new(Kind::Unavailable, what).caused_by(cause).into()
    }

    /// The server's code, empty where there was none.
    pub(super) fn code(&self) -> &str {
        &self.0.code
    }

    /// The answer's status, if there was an answer.
    pub(super) fn status(&self) -> Option<StatusCode> {
        self.0.status
    }

    /// The region that the bucket is in, where the refusal says so.
    pub(super) fn region(&self) -> Option<&str> {
        self.0.region.as_deref().filter(|region| !region.is_empty())
    }

    /// Keeps how the server calls itself.
    pub(super) fn by(mut self, server: Option<&str>) -> Self {
        self.0.server = server.unwrap_or("").to_owned();
        self
    }

    /// How the server calls itself, empty where it does not say.
    pub(super) fn server(&self) -> &str {
        &self.0.server
    }

    /// What kind of failure it is.
    pub(super) fn kind(&self) -> Kind {
        self.0.error.kind()
    }

    /// True when the bucket itself is missing.
    pub(super) fn is_no_bucket(&self) -> bool {
        self.0.code == "NoSuchBucket"
    }

    /// The same failure, meaning something else in this place.
    pub(super) fn into_kind(self, kind: Kind, what: &str) -> Error {
        let mut what = what.to_owned();
        if !self.0.message.is_empty() {
            what.push_str(": ");
            what.push_str(&self.0.message);
        }
        Error::new(kind, what)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.0.error
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(Box::new(Inner {
            status: None,
            code: String::new(),
            message: String::new(),
            region: None,
            server: String::new(),
            error,
        }))
    }
}

impl From<xml::Malformed> for Failure {
    fn from(malformed: xml::Malformed) -> Self {
        Self::lost("the server's reply could not be read", malformed)
    }
}

/// The kind for a code of "Error responses" in the Amazon S3 API reference, or of a server that follows it.
pub(super) fn kind(status: Option<StatusCode>, code: &str) -> Kind {
    match code {
        "SlowDown"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "BandwidthLimitExceeded"
        | "SlowDownRead"
        | "SlowDownWrite" => Kind::Throttled,
        "InternalError"
        | "RequestTimeout"
        | "OperationAborted"
        | "ConditionalRequestConflict"
        | "IncompleteBody"
        | "ServerBusy" => Kind::Unavailable,
        "NoSuchKey" | "NoSuchBucket" | "NoSuchUpload" | "NoSuchVersion" => Kind::NotFound,
        "PreconditionFailed" | "InvalidRange" => Kind::Changed,
        "AccessDenied"
        | "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "AllAccessDisabled"
        | "AccountProblem"
        | "InvalidSecurity"
        | "RequestTimeTooSkewed"
        | "AuthorizationHeaderMalformed"
        | "NotSignedUp" => Kind::Denied,
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => Kind::Damaged,
        "NotImplemented" | "MethodNotAllowed" | "InvalidObjectState" | "EntityTooLarge" | "EntityTooSmall" => {
            Kind::Unsupported
        }
        "KeyTooLongError" | "InvalidObjectName" | "XMinioInvalidObjectName" | "InvalidURI" => Kind::Unrepresentable,
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" => Kind::Full,
        "InvalidBucketName" | "PermanentRedirect" | "TemporaryRedirect" => Kind::Usage,
        _ => status.map_or(Kind::Io, kind_of_status),
    }
}

fn kind_of_status(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 | 403 => Kind::Denied,
        404 | 410 => Kind::NotFound,
        409 | 412 | 416 => Kind::Changed,
        408 | 425 | 500 | 502 | 504 => Kind::Unavailable,
        429 | 503 => Kind::Throttled,
        405 | 501 => Kind::Unsupported,
        507 => Kind::Full,
        other if other >= 500 => Kind::Unavailable,
        _ => Kind::Io,
    }
}

fn with_hint(error: Error, code: &str, kind: Kind) -> Error {
    match code {
        "NoSuchBucket" => error.hint("create the bucket, or correct its name or the endpoint in the URL"),
        "PermanentRedirect" | "TemporaryRedirect" => {
            error.hint("the bucket is elsewhere: correct endpoint= or region= in its URL")
        }
        "RequestTimeTooSkewed" => error.hint("set this machine's clock; signatures hold for 15 minutes"),
        "SignatureDoesNotMatch" => error.hint("check the secret key, and region= and path-style= in the URL"),
        "InvalidObjectState" => error.hint("the object is archived: restore it from its archive first"),
        "NotImplemented" => {
            error.hint("an older server: try conditional=false, versions=off or checksum=md5 in its URL")
        }
        "BadDigest" => error.hint("the bytes were changed on their way; run again"),
        // Servers that keep objects as files, such as versitygw.
        "ObjectParentIsFile" | "ExistingObjectIsDirectory" => error.hint(
            "this server cannot hold `a` beside `a/b`: remove what is in the way, or use one that can, and run again",
        ),
        _ if kind == Kind::Denied => {
            error.hint("check the credentials (environment or &profile=) and the bucket's policy")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> Error {
        Failure::refused(StatusCode::from_u16(status).unwrap(), body.as_bytes()).into()
    }

    #[test]
    fn codes_before_statuses() {
        let body = |code: &str| format!("<Error><Code>{code}</Code><Message>m</Message></Error>");
        for (status, code, kind) in [
            (503, "SlowDown", Kind::Throttled),
            (500, "InternalError", Kind::Unavailable),
            (409, "ConditionalRequestConflict", Kind::Unavailable),
            (412, "PreconditionFailed", Kind::Changed),
            (404, "NoSuchKey", Kind::NotFound),
            (400, "ExpiredToken", Kind::Denied),
            (400, "BadDigest", Kind::Damaged),
            (501, "NotImplemented", Kind::Unsupported),
            (400, "SomethingNew", Kind::Io),
            (503, "SomethingNew", Kind::Throttled),
        ] {
            let error = refused(status, &body(code));
            assert_eq!(error.kind(), kind, "{code}");
            assert!(error.to_string().contains(code));
        }
        let retryable = |status| refused(status, "<html>bad gateway").is_retryable();
        assert!(retryable(502) && retryable(429) && !retryable(400) && !retryable(403));
    }

    #[test]
    fn only_code_and_message_are_repeated() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>m</Message><AWSAccessKeyId>AKID</AWSAccessKeyId>\
                    <StringToSign>secret</StringToSign></Error>";
        let error = refused(403, body);
        assert!(!error.to_string().contains("AKID") && !error.to_string().contains("secret"));
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.way_out().unwrap().contains("secret key"));
    }
}
