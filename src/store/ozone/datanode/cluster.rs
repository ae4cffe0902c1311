//! Reading from a real cluster: every key of the bucket `SNAPFERRY_TEST_OZONE_BUCKET` (`volume/bucket`) of the Ozone
//! Manager at `SNAPFERRY_TEST_OZONE_GRPC` (`host:port`). Skipped where these are not set.

use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use http::uri::PathAndQuery;
use md5::{Digest, Md5};
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::*;

/// Bytes read at a time, as snapferry does.
const RANGE_BYTES: u64 = 8 << 20;

#[derive(Clone, PartialEq, Message)]
struct Ask {
    #[prost(int32, required, tag = "1")]
    command: i32,
    #[prost(string, required, tag = "3")]
    client: String,
    #[prost(uint32, optional, tag = "5")]
    version: Option<u32>,
    #[prost(message, optional, tag = "35")]
    list_keys: Option<ListKeys>,
    #[prost(message, optional, tag = "111")]
    key_info: Option<GetKeyInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct Answer {
    #[prost(string, optional, tag = "4")]
    message: Option<String>,
    #[prost(int32, required, tag = "5")]
    status: i32,
    #[prost(message, optional, tag = "35")]
    list_keys: Option<ListedKeys>,
    #[prost(message, optional, tag = "111")]
    key_info: Option<GotKeyInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct ListKeys {
    #[prost(string, required, tag = "1")]
    volume: String,
    #[prost(string, required, tag = "2")]
    bucket: String,
    #[prost(string, optional, tag = "4")]
    prefix: Option<String>,
    #[prost(int32, optional, tag = "5")]
    count: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct ListedKeys {
    #[prost(message, repeated, tag = "2")]
    keys: Vec<KeyInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct GetKeyInfo {
    #[prost(message, required, tag = "1")]
    key: KeyArgs,
}

#[derive(Clone, PartialEq, Message)]
struct GotKeyInfo {
    #[prost(message, optional, tag = "1")]
    key: Option<KeyInfo>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyArgs {
    #[prost(string, required, tag = "1")]
    volume: String,
    #[prost(string, required, tag = "2")]
    bucket: String,
    #[prost(string, required, tag = "3")]
    key: String,
    #[prost(bool, optional, tag = "16")]
    latest: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct KeyInfo {
    #[prost(string, required, tag = "3")]
    key: String,
    #[prost(uint64, required, tag = "4")]
    size: u64,
    #[prost(message, repeated, tag = "7")]
    versions: Vec<Locations>,
    #[prost(message, repeated, tag = "11")]
    metadata: Vec<Pair>,
}

#[derive(Clone, PartialEq, Message)]
struct Locations {
    #[prost(message, repeated, tag = "2")]
    blocks: Vec<Location>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(message, required, tag = "1")]
    id: Id,
    #[prost(uint64, required, tag = "4")]
    length: u64,
    #[prost(message, required, tag = "7")]
    pipeline: Pipeline,
}

#[derive(Clone, PartialEq, Message)]
struct Id {
    #[prost(message, required, tag = "1")]
    block: super::wire::BlockName,
    #[prost(uint64, optional, tag = "2")]
    sequence: Option<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct Pipeline {
    #[prost(message, repeated, tag = "1")]
    members: Vec<Member>,
}

#[derive(Clone, PartialEq, Message)]
struct Member {
    #[prost(string, optional, tag = "1")]
    uuid: Option<String>,
    #[prost(string, required, tag = "2")]
    ip: String,
    #[prost(string, required, tag = "3")]
    host: String,
    #[prost(message, repeated, tag = "4")]
    ports: Vec<Port>,
}

#[derive(Clone, PartialEq, Message)]
struct Port {
    #[prost(string, required, tag = "1")]
    name: String,
    #[prost(uint32, required, tag = "2")]
    value: u32,
}

#[derive(Clone, PartialEq, Message)]
struct Pair {
    #[prost(string, required, tag = "1")]
    key: String,
    #[prost(string, optional, tag = "2")]
    value: Option<String>,
}

/// A bucket of the cluster under test.
#[derive(Clone)]
struct Bucket {
    channel: Channel,
    volume: String,
    bucket: String,
}

impl Bucket {
    fn from_environment() -> Option<Self> {
        let (Ok(manager), Ok(bucket)) =
            (std::env::var("SNAPFERRY_TEST_OZONE_GRPC"), std::env::var("SNAPFERRY_TEST_OZONE_BUCKET"))
        else {
            eprintln!("skipped: SNAPFERRY_TEST_OZONE_GRPC and SNAPFERRY_TEST_OZONE_BUCKET are not set");
            return None;
        };
        let (volume, bucket) = bucket.split_once('/').expect("volume/bucket");
        let channel = Endpoint::from_shared(format!("http://{manager}")).unwrap().connect_lazy();
        Some(Self { channel, volume: volume.into(), bucket: bucket.into() })
    }

    async fn ask(&self, ask: Ask) -> Answer {
        let mut client = Grpc::new(self.channel.clone());
        client.ready().await.unwrap();
        let path = PathAndQuery::from_static("/hadoop.ozone.OzoneManagerService/submitRequest");
        let ask = tonic::Request::new(Ask { client: "test".into(), version: Some(3), ..ask });
        let answer: Answer = client.unary(ask, path, ProstCodec::<Ask, Answer>::default()).await.unwrap().into_inner();
        assert_eq!(answer.status, 1, "{:?}", answer.message);
        answer
    }

    async fn keys(&self, prefix: &str) -> Vec<String> {
        let (volume, bucket) = (self.volume.clone(), self.bucket.clone());
        let list_keys = Some(ListKeys { volume, bucket, prefix: Some(prefix.into()), count: Some(1000) });
        let answer = self.ask(Ask { command: 35, list_keys, ..Ask::default() }).await;
        answer.list_keys.unwrap().keys.into_iter().map(|key| key.key).collect()
    }

    /// A key's blocks and, where it has one, the MD5 of its content.
    async fn blocks(&self, key: String) -> (Vec<Block>, Option<String>) {
        let key = KeyArgs { volume: self.volume.clone(), bucket: self.bucket.clone(), key, latest: Some(true) };
        let answer = self.ask(Ask { command: 111, key_info: Some(GetKeyInfo { key }), ..Ask::default() }).await;
        let info = answer.key_info.unwrap().key.unwrap();
        let md5 = info.metadata.into_iter().find(|pair| pair.key == "ETag").and_then(|pair| pair.value);
        let blocks: Vec<_> =
            info.versions.into_iter().next_back().into_iter().flat_map(|it| it.blocks).map(block).collect();
        assert_eq!(blocks.iter().map(|block| block.length).sum::<u64>(), info.size);
        (blocks, md5)
    }
}

fn block(Location { id, length, pipeline }: Location) -> Block {
    let node = |Member { uuid, ip, host, ports }| {
        let port = ports.iter().find(|port: &&Port| port.name == "STANDALONE").map_or(0, |port| port.value as u16);
        Node { uuid: uuid.unwrap(), host, ip, port }
    };
    Block {
        id: BlockId { container: id.block.container, local: id.block.local, sequence: id.sequence.unwrap_or(0) },
        length,
        replication: Replication::Whole,
        nodes: pipeline.members.into_iter().map(node).collect(),
        token: None,
    }
}

fn ranges(block: &Block) -> impl Iterator<Item = Range<u64>> {
    let length = block.length;
    (0..length).step_by(RANGE_BYTES as usize).map(move |start| start..length.min(start + RANGE_BYTES))
}

#[tokio::test]
async fn every_key_reads_as_it_was_written() {
    let Some(bucket) = Bucket::from_environment() else { return };
    let datanodes = Datanodes::new(DatanodeOptions::default());
    let keys = bucket.keys("").await;
    assert!(!keys.is_empty(), "the bucket is empty");
    let mut known = None;
    for key in keys {
        let (blocks, md5) = bucket.blocks(key.clone()).await;
        let mut found = Md5::new();
        let before = datanodes.requests();
        for block in &blocks {
            let parts = stream::iter(ranges(block).collect::<Vec<_>>()).map(|range| datanodes.read(block, range));
            let parts: Vec<Bytes> = parts.buffered(8).try_collect().await.unwrap();
            let whole = parts.concat();
            // Cut inside windows and chunks.
            for range in [block.length / 3..block.length / 3 * 2 + 1, block.length - 1..block.length] {
                let content = datanodes.read(block, range.clone()).await.unwrap();
                assert!(content == whole[range.start as usize..range.end as usize], "{key} {range:?}");
            }
            found.update(&whole);
        }
        if let Some(md5) = &md5
            && !md5.contains('-')
        {
            assert_eq!(&hex::encode(found.finalize()), md5, "{key}");
        }
        known = blocks.last().cloned().or(known);
        let size: u64 = blocks.iter().map(|block| block.length).sum();
        eprintln!(
            "{key}: {size} bytes, {} blocks, {} requests, MD5 {md5:?}",
            blocks.len(),
            datanodes.requests() - before
        );
    }
    // What is not there is said to be so.
    let block = known.expect("some key has content");
    let id = block.id;
    for (id, kind) in [
        (BlockId { local: 1, ..id }, Kind::NotFound),
        (BlockId { container: 999_999, ..id }, Kind::NotFound),
        (BlockId { sequence: id.sequence + 1_000_000, ..id }, Kind::Unavailable),
    ] {
        let error = datanodes.read(&Block { id, ..block.clone() }, 0..1).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        eprintln!("{error}");
    }
}

/// Seconds of processor time that this process has taken.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11..13].iter().map(|ticks| ticks.parse::<f64>().unwrap() / 100.0).sum()
}

/// `SNAPFERRY_TEST_OZONE_PREFIX` picks the keys, `SNAPFERRY_TEST_OZONE_CONNECTIONS` the connections to a node.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_fast() {
    let Some(bucket) = Bucket::from_environment() else { return };
    let prefix = std::env::var("SNAPFERRY_TEST_OZONE_PREFIX").unwrap_or_default();
    let connections = std::env::var("SNAPFERRY_TEST_OZONE_CONNECTIONS").map_or(1, |count| count.parse().unwrap());
    let mut work = Vec::new();
    for key in bucket.keys(&prefix).await {
        for block in bucket.blocks(key).await.0 {
            work.extend(ranges(&block).map(|range| (block.clone(), range)));
        }
    }
    for _ in 0..7 {
        // New each time, so that nothing is remembered.
        let datanodes = Datanodes::new(DatanodeOptions { connections, ..DatanodeOptions::default() });
        let (began, processor) = (Instant::now(), processor_seconds());
        let reads = stream::iter(work.clone()).map(|(block, range)| {
            let datanodes = datanodes.clone();
            tokio::spawn(async move { datanodes.read(&block, range).await.unwrap().len() })
        });
        let bytes: usize = reads.buffer_unordered(16).try_fold(0, async |sum, length| Ok(sum + length)).await.unwrap();
        let seconds = began.elapsed().as_secs_f64();
        eprintln!(
            "{:.0} MiB/s, {:.0} reads/s, {} requests, {:.2} s of processor, {seconds:.2} s",
            bytes as f64 / f64::from(1 << 20) / seconds,
            work.len() as f64 / seconds,
            datanodes.requests(),
            processor_seconds() - processor,
        );
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    eprintln!("peak memory: {:?}", status.lines().find(|line| line.starts_with("VmHWM")));
}
