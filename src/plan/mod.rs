//! From base, new snapshot and the target as it is, to the ordered steps that make the target the snapshot. Pure.
//!
//! A plan is data: files of records, in the order in which they are carried out.
//!
//! 1. [`Landing`]s bring content: read from the source, or copied or moved from where the target has it under another
//!    name. On a store that renames, each lands under its staging name first, so the bucket itself is untouched until
//!    all bytes are there; no order among names can then go wrong, whatever is swapped, cycled or nested.
//! 2. [`Trees`] are renamed as a whole, where the target can do that. What follows uses the names that are right then;
//!    what comes before, those that the target has now.
//! 3. `clears` move aside what stands in the way of another kind (a file where a directory comes, and the reverse), and
//!    directories that go with all in them, where the target moves them as a whole.
//! 4. `directories` are made, parents first, and staged landings renamed into place.
//! 5. `deletes` remove objects.
//! 6. [`Finish`] steps, children before parents, remove directories and set the attributes of those that stay.

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
mod trees;

pub use judge::{
    Circumstances, Drift, Drifted, Position, Verdict, is_same_entry, judge, md5_of, same_content, same_mode,
};
pub use planner::{Inputs, Options, plan};
pub use spool::{Record, Spool, SpoolReader, SpoolWriter};
pub use steps::{Clear, Finish, Landing, Method, Plan, Totals, staging_key, trash_key};
pub use trees::{Found, Identity, Streams, TreeMove, Trees, find as find_trees, staged_trees};
