//! Blocks read straight from the datanodes that hold them, over their gRPC service (`XceiverClientProtocolService`).

mod chunks;
#[cfg(test)]
mod cluster;
mod content;
#[cfg(test)]
mod fake;
mod fault;
mod peer;
mod recent;
mod sums;
#[cfg(test)]
mod tests;
mod wire;

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use self::chunks::ChunkList;
use self::fault::{Fault, Unread};
use self::peer::Peer;
use self::recent::Recent;
use super::block::{Block, BlockId, Node, Replication};
use crate::error::{Error, Kind, Result};

/// Blocks up to this are asked for whole, in one request: a chunk is 4 MiB unless the writer chose otherwise.
const SMALL_BYTES_MAX: u64 = 4 << 20;

/// Datanodes to which connections are kept.
const PEERS_MAX: usize = 256;

/// How datanodes are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DatanodeOptions {
    /// How long making a connection may take.
    pub connect: Duration,
    /// A replica from which nothing comes for this long is given up for the next.
    pub stall: Duration,
    /// Connections to a datanode, at least 1.
    pub connections: usize,
    /// Most chunks asked of one datanode at a time, at least 1: it has no back-pressure of its own.
    pub chunks: usize,
    /// Chunk lists that are remembered.
    pub lists: usize,
}

impl Default for DatanodeOptions {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), stall: Duration::from_secs(10), connections: 1, chunks: 8, lists: 64 }
    }
}

/// The datanodes of a cluster. Cheap to clone: clones share connections, memory of chunk lists, and the counter.
#[derive(Debug, Clone)]
pub(super) struct Datanodes(Arc<Inner>);

/// A block's chunk list while it is fetched, and afterwards. Who waited for it hears how that ended, too.
type Listed = Arc<OnceCell<Result<Arc<ChunkList>, Arc<Unread>>>>;

#[derive(Debug)]
struct Inner {
    options: DatanodeOptions,
    peers: Mutex<Recent<Node, Result<Arc<Peer>, Fault>>>,
    lists: Mutex<Recent<BlockId, Listed>>,
    requests: Arc<AtomicU64>,
}

impl Datanodes {
    /// Nothing is connected before it is needed.
    pub(super) fn new(options: DatanodeOptions) -> Self {
        let peers = Mutex::new(Recent::new(PEERS_MAX));
        let lists = Mutex::new(Recent::new(options.lists));
        Self(Arc::new(Inner { options, peers, lists, requests: Arc::default() }))
    }

    /// Reads a range of a block, in bytes from where the block begins, checked against the sums that were stored with
    /// it. Replicas are tried in the order given, those that failed lately last; none is tried twice.
    ///
    /// `NotFound`: no replica has it (any more): look the object up again. `Damaged`: no replica has it whole.
    /// `Unavailable`: none could be reached, or none has it yet. `Unsupported`: it cannot be read or checked this way
    /// (erasure coding, a token missing or stale, an unknown checksum, no such service): ask the gateway.
    pub(super) async fn read(&self, block: &Block, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end || range.end > block.length {
            return Err(Error::internal(format!("bytes {range:?} of a block of {} were asked for", block.length)));
        }
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if block.replication == Replication::Coded {
            return Err(self.not_this_way(block, "it is erasure coded"));
        }
        if block.nodes.is_empty() {
            return Err(self.not_this_way(block, "no datanode is named for it"));
        }
        if block.length <= SMALL_BYTES_MAX && range == (0..block.length) {
            let small = self.first(block, |peer| async move { peer.small(block).await }).await;
            if let Some(content) = small.map_err(|unread| unread.error())? {
                return Ok(content);
            }
        }
        let list = self.list(block).await?;
        let read = |peer: Arc<Peer>| {
            let (list, range) = (&list, range.clone());
            async move { peer.read(block, list, range).await }
        };
        self.first(block, read).await.map_err(|unread| unread.error())
    }

    /// Requests sent so far.
    pub(super) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// A block's chunk list, fetched once for all who read it.
    async fn list(&self, block: &Block) -> Result<Arc<ChunkList>> {
        let lists = || self.0.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = lists().get(&block.id, Listed::default);
        let fetch = || async {
            let list = self.first(block, |peer| async move { peer.list(block).await }).await;
            list.map(Arc::new).map_err(Arc::new)
        };
        cell.get_or_init(fetch).await.clone().map_err(|unread| {
            lists().retain(|_, other| !Arc::ptr_eq(other, &cell));
            unread.error()
        })
    }

    /// Asks one replica after the other, until one answers.
    async fn first<T, F>(&self, block: &Block, ask: impl Fn(Arc<Peer>) -> F) -> Result<T, Unread>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut unread = Unread::new(block);
        let mut peers = Vec::with_capacity(block.nodes.len());
        for node in block.nodes.iter() {
            match self.peer(node) {
                Ok(peer) => peers.push(peer),
                Err(fault) => unread.push(&node.host, fault),
            }
        }
        peers.sort_by_key(|peer| peer.failed_lately());
        for peer in peers {
            let began = Instant::now();
            match ask(peer.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(fault) => {
                    tracing::debug!("datanode {}: {}", peer.address, fault.what);
                    if fault.node {
                        peer.blame(began);
                    }
                    unread.push(&peer.address, fault);
                }
            }
        }
        Err(unread)
    }

    fn peer(&self, node: &Node) -> Result<Arc<Peer>, Fault> {
        let mut peers = self.0.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.get(node, || Peer::new(node, &self.0.options, self.0.requests.clone()).map(Arc::new))
    }

    fn not_this_way(&self, block: &Block, why: &str) -> Error {
        let BlockId { container, local, .. } = block.id;
        Error::new(Kind::Unsupported, format!("block {container}/{local} cannot be read from a datanode: {why}"))
            .hint("read it through the S3 Gateway")
    }
}

/// True where the S3 Gateway may still serve what the datanodes did not.
pub(super) fn gateway_may_help(error: &Error) -> bool {
    matches!(error.kind(), Kind::Unsupported | Kind::Unavailable)
}
