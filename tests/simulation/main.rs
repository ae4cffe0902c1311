//! Whole replications over stores in memory: random trees and changes, crashes at every call, listings that lie, two
//! jobs at once, wrong bytes. What came of it is read from the stores themselves, not through the program's own proof.

#![allow(clippy::unwrap_used)] // In helpers of tests a panic is the failure.

mod cost;
mod crash;
mod damage;
mod delta;
mod generations;
mod hook;
mod lease;
mod listing;
mod prune;
mod restore;
mod tree;
mod world;
