//! From base, new snapshot and the target as it is, to the ordered steps that make the target the snapshot. Pure.
//!
//! A plan is data: five files of records, in the order in which they are carried out.
//!
//! 1. [`Landing`]s bring content: read from the source, or copied or moved from where the target has it under another
//!    name. On a store that renames, each lands under its staging name first, so the bucket itself is untouched until
//!    all bytes are there; no order among names can then go wrong, whatever is swapped, cycled or nested.
//! 2. `clears` move aside what stands in the way of another kind (a file where a directory comes, and the reverse).
//! 3. `directories` are made, parents first, and staged landings renamed into place.
//! 4. `deletes` remove objects.
//! 5. [`Finish`] steps, children before parents, remove directories and set the attributes of those that stay.

mod change;
mod directories;
mod judge;
mod obstacles;
mod planner;
mod renames;
mod spool;
mod steps;
#[cfg(test)]
mod tests;

pub use judge::{
    Circumstances, Drift, Drifted, Position, Verdict, is_same_entry, judge, md5_of, same_content, same_mode,
};
pub use planner::{Inputs, Options, plan};
pub use spool::{Record, Spool, SpoolReader, SpoolWriter};
pub use steps::{Clear, Finish, Landing, Method, Plan, Totals, staging_key, trash_key};
