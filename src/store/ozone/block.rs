//! Blocks of an object and the datanodes that hold them: what the Ozone Manager tells and a datanode is asked with.

use std::sync::Arc;

use bytes::Bytes;

/// Names one block: never written again once its object is committed, so that equal names mean equal bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId {
    /// The container that it lies in.
    pub container: u64,
    /// Its number, unique in the cluster.
    pub local: u64,
    /// The block commit sequence that a replica must have reached to serve it.
    pub sequence: u64,
}

/// A datanode, as the Ozone Manager names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Its UUID, as text.
    pub uuid: String,
    /// Its host name.
    pub host: String,
    /// Its IP address, as text.
    pub ip: String,
    /// The port of its gRPC service: the one that is named `STANDALONE`. 0 where it names none.
    pub port: u16,
}

/// How a block is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replication {
    /// Every replica has all of it.
    Whole,
    /// Erasure coded: no datanode has all of it.
    Coded,
}

/// A stretch of an object's content, in the order of the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its name.
    pub id: BlockId,
    /// Bytes of content in it.
    pub length: u64,
    /// How it is kept.
    pub replication: Replication,
    /// Where it is: the one to ask first is first. Empty where it was not asked for or is not known.
    pub nodes: Arc<[Node]>,
    /// Proof that we may read it, where the cluster asks for one: a URL-safe string, passed on as it is.
    pub token: Option<Bytes>,
}
