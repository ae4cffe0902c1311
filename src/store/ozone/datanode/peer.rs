//! One datanode: its connections, and what it is asked.

use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::channel::mpsc::unbounded;
use futures::future::BoxFuture;
use futures::{Stream, StreamExt};
use http::uri::PathAndQuery;
use http_body_util::BodyExt;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::DatanodeOptions;
use super::chunks::{CHUNK_BYTES_MAX, ChunkList, Stretch};
use super::content::{Part, into_pieces};
use super::fault::{Fault, succeeded};
use super::sums::Sums;
use super::wire::{Content, PATH, Request, Response};
use crate::error::Kind;
use crate::store::ozone::block::{Block, Node};

/// Chunks asked for ahead, for each read.
const AHEAD: usize = 2;

/// How long a node that failed is asked after the others.
const DISTRUST: Duration = Duration::from_secs(60);

/// Flow control: what a stream, and a connection, may have under way. The default of 64 KiB is a round trip each.
const STREAM_WINDOW_BYTES: u32 = 8 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 32 << 20;

/// The largest chunk, and room for what is around it.
const MESSAGE_BYTES_MAX: usize = CHUNK_BYTES_MAX as usize + (1 << 20);

/// How long the end of a stream is waited for when all its answers are there.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// A datanode that is, or was, talked to. Connections are made when they are needed.
#[derive(Debug)]
pub(super) struct Peer {
    /// Its name in what is sent.
    uuid: String,
    /// Host and port.
    pub(super) address: String,
    endpoint: Endpoint,
    channels: Mutex<Vec<Channel>>,
    next: AtomicUsize,
    /// When it failed last.
    failed: Mutex<Option<Instant>>,
    chunks: Arc<Semaphore>,
    stall: Duration,
    requests: Arc<AtomicU64>,
}

impl Peer {
    /// `Unsupported` where the node names no port for this service, or no address that can be one.
    pub(super) fn new(node: &Node, options: &DatanodeOptions, requests: Arc<AtomicU64>) -> Result<Self, Fault> {
        let host = if node.ip.is_empty() { &node.host } else { &node.ip };
        let address =
            if host.contains(':') { format!("[{host}]:{}", node.port) } else { format!("{host}:{}", node.port) };
        if node.port == 0 {
            return Err(Fault::new(Kind::Unsupported, "the datanode names no port of its gRPC service"));
        }
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Fault::new(Kind::Unsupported, format!("no address of a datanode: {error}")))?
            .connect_timeout(options.connect)
            .tcp_nodelay(true)
            .tcp_keepalive(Some(Duration::from_secs(60)))
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channels = (0..options.connections.max(1)).map(|_| endpoint.connect_lazy()).collect();
        Ok(Self {
            uuid: node.uuid.clone(),
            address,
            endpoint,
            channels: Mutex::new(channels),
            next: AtomicUsize::new(0),
            failed: Mutex::new(None),
            chunks: Arc::new(Semaphore::new(options.chunks.max(AHEAD))),
            stall: options.stall,
            requests,
        })
    }

    /// True if it failed a short while ago.
    pub(super) fn failed_lately(&self) -> bool {
        let failed = *self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        failed.is_some_and(|failed| failed.elapsed() < DISTRUST)
    }

    /// Remembers that the node failed a request that began then, and leaves its connections to whoever still waits on
    /// them: one that stalls would stall the next request too.
    pub(super) fn blame(&self, began: Instant) {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.is_none_or(|failed| failed < began) {
            let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.fill_with(|| self.endpoint.connect_lazy());
        }
        *failed = Some(Instant::now());
    }

    /// A whole block in one request; none if it is in several chunks, whose sums do not come along.
    pub(super) async fn small(&self, block: &Block) -> Result<Option<Bytes>, Fault> {
        let _permit = self.chunks.acquire().await;
        let response = self.once(Request::get_small_file(block, &self.uuid)).await?;
        let Some(Content { chunk, data, buffers, .. }) = response.get_small_file.map(|got| got.content) else {
            return Err(Fault::nonsense("no content"));
        };
        if chunk.offset != 0 || chunk.length < block.length {
            return Ok(None);
        }
        let sums = Sums::new(chunk.length, &chunk.checksums)?.map(Arc::new);
        let part = Part { offset: 0, length: chunk.length, sums, wanted: 0..block.length as usize };
        let pieces = into_pieces(data, buffers);
        if let [whole] = &pieces[..] {
            part.check(&pieces)?;
            return Ok(Some(whole.slice(part.wanted)));
        }
        let target = BytesMut::with_capacity(block.length as usize);
        Ok(Some(part.append(target, pieces).await?.freeze()))
    }

    /// The list of a block's chunks.
    pub(super) async fn list(&self, block: &Block) -> Result<ChunkList, Fault> {
        let response = self.once(Request::get_block(block, &self.uuid)).await?;
        let got = response.get_block.ok_or_else(|| Fault::nonsense("no list of chunks"))?;
        ChunkList::new(block.length, got.block.chunks)
    }

    /// A range of a block, in bytes from where it begins.
    pub(super) async fn read(&self, block: &Block, list: &ChunkList, range: Range<u64>) -> Result<Bytes, Fault> {
        let length = (range.end - range.start) as usize;
        let stretches: Vec<Stretch<'_>> = list.stretches(range).collect();
        let _permits = self.chunks.acquire_many(AHEAD.min(stretches.len()) as u32).await;
        let mut target = BytesMut::with_capacity(length);
        let (requests, asked) = unbounded();
        for stretch in stretches.iter().take(AHEAD) {
            let _ = requests.unbounded_send(Request::read_chunk(block, &self.uuid, stretch.info()));
        }
        let mut answers = self.open(asked).await?;
        for (index, stretch) in stretches.iter().enumerate() {
            let response = answers.next().await?;
            match stretches.get(index + AHEAD) {
                // Where nobody takes the request any more the next answer says why.
                Some(next) => drop(requests.unbounded_send(Request::read_chunk(block, &self.uuid, next.info()))),
                None => requests.close_channel(),
            }
            let content = response.read_chunk.ok_or_else(|| Fault::nonsense("no content"))?;
            let info = stretch.info();
            if (content.chunk.offset, content.chunk.length) != (info.offset, info.length) {
                return Err(Fault::nonsense("another stretch of the block than was asked for"));
            }
            let Stretch { chunk, asked, wanted } = stretch;
            let part =
                Part { offset: asked.start, length: info.length, sums: chunk.sums.clone(), wanted: wanted.clone() };
            target = part.append(target, into_pieces(content.data, content.buffers)).await?;
        }
        answers.end().await;
        Ok(target.freeze())
    }

    /// One request, one answer.
    async fn once(&self, request: Request) -> Result<Response, Fault> {
        let mut answers = self.open(futures::stream::iter([request])).await?;
        let response = answers.next().await?;
        answers.end().await;
        Ok(response)
    }

    /// Opens a stream of requests; the first must be there already, for the datanode says nothing before.
    async fn open(&self, requests: impl Stream<Item = Request> + Send + 'static) -> Result<Answers, Fault> {
        let channel = {
            let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels[self.next.fetch_add(1, Ordering::Relaxed) % channels.len()].clone()
        };
        let moved = Arc::new(AtomicU64::new(0));
        let counter = self.requests.clone();
        let requests = requests.inspect(move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut client =
            Grpc::new(Watched { channel, moved: moved.clone() }).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let open = async {
            client.ready().await.map_err(|error| Fault::from(Status::from_error(error.into())))?;
            let codec = ProstCodec::<Request, Response>::default();
            let answer = client.streaming(tonic::Request::new(requests), PathAndQuery::from_static(PATH), codec).await;
            Ok(answer.map_err(Fault::from)?.into_inner())
        };
        let stream = moving(open, &moved, self.stall).await?;
        Ok(Answers { stream, moved, stall: self.stall })
    }
}

/// What a datanode answers, in the order of the requests.
struct Answers {
    stream: Streaming<Response>,
    moved: Arc<AtomicU64>,
    stall: Duration,
}

impl Answers {
    /// The next one, if it is a good one.
    async fn next(&mut self) -> Result<Response, Fault> {
        let next = async { self.stream.message().await.map_err(Fault::from) };
        match moving(next, &self.moved, self.stall).await? {
            Some(response) => succeeded(response),
            None => Err(Fault::lost("the datanode ended the stream")),
        }
    }

    /// Waits for the stream to end by itself, for a datanode may take a client that breaks off many for an attacker.
    /// What was read stands, whatever the end says.
    async fn end(mut self) {
        let _ = tokio::time::timeout(END_TIMEOUT, self.stream.message()).await;
    }
}

/// Waits for as long as something moves; gives up when nothing does for `stall` (noticed within twice that).
async fn moving<T>(
    work: impl Future<Output = Result<T, Fault>>,
    moved: &AtomicU64,
    stall: Duration,
) -> Result<T, Fault> {
    let mut work = pin!(work);
    let mut seen = moved.load(Ordering::Relaxed);
    loop {
        if let Ok(outcome) = tokio::time::timeout(stall, &mut work).await {
            return outcome;
        }
        let now = moved.load(Ordering::Relaxed);
        if now == seen {
            return Err(Fault::lost(format!("nothing came for {stall:?}")));
        }
        seen = now;
    }
}

/// A connection that counts the pieces that come over it.
struct Watched {
    channel: Channel,
    moved: Arc<AtomicU64>,
}

impl Service<http::Request<Body>> for Watched {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (answer, moved) = (self.channel.call(request), self.moved.clone());
        Box::pin(async move {
            let answer = answer.await?;
            Ok(answer.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    moved.fetch_add(1, Ordering::Relaxed);
                    frame
                }))
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn slow_is_not_stalled() {
        let (stall, moved) = (Duration::from_millis(100), AtomicU64::new(0));
        let slow = async {
            for _ in 0..20 {
                tokio::time::sleep(stall / 4).await;
                moved.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        moving(slow, &moved, stall).await.unwrap();
        let fault = moving(std::future::pending::<Result<(), _>>(), &moved, stall).await.unwrap_err();
        assert!(fault.node && fault.kind == Kind::Unavailable, "{}", fault.what);
    }
}
