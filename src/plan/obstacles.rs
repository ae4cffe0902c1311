//! Where names get in each other's way: on a store with real directories `a` excludes `a/b`.

use crate::error::{Error, Kind, Result};
use crate::key::Key;

/// Objects whose names begin the current key. Keys come in byte order, so all that begin with an object's name follow
/// it without a break, and this never holds more than a key has bytes.
#[derive(Debug, Default)]
pub(super) struct Obstacles {
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    name: Key,
    wanted: bool,
    present: bool,
    file_cleared: bool,
    directory_cleared: bool,
}

impl Obstacles {
    /// Takes the next key, wanted in the snapshot and present on the target or not, and names what must be moved
    /// aside for it. Fails when the snapshot itself has both an object and something inside it.
    pub(super) fn pass(&mut self, key: &Key, wanted: bool, present: bool) -> Result<Vec<Key>> {
        while self.open.last().is_some_and(|open| !key.starts_with(open.name.as_bytes())) {
            self.open.pop();
        }
        let mut clears = Vec::new();
        for open in &mut self.open {
            let inside = key.as_bytes().get(open.name.len()) == Some(&b'/');
            if !inside {
                continue;
            }
            if open.wanted && wanted {
                return Err(Error::new(
                    Kind::Unrepresentable,
                    format!("the target has directories and cannot hold `{}` beside it", open.name),
                )
                .key(key));
            }
            if open.wanted && present && !open.directory_cleared {
                open.directory_cleared = true;
                let mut directory = open.name.as_bytes().to_vec();
                directory.push(b'/');
                clears.push(Key::new(directory));
            }
            if open.present && wanted && !open.file_cleared {
                open.file_cleared = true;
                clears.push(open.name.clone());
            }
        }
        if !key.is_directory() {
            self.open.push(Open { name: key.clone(), wanted, present, file_cleared: false, directory_cleared: false });
        }
        Ok(clears)
    }
}
