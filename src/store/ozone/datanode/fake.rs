//! A datanode on a loopback port that serves one block, well or badly.

use std::collections::HashMap;
use std::convert::Infallible;

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, checksum};
use futures::StreamExt;
use futures::future::{self, BoxFuture, Ready};
use futures::stream::BoxStream;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, StreamingService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use super::wire::{
    BlockData, BlockName, Buffers, ChecksumData, ChunkInfo, Content, GotBlock, GotSmallFile, PATH, Request, Response,
};
use crate::store::ozone::block::{Block, BlockId, Node, Replication};

/// How a datanode behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mood {
    Good,
    /// Answers so many requests, then nothing more, and keeps the stream open.
    Stalls(usize),
    /// Answers so many requests, then ends the stream.
    Ends(usize),
    /// The last byte of what it serves is wrong.
    Flips,
    /// The last byte of what it serves is missing.
    Cuts,
    /// Serves another stretch than was asked for, and says so.
    Strays,
    /// Refuses with this result.
    Refuses(i32),
}

/// A block's content, and how it was written.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) data: Vec<u8>,
    pub(super) chunks: Vec<ChunkInfo>,
}

impl Stored {
    /// Content in chunks of these lengths, with sums of this type over windows.
    pub(super) fn new(lengths: &[usize], window: usize, kind: i32) -> Self {
        let data: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|at| (at * 31 + at / 251) as u8).collect();
        let mut offset = 0;
        let chunk = |length: &usize| {
            let content = &data[offset..offset + length];
            let name = format!("chunk_{offset}");
            let begin = offset as u64;
            offset += length;
            ChunkInfo { name, offset: begin, length: *length as u64, checksums: checksums(content, window, kind) }
        };
        let chunks = lengths.iter().map(chunk).collect();
        Self { data, chunks }
    }

    /// The block as its readers know it, on these datanodes.
    pub(super) fn block(&self, nodes: &[&Fake]) -> Block {
        Block {
            id: BlockId { container: 7, local: 1001, sequence: 5 },
            length: self.data.len() as u64,
            replication: Replication::Whole,
            nodes: nodes.iter().map(|fake| fake.node.clone()).collect(),
            token: None,
        }
    }
}

/// The sums of a chunk as a writer makes them.
pub(super) fn checksums(content: &[u8], window: usize, kind: i32) -> ChecksumData {
    let algorithm = if kind == 2 { CrcAlgorithm::Crc32IsoHdlc } else { CrcAlgorithm::Crc32Iscsi };
    let sum = |window: &[u8]| Bytes::copy_from_slice(&(checksum(algorithm, window) as u32).to_be_bytes());
    let sums = if kind == 1 { Vec::new() } else { content.chunks(window).map(sum).collect() };
    ChecksumData { kind, window: window as u32, sums }
}

/// A running datanode; what it was asked is kept.
#[derive(Debug)]
pub(super) struct Fake {
    pub(super) node: Node,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Fake {
    pub(super) fn start(stored: &Stored, mood: Mood) -> Self {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = incoming.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let handler = Handler { stored: Arc::new(stored.clone()), mood, asked: asked.clone() };
        tokio::spawn(Server::builder().serve_with_incoming(handler, incoming));
        Self { node: node(port), asked }
    }

    /// A datanode at whose address nobody listens.
    pub(super) fn dead() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Self { node: node(listener.local_addr().unwrap().port()), asked: Arc::default() }
    }

    /// How often each command was asked for.
    pub(super) fn commands(&self) -> HashMap<i32, usize> {
        let mut commands = HashMap::new();
        for request in self.asked.lock().unwrap().iter() {
            *commands.entry(request.command).or_default() += 1;
        }
        commands
    }

    pub(super) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.node.port)
    }
}

fn node(port: u16) -> Node {
    Node { uuid: format!("uuid-{port}"), host: "localhost".into(), ip: "127.0.0.1".into(), port }
}

#[derive(Clone)]
struct Handler {
    stored: Arc<Stored>,
    mood: Mood,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Handler {
    fn answer(&self, request: Request) -> Response {
        self.asked.lock().unwrap().push(request.clone());
        let mut response = Response { command: request.command, result: 1, ..Response::default() };
        if let Mood::Refuses(result) = self.mood {
            return Response { result, message: Some("so it is".into()), ..response };
        }
        let Stored { data, chunks } = &*self.stored;
        match request {
            Request { get_block: Some(_), .. } => {
                let block = BlockData { block: BlockName::default(), chunks: chunks.clone() };
                response.get_block = Some(GotBlock { block });
            }
            Request { read_chunk: Some(read), .. } => {
                let begin = read.chunk.offset as usize;
                let content = &data[begin..begin + read.chunk.length as usize];
                response.read_chunk = Some(self.content(content, read.chunk));
            }
            Request { get_small_file: Some(_), .. } => {
                // All content, but the last chunk's description, as the real one does.
                let content = self.content(data, chunks[chunks.len() - 1].clone());
                response.get_small_file = Some(GotSmallFile { content });
            }
            _ => response.result = 2,
        }
        response
    }

    fn content(&self, content: &[u8], mut chunk: ChunkInfo) -> Content {
        let mut content = content.to_vec();
        match self.mood {
            Mood::Flips => *content.last_mut().unwrap() ^= 1,
            Mood::Cuts => drop(content.pop()),
            Mood::Strays => chunk.offset += 1,
            _ => {}
        }
        let buffers = content.chunks(1000).map(Bytes::copy_from_slice).collect();
        Content { block: BlockName::default(), chunk, data: None, buffers: Some(Buffers { buffers }) }
    }
}

impl Service<http::Request<Body>> for Handler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), PATH);
        let handler = self.clone();
        Box::pin(async move {
            let codec = ProstCodec::<Response, Request>::default();
            Ok(Grpc::new(codec).max_decoding_message_size(64 << 20).streaming(handler, request).await)
        })
    }
}

impl StreamingService<Request> for Handler {
    type Response = Response;
    type ResponseStream = BoxStream<'static, Result<Response, Status>>;
    type Future = Ready<Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<Request>>) -> Self::Future {
        let handler = self.clone();
        let mood = self.mood;
        let answers = request.into_inner().map(move |request| Ok(handler.answer(request?)));
        // The request that gets no answer is taken all the same.
        let until = |after| {
            answers
                .enumerate()
                .take(after + 1)
                .filter_map(move |(index, answer)| future::ready((index < after).then_some(answer)))
        };
        let answers = match mood {
            Mood::Stalls(after) => until(after).chain(futures::stream::pending()).boxed(),
            Mood::Ends(after) => until(after).boxed(),
            _ => until(usize::MAX - 1).boxed(),
        };
        future::ready(Ok(tonic::Response::new(answers)))
    }
}
