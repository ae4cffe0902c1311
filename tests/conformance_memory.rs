//! The memory store keeps what the trait promises, in each of the ways it can act.

#![allow(clippy::unwrap_used)] // In helpers of tests a panic is the failure.

mod common;

use std::sync::Arc;

use common::conformance;
use snapferry::store::Capabilities;
use snapferry::store::memory::MemoryStore;

#[tokio::test]
async fn as_objects() {
    conformance::run(Arc::new(MemoryStore::objects("a"))).await;
}

#[tokio::test]
async fn as_versioned_objects() {
    conformance::run(Arc::new(MemoryStore::versioned("a"))).await;
}

#[tokio::test]
async fn as_files() {
    conformance::run(Arc::new(MemoryStore::files("a"))).await;
}

#[tokio::test]
async fn as_trees() {
    conformance::run(Arc::new(MemoryStore::trees("a"))).await;
}

#[tokio::test]
async fn as_a_store_that_can_do_little() {
    let little = Capabilities {
        ordered: false,
        copy: false,
        copy_ranges: false,
        conditional: false,
        conditional_parts: false,
        proves_whole: false,
        delete_batch_max: 1,
        part_bytes_min: 5 << 20,
        ..MemoryStore::like_s3()
    };
    conformance::run(Arc::new(MemoryStore::new("a", little))).await;
}

#[tokio::test]
async fn missing_bucket() {
    let store = MemoryStore::objects("a");
    store.remove_bucket();
    conformance::missing_bucket(Arc::new(store)).await;
}
