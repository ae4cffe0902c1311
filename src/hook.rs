//! Who is told how a run went: a command with the event as JSON on its standard input, or a webhook.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use crate::error::{Error, Kind, Result};
use crate::retry::retry;

/// The version of an [`Event`]'s fields; raised when one changes its meaning.
pub const FORMAT: u32 = 1;

/// What is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum On {
    /// A run sealed a snapshot, or found it sealed.
    Success,
    /// A run failed or was refused.
    Failure,
    /// The newest sealed content is older than it may be.
    Stale,
    /// A run sealed a snapshot, but something beside it could not be done; or a check found that something is missing.
    Partial,
}

impl On {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Success, Self::Failure, Self::Stale, Self::Partial];
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Stale => "stale",
            Self::Partial => "partial",
        })
    }
}

/// Who is told of what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What it wants to hear of.
    pub on: Vec<On>,
    /// How it is told.
    pub action: Action,
    /// How long telling it may take.
    pub timeout: Duration,
}

/// How somebody is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Action {
    /// A program and its arguments.
    Command(Vec<String>),
    /// A URL to which the event is posted. Whoever knows it can use it, so it is not shown whole.
    Webhook(Uri),
}

impl fmt::Debug for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(words) => f.write_str(words.first().map_or("", String::as_str)),
            Self::Webhook(uri) => {
                write!(f, "{}://{}", uri.scheme_str().unwrap_or("http"), uri.host().unwrap_or(""))
            }
        }
    }
}

/// What happened. The fields are those that hooks are given; `docs/hook.schema.json` describes them.
#[derive(Debug, Clone, Serialize)]
pub struct Event {
    /// The version of these fields.
    pub format: u32,
    /// What happened.
    pub event: On,
    /// The policy.
    pub policy: String,
    /// When.
    pub time: Timestamp,
    /// It in a sentence.
    pub message: String,
    /// What to do next, where something can be said.
    pub hint: Option<String>,
    /// The source's address.
    pub source: String,
    /// The target's address.
    pub target: String,
    /// The job, where there was one.
    pub job: Option<String>,
    /// The snapshot, where there was one.
    pub snapshot: Option<String>,
    /// How old the newest sealed content is, in seconds, where there is any.
    pub age_seconds: Option<i64>,
    /// The run's report, as `--json` gives it, where there was a run.
    pub report: Option<Value>,
}

/// Tells all hooks that want to hear of it, side by side. One that fails is only logged: what was sealed stays sealed.
pub async fn tell(hooks: &[Hook], event: &Event) {
    let Ok(json) = serde_json::to_vec(event) else { return };
    let json = Bytes::from(json);
    let told = hooks.iter().filter(|hook| hook.on.contains(&event.event)).map(|hook| {
        let json = json.clone();
        async move {
            let outcome = tokio::time::timeout(hook.timeout, hook.action.tell(json)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(Error::new(Kind::Unavailable, "it took too long")));
            if let Err(error) = outcome {
                tracing::warn!("{}: the hook {} on {} failed: {error}", event.policy, hook.action, event.event);
            }
        }
    });
    futures::future::join_all(told).await;
}

impl Action {
    async fn tell(&self, json: Bytes) -> Result<()> {
        match self {
            Self::Command(words) => run(words, &json).await,
            Self::Webhook(uri) => retry(|| post(uri, json.clone()), |_| {}).await,
        }
    }
}

async fn run(words: &[String], json: &[u8]) -> Result<()> {
    let Some((program, arguments)) = words.split_first() else {
        return Err(Error::internal("a hook without a command"));
    };
    // Whatever it prints is for the log: stdout may be a program's.
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read what it is told may still do its work.
        let _ = input.write_all(json).await;
    }
    let status = child.wait().await?;
    if status.success() { Ok(()) } else { Err(Error::new(Kind::Io, format!("it ended with {status}"))) }
}

async fn post(uri: &Uri, json: Bytes) -> Result<()> {
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| Error::new(Kind::Io, "the machine's certificates cannot be read").caused_by(error))?
        .https_or_http()
        .enable_http1()
        .build();
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let request = Request::post(uri.clone())
        .header("content-type", "application/json")
        .header("user-agent", concat!("snapferry/", env!("CARGO_PKG_VERSION")))
        .body(Full::new(json))
        .map_err(|error| Error::internal("a hook's request cannot be made").caused_by(error))?;
    let response = client
        .request(request)
        .await
        .map_err(|error| Error::new(Kind::Unavailable, "it cannot be reached").caused_by(error.to_string()))?;
    let status = response.status();
    match status {
        _ if status.is_success() => Ok(()),
        _ if status.is_server_error() || status == http::StatusCode::TOO_MANY_REQUESTS => {
            Err(Error::new(Kind::Unavailable, format!("it answered {status}")))
        }
        _ => Err(Error::new(Kind::Io, format!("it answered {status}"))),
    }
}
