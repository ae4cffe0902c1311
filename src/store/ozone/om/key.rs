//! What the Ozone Manager knows of a key.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use super::super::block::{Block, BlockId, Node, Replication};
use super::messages;

/// Erasure coding, of `ReplicationType`.
const ERASURE_CODED: i32 = 4;

/// The name under which a datanode tells the port of its gRPC service.
const DATANODE_PORT: &str = "STANDALONE";

/// The name of the entry in a key's metadata that has its ETag.
const ETAG: &str = "ETag";

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeyKind {
    /// An object.
    File,
    /// A directory of a bucket that has real ones.
    Directory,
}

/// A key, or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyInfo {
    /// Its name in the bucket; that of a directory does not end in `/`. In a snapshot: without `.snapshot/NAME/`.
    pub(crate) name: String,
    /// Bytes of content.
    pub(crate) size: u64,
    /// When it was last written, in milliseconds since 1970.
    pub(crate) mtime_ms: u64,
    /// What it is.
    pub(crate) kind: KeyKind,
    /// Metadata in the order of the server, without the ETag.
    pub(crate) metadata: Vec<(String, String)>,
    /// As S3 would show it, without quotes. None for what was not written over S3.
    pub(crate) etag: Option<String>,
    /// Tags in the order of the server.
    pub(crate) tags: Vec<(String, String)>,
    /// The same for as long as it is renamed and overwritten over S3; 0 where it is not told.
    pub(crate) object_id: u64,
    /// Grows with every change to it; 0 where it is not told.
    pub(crate) update_id: u64,
    /// Its content is encrypted: only a client that holds the key can read it off the datanodes.
    pub(crate) encrypted: bool,
    /// The blocks of its current content in their order. Empty where they were not asked for.
    pub(crate) blocks: Vec<Block>,
}

impl KeyInfo {
    /// `directory` as the answer says apart from the key, for the key's own `isFile` is false of what came as a multipart
    /// upload, too (2.2.0, flat buckets); `under` is cut off the front of the name.
    pub(super) fn read(wire: messages::KeyInfo, directory: bool, under: &str) -> Self {
        let kind = match directory {
            true => KeyKind::Directory,
            false => KeyKind::File,
        };
        let mut name = wire.key;
        if !under.is_empty() && name.starts_with(under) {
            name.drain(..under.len());
        }
        if kind == KeyKind::Directory && name.ends_with('/') {
            name.pop();
        }
        let mut metadata = pairs(wire.metadata);
        let etag = metadata.iter().position(|(name, _)| name == ETAG).map(|at| metadata.remove(at).1);
        let current = wire.versions.into_iter().max_by_key(|list| list.version.unwrap_or(0));
        let coded = wire.replication == ERASURE_CODED;
        let blocks = current.map_or_else(Vec::new, |list| {
            let mut located = list.blocks;
            // Stable, so that blocks which do not tell where they lie keep their order.
            located.sort_by_key(|block| block.offset);
            located.into_iter().map(|location| block(location, coded)).collect()
        });
        Self {
            name,
            size: wire.size,
            mtime_ms: wire.mtime_ms,
            kind,
            metadata,
            etag: etag.map(|etag| etag.trim_matches('"').to_owned()).filter(|etag| !etag.is_empty()),
            tags: pairs(wire.tags),
            object_id: wire.object_id.unwrap_or(0),
            update_id: wire.update_id.unwrap_or(0),
            encrypted: wire.encryption.is_some(),
            blocks,
        }
    }
}

fn pairs(wire: Vec<messages::KeyValue>) -> Vec<(String, String)> {
    wire.into_iter().map(|pair| (pair.key, pair.value.unwrap_or_default())).collect()
}

fn block(location: messages::KeyLocation, coded: bool) -> Block {
    let messages::BlockId { id, sequence } = location.id;
    let pipeline = location.pipeline.unwrap_or_default();
    let coded = coded || pipeline.replication == Some(ERASURE_CODED);
    Block {
        // The protocol's numbers are signed; those of real blocks are not negative.
        id: BlockId { container: id.container as u64, local: id.local as u64, sequence: sequence.unwrap_or(0) },
        length: location.length,
        replication: if coded { Replication::Coded } else { Replication::Whole },
        nodes: nodes(pipeline),
        token: location.token.map(|token| url_safe(&token)),
    }
}

/// The datanodes, the one to ask first in front.
fn nodes(pipeline: messages::Pipeline) -> Arc<[Node]> {
    let messages::Pipeline { members, order, .. } = pipeline;
    let mut left: Vec<_> = members.into_iter().map(|member| Some(node(member))).collect();
    let mut out = Vec::with_capacity(left.len());
    out.extend(order.into_iter().filter_map(|index| left.get_mut(index as usize)?.take()));
    // Where no order is told, or not of all.
    out.extend(left.into_iter().flatten());
    out.into()
}

fn node(wire: messages::Datanode) -> Node {
    let port = wire.ports.iter().find(|port| port.name == DATANODE_PORT);
    let port = port.and_then(|port| u16::try_from(port.number).ok()).unwrap_or(0);
    Node { uuid: wire.uuid.unwrap_or_default(), host: wire.host, ip: wire.ip, port }
}

/// A token as Hadoop writes it into a URL: its four fields, each after its length as a `VInt`, in base64.
fn url_safe(token: &messages::Token) -> Bytes {
    let fields = [&token.identifier[..], &token.password[..], token.kind.as_bytes(), token.service.as_bytes()];
    let mut out = Vec::with_capacity(fields.iter().map(|field| field.len() + 5).sum());
    for field in fields {
        push_vint(&mut out, field.len());
        out.extend_from_slice(field);
    }
    URL_SAFE_NO_PAD.encode(out).into()
}

/// `WritableUtils.writeVInt` for a length: one byte up to 127, else a byte that says how many follow, big-endian.
fn push_vint(out: &mut Vec<u8>, value: usize) {
    if value <= 127 {
        out.push(value as u8);
        return;
    }
    let bytes = (value as u64).to_be_bytes();
    let digits = &bytes[value.leading_zeros() as usize / 8..];
    // -113 stands for one byte, -114 for two, and so on.
    out.push((-112 - digits.len() as i32) as i8 as u8);
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_as_hadoop_writes_them() {
        let vint = |value| {
            let mut out = Vec::new();
            push_vint(&mut out, value);
            out
        };
        assert_eq!(vint(0), [0]);
        assert_eq!(vint(127), [127]);
        assert_eq!(vint(128), [0x8f, 128]);
        assert_eq!(vint(255), [0x8f, 255]);
        assert_eq!(vint(256), [0x8e, 1, 0]);
        assert_eq!(vint(70_000), [0x8d, 1, 0x11, 0x70]);
    }

    #[test]
    fn the_newest_version_and_the_nearest_node() {
        let location = |local, offset| messages::KeyLocation {
            id: messages::BlockId { id: messages::ContainerBlockId { container: 1, local }, sequence: Some(3) },
            offset,
            length: 5,
            pipeline: Some(messages::Pipeline {
                members: ["far", "other", "near"].map(member).to_vec(),
                replication: None,
                order: vec![2, 0, 7],
            }),
            ..Default::default()
        };
        let list = |version, blocks| messages::KeyLocationList { version: Some(version), blocks };
        let wire = messages::KeyInfo {
            key: ".snapshot/one/a/b".into(),
            metadata: vec![
                messages::KeyValue { key: "ETag".into(), value: Some("\"abc\"".into()) },
                messages::KeyValue { key: "colour".into(), value: None },
            ],
            versions: vec![list(1, vec![location(8, 5), location(7, 0)]), list(0, vec![location(1, 0)])],
            ..Default::default()
        };
        let key = KeyInfo::read(wire, false, ".snapshot/one/");
        assert_eq!((key.name.as_str(), key.kind, key.etag.as_deref()), ("a/b", KeyKind::File, Some("abc")));
        assert_eq!(key.metadata, [("colour".to_owned(), String::new())]);
        assert_eq!(key.blocks.iter().map(|block| block.id.local).collect::<Vec<_>>(), [7, 8]);
        let nodes: Vec<_> = key.blocks[0].nodes.iter().map(|node| (node.host.as_str(), node.port)).collect();
        assert_eq!(nodes, [("near", 9859), ("far", 9859), ("other", 9859)]);
    }

    fn member(host: &str) -> messages::Datanode {
        let port = |name: &str, number| messages::Port { name: name.into(), number };
        messages::Datanode {
            host: host.into(),
            ports: vec![port("RATIS", 9858), port("STANDALONE", 9859)],
            ..Default::default()
        }
    }

    #[test]
    fn tokens_travel_in_urls() {
        let token = messages::Token {
            identifier: Bytes::from_static(b"id"),
            password: Bytes::from_static(b"pw"),
            kind: "k".into(),
            service: String::new(),
        };
        assert_eq!(URL_SAFE_NO_PAD.decode(url_safe(&token)).unwrap(), b"\x02id\x02pw\x01k\x00");
    }
}
