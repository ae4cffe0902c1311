//! The messages of the datanodes' gRPC service that reading needs (`DatanodeClientProtocol.proto`, Ozone 2.2).

use bytes::Bytes;
use prost::Message;

use crate::store::ozone::block::{Block, BlockId};

/// Where requests go; the stream is open both ways, and answers come in the order of the requests.
pub(super) const PATH: &str = "/hadoop.hdds.datanode.XceiverClientProtocolService/send";

/// `ReadChunkVersion` V1: content comes in the buffers in which it was read, not copied into one.
const BUFFERS: i32 = 1;

const GET_BLOCK: i32 = 7;
const READ_CHUNK: i32 = 10;
const GET_SMALL_FILE: i32 = 16;

/// `ContainerCommandRequestProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Request {
    #[prost(int32, required, tag = "1")]
    pub(super) command: i32,
    #[prost(uint64, required, tag = "3")]
    pub(super) container: u64,
    #[prost(string, required, tag = "4")]
    pub(super) node: String,
    #[prost(message, optional, tag = "13")]
    pub(super) get_block: Option<GetBlock>,
    #[prost(message, optional, tag = "16")]
    pub(super) read_chunk: Option<ReadChunk>,
    #[prost(message, optional, tag = "21")]
    pub(super) get_small_file: Option<GetSmallFile>,
    /// A string there; the bytes on the wire are the same.
    #[prost(bytes = "bytes", optional, tag = "23")]
    pub(super) token: Option<Bytes>,
}

impl Request {
    /// Asks for the list of a block's chunks.
    pub(super) fn get_block(block: &Block, node: &str) -> Self {
        Self { get_block: Some(GetBlock { block: block.id.into() }), ..Self::about(GET_BLOCK, block, node) }
    }

    /// Asks for (a part of) a chunk.
    pub(super) fn read_chunk(block: &Block, node: &str, chunk: ChunkInfo) -> Self {
        let read_chunk = Some(ReadChunk { block: block.id.into(), chunk, version: Some(BUFFERS) });
        Self { read_chunk, ..Self::about(READ_CHUNK, block, node) }
    }

    /// Asks for all of a block.
    pub(super) fn get_small_file(block: &Block, node: &str) -> Self {
        let get_small_file = Some(GetSmallFile { block: GetBlock { block: block.id.into() }, version: Some(BUFFERS) });
        Self { get_small_file, ..Self::about(GET_SMALL_FILE, block, node) }
    }

    fn about(command: i32, block: &Block, node: &str) -> Self {
        let (container, node, token) = (block.id.container, node.to_owned(), block.token.clone());
        Self { command, container, node, token, ..Self::default() }
    }
}

/// `ContainerCommandResponseProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Response {
    #[prost(int32, required, tag = "1")]
    pub(super) command: i32,
    #[prost(int32, required, tag = "3")]
    pub(super) result: i32,
    #[prost(string, optional, tag = "4")]
    pub(super) message: Option<String>,
    #[prost(message, optional, tag = "12")]
    pub(super) get_block: Option<GotBlock>,
    #[prost(message, optional, tag = "16")]
    pub(super) read_chunk: Option<Content>,
    #[prost(message, optional, tag = "20")]
    pub(super) get_small_file: Option<GotSmallFile>,
}

/// `DatanodeBlockID`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BlockName {
    #[prost(uint64, required, tag = "1")]
    pub(super) container: u64,
    #[prost(uint64, required, tag = "2")]
    pub(super) local: u64,
    #[prost(uint64, optional, tag = "3")]
    pub(super) sequence: Option<u64>,
}

impl From<BlockId> for BlockName {
    fn from(id: BlockId) -> Self {
        Self { container: id.container, local: id.local, sequence: Some(id.sequence) }
    }
}

/// `GetBlockRequestProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetBlock {
    #[prost(message, required, tag = "1")]
    pub(super) block: BlockName,
}

/// `GetBlockResponseProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GotBlock {
    #[prost(message, required, tag = "1")]
    pub(super) block: BlockData,
}

/// `BlockData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct BlockData {
    #[prost(message, required, tag = "1")]
    pub(super) block: BlockName,
    #[prost(message, repeated, tag = "4")]
    pub(super) chunks: Vec<ChunkInfo>,
}

/// `ChunkInfo`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ChunkInfo {
    #[prost(string, required, tag = "1")]
    pub(super) name: String,
    #[prost(uint64, required, tag = "2")]
    pub(super) offset: u64,
    #[prost(uint64, required, tag = "3")]
    pub(super) length: u64,
    #[prost(message, required, tag = "5")]
    pub(super) checksums: ChecksumData,
}

/// `ChecksumData`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ChecksumData {
    #[prost(int32, required, tag = "1")]
    pub(super) kind: i32,
    #[prost(uint32, required, tag = "2")]
    pub(super) window: u32,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    pub(super) sums: Vec<Bytes>,
}

/// `ReadChunkRequestProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ReadChunk {
    #[prost(message, required, tag = "1")]
    pub(super) block: BlockName,
    #[prost(message, required, tag = "2")]
    pub(super) chunk: ChunkInfo,
    #[prost(int32, optional, tag = "3")]
    pub(super) version: Option<i32>,
}

/// `ReadChunkResponseProto`: content in one piece or in buffers.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Content {
    #[prost(message, required, tag = "1")]
    pub(super) block: BlockName,
    #[prost(message, required, tag = "2")]
    pub(super) chunk: ChunkInfo,
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub(super) data: Option<Bytes>,
    #[prost(message, optional, tag = "4")]
    pub(super) buffers: Option<Buffers>,
}

/// `DataBuffers`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Buffers {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub(super) buffers: Vec<Bytes>,
}

/// `GetSmallFileRequestProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GetSmallFile {
    #[prost(message, required, tag = "1")]
    pub(super) block: GetBlock,
    #[prost(int32, optional, tag = "2")]
    pub(super) version: Option<i32>,
}

/// `GetSmallFileResponseProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct GotSmallFile {
    #[prost(message, required, tag = "1")]
    pub(super) content: Content,
}
