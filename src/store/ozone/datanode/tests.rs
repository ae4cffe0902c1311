//! Reading from datanodes that behave well and badly.

use futures::future::join_all;

use super::fake::{Fake, Mood, Stored};
use super::*;

const CRC32: i32 = 2;
const CRC32C: i32 = 3;

/// What is asked for in the order of the protocol's numbers.
const GET_BLOCK: i32 = 7;
const READ_CHUNK: i32 = 10;
const GET_SMALL_FILE: i32 = 16;

fn datanodes() -> Datanodes {
    Datanodes::new(DatanodeOptions::default())
}

/// Datanodes that are given up soon: still late enough for a good one on a busy machine.
fn hasty() -> Datanodes {
    Datanodes::new(DatanodeOptions { stall: Duration::from_secs(1), ..DatanodeOptions::default() })
}

/// A block that is too large for one request.
fn large() -> Stored {
    Stored::new(&[1 << 20, 3 << 20, 100_000, 1 << 20, 77], 16 << 10, CRC32C)
}

fn small() -> Stored {
    Stored::new(&[70_001], 16 << 10, CRC32)
}

/// Both ways to read: a whole block in one request, and what is not whole by its list of chunks.
fn both_ways() -> [(Stored, Range<u64>); 2] {
    [(small(), 0..70_001), (Stored::new(&[20_000, 30_000, 999, 10_000, 1], 4096, CRC32C), 1..61_000)]
}

async fn read_all(datanodes: &Datanodes, block: &Block) -> Result<Bytes> {
    datanodes.read(block, 0..block.length).await
}

#[tokio::test]
async fn ranges_of_a_large_block() {
    let stored = large();
    let fake = Fake::start(&stored, Mood::Good);
    let (datanodes, block) = (datanodes(), stored.block(&[&fake]));
    let end = block.length;
    let chunk = 1 << 20;
    for range in [0..end, 0..1, end - 1..end, chunk - 1..chunk + 1, chunk..4 * chunk, 5..end - 5, 9..9, end..end] {
        let content = datanodes.read(&block, range.clone()).await.unwrap();
        assert!(content == stored.data[range.start as usize..range.end as usize], "{range:?}");
    }
    assert_eq!(fake.commands()[&GET_BLOCK], 1, "the list is remembered");
    assert_eq!(datanodes.requests(), fake.asked().len() as u64);
    let range = std::ops::Range { start: 2, end: 1 };
    assert_eq!(datanodes.read(&block, range).await.unwrap_err().kind(), Kind::Internal);
    assert_eq!(datanodes.read(&block, 0..end + 1).await.unwrap_err().kind(), Kind::Internal);
}

#[tokio::test]
async fn readers_of_one_block_share_its_list() {
    let stored = large();
    let fake = Fake::start(&stored, Mood::Good);
    let (datanodes, block) = (datanodes(), stored.block(&[&fake]));
    let readers = (0..8).map(|_| {
        let (datanodes, block) = (datanodes.clone(), block.clone());
        tokio::spawn(async move { read_all(&datanodes, &block).await.unwrap() })
    });
    for content in join_all(readers).await {
        assert!(content.unwrap() == stored.data);
    }
    assert_eq!(fake.commands(), [(GET_BLOCK, 1), (READ_CHUNK, 8 * 5)].into());
}

#[tokio::test]
async fn readers_wait_for_their_turn_at_a_datanode() {
    let stored = large();
    let fake = Fake::start(&stored, Mood::Good);
    let datanodes = Datanodes::new(DatanodeOptions { chunks: 1, lists: 1, connections: 3, ..Default::default() });
    let block = stored.block(&[&fake]);
    for content in join_all((0..8).map(|_| read_all(&datanodes, &block))).await {
        assert!(content.unwrap() == stored.data);
    }
}

#[tokio::test]
async fn a_small_block_is_one_request() {
    for kind in [1, CRC32, CRC32C] {
        for length in [1, 999, 70_001] {
            let stored = Stored::new(&[length], 16 << 10, kind);
            let fake = Fake::start(&stored, Mood::Good);
            let content = read_all(&datanodes(), &stored.block(&[&fake])).await.unwrap();
            assert!(content == stored.data);
            assert_eq!(fake.commands(), [(GET_SMALL_FILE, 1)].into());
        }
    }
}

#[tokio::test]
async fn a_small_block_of_several_chunks() {
    let stored = Stored::new(&[5000, 5000, 3], 1024, CRC32);
    let fake = Fake::start(&stored, Mood::Good);
    assert!(read_all(&datanodes(), &stored.block(&[&fake])).await.unwrap() == stored.data);
    assert_eq!(fake.commands(), [(GET_SMALL_FILE, 1), (GET_BLOCK, 1), (READ_CHUNK, 3)].into());
}

#[tokio::test]
async fn a_block_committed_shorter_than_it_was_written() {
    for stored in [small(), large()] {
        let fake = Fake::start(&stored, Mood::Good);
        let block = Block { length: stored.data.len() as u64 - 40, ..stored.block(&[&fake]) };
        assert!(read_all(&datanodes(), &block).await.unwrap() == stored.data[..block.length as usize]);
    }
}

#[tokio::test]
async fn another_replica_makes_up_for_a_bad_one() {
    let bad = [
        Mood::Flips,
        Mood::Cuts,
        Mood::Strays,
        Mood::Stalls(0),
        Mood::Stalls(1),
        Mood::Stalls(3),
        Mood::Ends(0),
        Mood::Ends(2),
        Mood::Refuses(37),
        Mood::Refuses(12),
        Mood::Refuses(9),
        Mood::Refuses(41),
        Mood::Refuses(10),
    ];
    for (stored, range) in both_ways() {
        let expected = &stored.data[range.start as usize..range.end as usize];
        let reads = bad.map(async |mood| {
            let (first, second) = (Fake::start(&stored, mood), Fake::start(&stored, Mood::Good));
            let content = hasty().read(&stored.block(&[&first, &second]), range.clone()).await;
            assert!(content.unwrap() == expected, "{mood:?}");
            assert!(!first.asked().is_empty(), "{mood:?}");
        });
        join_all(reads).await;
        let (dead, second) = (Fake::dead(), Fake::start(&stored, Mood::Good));
        let content = datanodes().read(&stored.block(&[&dead, &second]), range.clone()).await;
        assert!(content.unwrap() == expected);
    }
}

#[tokio::test]
async fn errors_name_every_replica_and_the_way_out() {
    let cases = [
        (Mood::Flips, Mood::Cuts, Kind::Damaged, false),
        (Mood::Flips, Mood::Refuses(12), Kind::Damaged, false),
        (Mood::Flips, Mood::Stalls(0), Kind::Unavailable, true),
        (Mood::Refuses(9), Mood::Refuses(12), Kind::NotFound, false),
        (Mood::Refuses(12), Mood::Refuses(37), Kind::Unavailable, true),
        (Mood::Refuses(12), Mood::Ends(0), Kind::Unavailable, true),
        (Mood::Refuses(41), Mood::Stalls(0), Kind::Unsupported, true),
        (Mood::Refuses(10), Mood::Refuses(999), Kind::Unavailable, true),
    ];
    for (stored, range) in both_ways() {
        let reads = cases.map(async |(first, second, kind, gateway)| {
            let fakes = [Fake::start(&stored, first), Fake::start(&stored, second)];
            let block = stored.block(&[&fakes[0], &fakes[1]]);
            let error = hasty().read(&block, range.clone()).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{first:?} {second:?}: {error}");
            assert_eq!(gateway_may_help(&error), gateway, "{error}");
            let text = error.to_string();
            assert!(text.contains("7/1001") && fakes.iter().all(|fake| text.contains(&fake.address())), "{text}");
            assert!(error.way_out().is_some());
        });
        join_all(reads).await;
    }
    let stored = small();
    let error = read_all(&datanodes(), &stored.block(&[&Fake::dead()])).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_node_that_failed_is_asked_last() {
    let stored = small();
    let (first, second) = (Fake::start(&stored, Mood::Stalls(0)), Fake::start(&stored, Mood::Good));
    let (datanodes, block) = (hasty(), stored.block(&[&first, &second]));
    for _ in 0..3 {
        assert!(read_all(&datanodes, &block).await.unwrap() == stored.data);
    }
    assert_eq!((first.asked().len(), second.asked().len()), (1, 3));
    assert_eq!(datanodes.requests(), 4);
}

#[tokio::test]
async fn a_list_that_could_not_be_had_is_asked_for_again() {
    let stored = large();
    let bad = Fake::start(&stored, Mood::Refuses(37));
    let datanodes = datanodes();
    let block = stored.block(&[&bad]);
    assert!(read_all(&datanodes, &block).await.unwrap_err().is_retryable());
    let good = Fake::start(&stored, Mood::Good);
    assert!(read_all(&datanodes, &stored.block(&[&good])).await.unwrap() == stored.data);
}

#[tokio::test]
async fn a_reader_that_gives_up_leaves_the_others_reading() {
    let (stored, range) = both_ways().into_iter().last().unwrap();
    let (stalls, good) = (Fake::start(&stored, Mood::Stalls(0)), Fake::start(&stored, Mood::Good));
    let (datanodes, block) = (hasty(), stored.block(&[&stalls, &good]));
    let first = tokio::spawn({
        let (datanodes, block, range) = (datanodes.clone(), block.clone(), range.clone());
        async move { datanodes.read(&block, range).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    first.abort();
    let content = datanodes.read(&block, range).await.unwrap();
    assert!(content == stored.data[1..61_000]);
}

#[tokio::test]
async fn what_cannot_be_read_this_way() {
    let stored = small();
    let fake = Fake::start(&stored, Mood::Good);
    let block = stored.block(&[&fake]);
    let nodes = |nodes: Vec<Node>| Block { nodes: nodes.into(), ..block.clone() };
    let unsupported = [
        Block { replication: Replication::Coded, ..block.clone() },
        nodes(Vec::new()),
        nodes(vec![Node { port: 0, ..fake.node.clone() }]),
        nodes(vec![Node { ip: "not an address".into(), ..fake.node.clone() }]),
    ];
    for block in unsupported {
        let error = read_all(&datanodes(), &block).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    }
    assert!(fake.asked().is_empty());
    // SHA-256, and sums that are not there.
    let mut unknown = [small(), small()];
    unknown[0].chunks[0].checksums.kind = 4;
    unknown[1].chunks[0].checksums.sums.clear();
    for stored in unknown {
        let fake = Fake::start(&stored, Mood::Good);
        let error = read_all(&datanodes(), &stored.block(&[&fake])).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    }
}

#[tokio::test]
async fn the_token_and_the_node_go_with_every_request() {
    for stored in [small(), large()] {
        let fake = Fake::start(&stored, Mood::Good);
        let block = Block { token: Some(Bytes::from_static(b"a-token")), ..stored.block(&[&fake]) };
        read_all(&datanodes(), &block).await.unwrap();
        for request in fake.asked() {
            assert_eq!(request.token.as_deref(), Some(&b"a-token"[..]));
            assert_eq!((request.container, &request.node), (7, &fake.node.uuid));
        }
    }
}
