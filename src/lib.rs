//! snapferry keeps a bucket on a disaster-recovery site identical to the primary, snapshot by snapshot.
//!
//! It finds what changed between two snapshots of a bucket, copies exactly that, proves the result, and only then makes
//! the snapshot of the same name on the other side. [`replicate`] is this line on one page:
//!
//! ```text
//! snapshot → diff → plan → transfer → prove → seal
//! ```
//!
//! # Words
//!
//! A **bucket** is a root of objects, named by a URL. A **key** is an object's name in it: opaque bytes, ordered as
//! bytes. A **snapshot** is a named, immutable view of a whole bucket; its **manifest** is the sorted list of its
//! **entries**. The two sides are **source** and **target**. The **base** is the newest snapshot that both have, sealed.
//! **Drift** is what somebody else wrote to the target since then. An entry's **pin** says which content was meant: a
//! version, an ETag, or a file's identity. The **seal** is the snapshot's record on the target, written last.
//!
//! # The way of the data
//!
//! - [`snapshot`]: how a bucket keeps a view of itself. A directory has a tree of clones under `.snapshot/NAME/`
//!   ([`snapshot::Tree`]); an object store has a list of pinned entries ([`snapshot::Listed`]); Ozone takes its own
//!   ([`snapshot::Native`]).
//! - [`manifest`]: the entries, in Parquet segments that are cut at borders which the keys define and named by their
//!   digest, so that snapshots share the segments in which nothing changed, and a comparison skips them.
//! - [`diff`]: what changed between two manifests, renames included. Where a store says itself what changed, the new
//!   manifest is made out from the base and that; it saves a listing before the transfer, and proves nothing.
//! - [`plan`]: from base, new snapshot and the target as it is to ordered steps. Pure: a plan is files of records. Where
//!   there is more to order than memory should hold, [`sort`] does it on disk.
//! - [`transfer`]: carries out the steps that bring content, in two lanes, small objects whole and large ones in parts.
//!   Every write is checked against the target's own [`checksum`]. What landed is remembered by the [`journal`].
//! - [`delta`]: of a large object whose older version is on the target only the blocks that changed cross; the rest is copied
//!   there, on the target's own side.
//! - [`verify`]: lists the target and compares it with the snapshot entry by entry; reads it back if asked.
//! - [`seal`]: receipt, manifest and, last of all, the record on the target, into its [`catalog`].
//!
//! Around the line: [`run`] has the steps that replication and [`restore`] share, [`bucket`] joins a store with its catalog
//! and its kind of snapshot, [`store`] is the one trait over directories, S3, Ozone and memory, with what each can do
//! declared in its [`store::Capabilities`]. [`report`] is what a run did as plain data: text and JSON are views of it.
//! [`cli`] is one file for each command.
//!
//! A night by itself: [`config`] reads policies, and names every mistake; [`discovery`] adds those of the buckets that are
//! found among their [`neighbours`]. A [`policy`] runs the line for its pair and then
//! [`prune`]s what [`retention`] does not keep; [`schedule`] says when, and [`serve`] does it then. [`job`] remembers on this
//! machine what each run did; [`estate`] is how all policies stand, of which the status screen and the [`metrics`] are views;
//! a [`hook`] is told.
//!
//! `key`, `manifest`, `merge`, `sort`, `plan`, `delta`, `retention` and `schedule` have no clock, no store and no async in them
//! and are tested with generated cases; [`store::fault`] and [`store::record`] wrap a store, to break it and to count what it
//! is asked.
//!
//! # What always holds, and where
//!
//! | | kept by |
//! | --- | --- |
//! | A snapshot exists on the target only if its content was proved equal to the source's | the order in [`replicate`]; [`seal`] writes the record last |
//! | Content is read from a snapshot, never a mix of two states of an object | pins: every [`store::Store::read`] is of one, and [`transfer`] pins again by name what changed |
//! | No key is skipped, renamed or merged; a listing that failed, ended early or went backwards deletes nothing | [`key`] never normalises; [`store::Listing`] is checked for its order and its end |
//! | Nothing is touched before the plan is known and the guards have passed | [`plan`] works on a listing; [`run`] asks the guards before it transfers |
//! | Killed at any point, the same command converges | the [`journal`] saves time; without it the [`plan`] compares; the bucket's [`catalog::Lease`] says what was left unfinished |
//! | One job on a target at a time, from any machine | [`catalog::Lease`]: conditional writes and a fencing token, confirmed right before the record is written |
//! | Memory is bounded | listings and plans are streams, [`sort`] spills, and content in flight is paid for from one budget in [`transfer`] |
//! | Secrets reach no log, plan, receipt or error | credentials stay inside [`store::s3`] and what signs for Ozone; an address is a URL without them |
//!
//! An [`error::Error`] says what, where (side and key) and what to do next, and its [`error::Kind`] decides whether it is
//! tried again and how the program exits.
//!
//! # Threads
//!
//! Tokio does the input and output of servers. File systems, sorting and planning block, so they run on Tokio's blocking
//! threads; hashing runs on rayon's. Bounded channels join them, and a Tokio worker never blocks on one.
//!
//! # Example
//!
//! ```
//! use std::{sync::Arc, time::Duration};
//!
//! use snapferry::bucket::{Bucket, OpenOptions};
//! use snapferry::job::new_id;
//! use snapferry::progress::Progress;
//! use snapferry::replicate::{Proof, Request, replicate};
//! use snapferry::report::State;
//! use snapferry::bounds::{Bounds, MaxDelete, OnDrift};
//! use snapferry::snapshot::clone::CloneMode;
//! use snapferry::store::Condition;
//! use snapferry::transfer::Limits;
//!
//! # #[tokio::main(flavor = "multi_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let options = OpenOptions { create: true, create_link: false, clone: CloneMode::Auto, folder: folder.path().into() };
//! let source = Bucket::open("memory:primary", &options).await?;
//! let target = Bucket::open("memory:dr", &options).await?;
//! source.store().write(&"hello".into(), "world".into(), &Default::default(), &Condition::Any).await?;
//!
//! let request = Request {
//!     snapshot: Some("monday".parse()?),
//!     dry_run: false,
//!     steps: false,
//!     proof: Proof::Read,
//!     allow_unversioned: false,
//!     policy: None,
//!     source_catalog: None,
//!     job: new_id(jiff::Timestamp::now()),
//!     moment: jiff::Timestamp::now(),
//!     bounds: Bounds {
//!         max_delete: MaxDelete::Percent(50.0),
//!         on_drift: OnDrift::Refuse,
//!         limits: Limits { concurrency: 8, memory_bytes: 16 << 20, ..Limits::default() },
//!         folder: folder.path().into(),
//!         lease_term: Duration::from_secs(60),
//!     },
//! };
//! let progress = Arc::new(Progress::default());
//! let (report, outcome) = replicate(source, target.clone(), request, progress, Default::default()).await;
//! outcome?;
//! assert_eq!((report.state, report.objects_copied), (State::Sealed, 1));
//! assert!(target.snapshot(&"monday".parse()?).await?.is_some());
//! # Ok(())
//! # }
//! ```

pub(crate) mod blocking;
pub mod bounds;
pub mod bucket;
pub mod catalog;
pub mod checksum;
pub mod cli;
pub mod clock;
pub mod config;
pub mod delta;
pub mod diff;
pub mod discovery;
pub mod error;
pub mod estate;
pub(crate) mod file;
pub(crate) mod hold;
pub mod hook;
pub mod job;
pub mod journal;
pub mod key;
pub mod manifest;
pub(crate) mod merge;
pub mod metrics;
pub mod neighbours;
pub(crate) mod origin;
pub mod pair;
pub mod place;
pub mod plan;
pub mod policy;
pub mod process;
pub mod progress;
pub(crate) mod provenance;
pub mod prune;
pub(crate) mod rehearsal;
pub mod replicate;
pub mod report;
pub mod restore;
pub mod retention;
pub(crate) mod retry;
pub mod run;
pub mod schedule;
pub mod seal;
pub mod selection;
pub mod serve;
pub mod snapshot;
pub mod sort;
pub mod store;
pub(crate) mod table;
pub mod transfer;
pub(crate) mod units;
pub mod verify;
