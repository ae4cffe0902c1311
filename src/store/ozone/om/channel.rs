//! The way to the manager that leads: connections, failover, and trying again.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use rand::Rng;
use tokio::time::{Instant, sleep, timeout};
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic_prost::ProstCodec;

use super::auth::Signer;
use super::messages::{OmRequest, OmResponse, UserInfo, command, only_reads};
use super::status::{OK, Refusal};
use super::trouble::{Trouble, read};
use crate::error::{Error, Kind, Result};

const PATH: &str = "/hadoop.ozone.OzoneManagerService/submitRequest";

/// The client's version (`ClientVersion` of Ozone 2.2): without it the server treats us as one that knows neither
/// bucket layouts nor erasure coding.
const CLIENT_VERSION: u32 = 3;

/// Largest answer, as the server's own default (`ozone.om.grpc.maximum.response.length`).
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// What may be on its way to us before we have taken it. Listings are large and the default window is 64 KiB.
const WINDOW_BYTES: u32 = 8 << 20;

/// No server is taken to give fewer children in a page: else every small directory would be asked twice.
const LIST_LIMIT_MIN: u64 = 16;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// gRPC pings more often than every five minutes make the server hang up, so TCP looks whether it is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// One manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManagerAddress {
    /// Its node id in the configuration, by which others name it as the leader.
    pub(crate) node: Option<String>,
    /// `host:port` of its gRPC service.
    pub(crate) authority: String,
}

impl ManagerAddress {
    fn host(&self) -> &str {
        self.authority.rsplit_once(':').map_or(&self.authority, |(host, _)| host)
    }
}

/// How the managers know us.
#[derive(Debug, Default)]
pub(crate) struct Access {
    /// The user's name, for clusters that take everybody's word for it.
    pub(crate) user: Option<String>,
    /// Signs, for those that do not.
    pub(crate) signer: Option<Signer>,
    /// None: plain text.
    pub(crate) tls: Option<Tls>,
    /// How patient we are.
    pub(crate) timing: Timing,
}

/// Who is trusted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tls {
    /// Certificates in PEM; those of the system where there is none.
    pub(crate) ca_file: Option<PathBuf>,
}

/// How patient we are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timing {
    /// How long one try may take.
    pub(crate) attempt: Duration,
    /// How long after the first try another may begin.
    pub(crate) deadline: Duration,
    /// The first pause, after every manager was tried once.
    pub(crate) pause: Duration,
    /// The longest.
    pub(crate) pause_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            attempt: Duration::from_secs(60),
            deadline: Duration::from_secs(120),
            pause: Duration::from_millis(50),
            pause_max: Duration::from_secs(3),
        }
    }
}

/// An answer, and whether the question may have been acted on before.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) outcome: Result<OmResponse, Refusal>,
    /// An earlier try of the same request got no answer: what it asked for may have happened then.
    pub(super) repeated: bool,
}

/// Connections to all managers, and which of them leads.
pub(super) struct Channels {
    cluster: Box<str>,
    managers: Vec<(ManagerAddress, Grpc<Channel>)>,
    leader: AtomicUsize,
    requests: AtomicU64,
    /// Children in the longest page of a directory so far.
    longest: AtomicU64,
    client_id: String,
    user: Option<String>,
    signer: Option<Signer>,
    timing: Timing,
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl Channels {
    pub(super) fn new(cluster: &str, managers: &[ManagerAddress], access: Access) -> Result<Self> {
        if managers.is_empty() {
            return Err(Error::usage(format!("no Ozone Manager is known for `{cluster}`")));
        }
        let tls = access.tls.map(|tls| tls_config(&tls)).transpose()?;
        let connect = |manager: &ManagerAddress| -> Result<_> {
            let wrong = |error| {
                Error::usage(format!("`{}` is no address of an Ozone Manager", manager.authority)).caused_by(error)
            };
            let scheme = if tls.is_some() { "https" } else { "http" };
            let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", manager.authority))
                .map_err(wrong)?
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_nodelay(true)
                .tcp_keepalive(Some(TCP_KEEPALIVE))
                .initial_stream_window_size(WINDOW_BYTES)
                .initial_connection_window_size(2 * WINDOW_BYTES);
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone()).map_err(wrong)?;
            }
            let client = Grpc::new(endpoint.connect_lazy()).max_decoding_message_size(ANSWER_BYTES_MAX);
            Ok((manager.clone(), client))
        };
        Ok(Self {
            cluster: cluster.into(),
            managers: managers.iter().map(connect).collect::<Result<_>>()?,
            leader: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            longest: AtomicU64::new(0),
            client_id: format!("snapferry-{:016x}", rand::random::<u64>()),
            user: access.user,
            signer: access.signer,
            timing: access.timing,
        })
    }

    pub(super) fn cluster(&self) -> &str {
        &self.cluster
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether more may come after a page of `count` children out of `asked`. The server does not tell, and gives no more
    /// than its own limit (`ozone.om.server.list.max.size`), which it does not tell either: but a page that is shorter
    /// than one that it gave before is not at the limit.
    pub(super) fn may_have_more(&self, count: u64, asked: u64) -> bool {
        let longest = self.longest.fetch_max(count, Ordering::Relaxed);
        count >= asked || count >= longest.max(LIST_LIMIT_MIN)
    }

    /// Sends a request to the leader until it is answered.
    pub(super) async fn call(&self, mut request: OmRequest) -> Result<Reply> {
        request.client_id.clone_from(&self.client_id);
        request.version = Some(CLIENT_VERSION);
        request.user = self.user.as_ref().map(|name| UserInfo { name: Some(name.clone()), ..UserInfo::default() });
        if let Some(signer) = &self.signer {
            request.authentication = Some(signer.sign(SystemTime::now()).await?);
        }

        let name = command::name(request.cmd_type);
        let deadline = Instant::now() + self.timing.deadline;
        let mut repeated = false;
        let mut pause = self.timing.pause;
        let mut tries = 0;
        let mut at = self.leader.load(Ordering::Relaxed);
        loop {
            let trouble = match self.attempt(at, request.clone()).await {
                Ok(response) => {
                    self.leader.store(at, Ordering::Relaxed);
                    return Ok(Reply { outcome: accepted(response, name), repeated });
                }
                Err(trouble) => trouble,
            };
            tracing::debug!("{name} at {}: {trouble}", self.managers[at].0.authority);
            tries += 1;
            repeated |= matches!(trouble, Trouble::Lost(_)) && !only_reads(request.cmd_type);
            let next = match &trouble {
                Trouble::Fatal(_) => at,
                Trouble::NotReady(_) => at,
                Trouble::NotLeader { node, host, .. } => {
                    self.find(node, host).filter(|leader| *leader != at).unwrap_or((at + 1) % self.managers.len())
                }
                Trouble::Unreached(_) | Trouble::Lost(_) => (at + 1) % self.managers.len(),
            };
            let error = match trouble {
                Trouble::Fatal(error) => return Err(error),
                other => other.into_error(&self.managers[at].0.authority, name),
            };
            // A follower that names its leader costs no pause, unless they keep naming each other.
            if tries % self.managers.len() == 0 || next == at {
                let jittered = pause.mul_f64(rand::rng().random_range(0.5..1.5));
                if Instant::now() + jittered >= deadline {
                    return Err(self.given_up(error, repeated));
                }
                sleep(jittered).await;
                pause = (pause * 2).min(self.timing.pause_max);
            } else if Instant::now() >= deadline {
                return Err(self.given_up(error, repeated));
            }
            at = next;
        }
    }

    async fn attempt(&self, at: usize, request: OmRequest) -> Result<OmResponse, Trouble> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let patience = self.timing.attempt;
        let mut client = self.managers[at].1.clone();
        let exchange = async {
            client.ready().await.map_err(|error| Trouble::Unreached(Box::new(error)))?;
            let path = PathAndQuery::from_static(PATH);
            let codec = ProstCodec::<OmRequest, OmResponse>::default();
            client.unary(tonic::Request::new(request), path, codec).await.map_err(read)
        };
        let response = timeout(patience, exchange)
            .await
            .map_err(|_| Trouble::Lost(format!("nothing came back within {patience:?}").into()))??
            .into_inner();
        match &response.leader {
            Some(leader) if response.status != OK && self.is_another(at, leader) => {
                Err(Trouble::NotLeader { node: leader.clone(), host: String::new() })
            }
            _ => Ok(response),
        }
    }

    /// True when `leader` is the node id of another manager than the one asked.
    fn is_another(&self, at: usize, leader: &str) -> bool {
        self.find(leader, "").is_some_and(|index| index != at)
    }

    /// The manager with this node id, or on this host.
    fn find(&self, node: &str, host: &str) -> Option<usize> {
        let by_node = self.managers.iter().position(|(manager, _)| manager.node.as_deref() == Some(node));
        // A host is told as `name`, `name/address` or `/address`, with or without a port that is not ours.
        let is_on = |manager: &ManagerAddress| {
            host.split('/').any(|part| {
                part == manager.host() || part.rsplit_once(':').is_some_and(|(host, _)| host == manager.host())
            })
        };
        by_node.or_else(|| {
            let mut on_host = self.managers.iter().enumerate().filter(|(_, (manager, _))| is_on(manager));
            let first = on_host.next()?.0;
            // Several on one host: the name does not tell which.
            on_host.next().is_none().then_some(first)
        })
    }

    fn given_up(&self, error: Error, repeated: bool) -> Error {
        let error = match self.managers.len() {
            1 => error,
            count => error.hint(format!(
                "none of the {count} Ozone Managers answered as the leader: check that most of them run"
            )),
        };
        if repeated { error.hint("it may have happened all the same; run again") } else { error }
    }
}

fn accepted(response: OmResponse, command: &'static str) -> Result<OmResponse, Refusal> {
    if response.status == OK {
        return Ok(response);
    }
    let message = response.message.clone().unwrap_or_default();
    Err(Refusal { status: response.status, message, command, answer: Box::new(response) })
}

fn tls_config(tls: &Tls) -> Result<ClientTlsConfig> {
    let config = ClientTlsConfig::new();
    let Some(file) = &tls.ca_file else { return Ok(config.with_native_roots()) };
    let pem = std::fs::read(file).map_err(|error| {
        Error::new(Kind::Io, format!("the certificates in `{}` could not be read", file.display())).caused_by(error)
    })?;
    Ok(config.ca_certificate(Certificate::from_pem(pem)))
}
