//! Renames, deletes and directories: the Ozone Manager's work alone.

use futures::stream::{self, StreamExt, TryStreamExt};

use super::OzoneStore;
use super::om::KeyKind;
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::Pin;

/// Keys that are looked at at once before they are deleted.
const LOOKUPS_AT_ONCE: usize = 16;

impl OzoneStore {
    pub(super) async fn make_directory(&self, key: &Key) -> Result<Pin> {
        self.shared.bucket.create_directory(self.wire(key)?).await.map_err(|error| error.about(key))?;
        Ok(Pin::default())
    }

    /// Ozone renames onto no file that is there, and into no directory that is not: both are mended and it is asked again.
    /// It does not tell files from directories, and moves what is renamed onto a directory into that: so it is asked first
    /// what is there, but for names of our own, which are files and never used twice.
    pub(super) async fn rename_key(&self, from: &Key, to: &Key) -> Result<()> {
        let (old, new) = (self.wire(from)?, self.wire(to)?);
        let bucket = &self.shared.bucket;
        let named = |error: Error| error.about(from);
        if self.shared.directories
            && (from.is_directory() || !from.is_reserved())
            && self.look_up(from).await?.is_none()
        {
            return Err(self.fail(Kind::NotFound, "there is nothing to rename").key(from));
        }
        if self.shared.directories && to.is_directory() && self.look_up(to).await?.is_some() {
            return Err(self.fail(Kind::AlreadyExists, format!("`{to}` is there already")).key(from));
        }
        match bucket.rename(old, new).await {
            Err(error) if error.kind() == Kind::AlreadyExists && !to.is_directory() => {
                // Nothing is deleted for the sake of something that is not there.
                if self.look_up(from).await?.is_none() {
                    return Err(self.fail(Kind::NotFound, "there is nothing to rename").key(from));
                }
                bucket.delete(new, false).await.map_err(|error| error.about(to))?;
                bucket.rename(old, new).await.map_err(named)
            }
            // KEY_RENAME_ERROR, one of many that are only `Io`, is what Ozone says of a missing parent too. Another task may just
            // have made it.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Io) && self.shared.directories => {
                let Some(parent) = to.parent() else { return Err(named(error)) };
                if self.look_up(from).await?.is_none() {
                    return Err(named(error));
                }
                self.make_directory(&parent).await?;
                bucket.rename(old, new).await.map_err(named)
            }
            outcome => outcome.map_err(named),
        }
    }

    /// One request for all where there are no directories. If it does not succeed whole, each is to be looked at by itself.
    pub(super) async fn rename_keys(&self, pairs: &[(Key, Key)]) -> Result<Vec<bool>> {
        if self.shared.directories {
            return Ok(vec![false; pairs.len()]);
        }
        let wire = pairs.iter().map(|(from, to)| Ok((self.wire(from)?, self.wire(to)?))).collect::<Result<Vec<_>>>()?;
        match self.shared.bucket.rename_all(&wire).await {
            Ok(()) => Ok(vec![true; pairs.len()]),
            Err(error) => {
                tracing::debug!("renamed one by one: {error}");
                Ok(vec![false; pairs.len()])
            }
        }
    }

    pub(super) async fn delete_keys(&self, keys: &[Key]) -> Result<()> {
        if !self.shared.directories {
            return self.delete_objects(keys.iter()).await;
        }
        let looks: Vec<_> = keys.iter().map(|key| self.is_what_it_says(key)).collect();
        let there: Vec<bool> = stream::iter(looks).buffered(LOOKUPS_AT_ONCE).try_collect().await?;
        let there = keys.iter().zip(there).filter_map(|(key, there)| there.then_some(key));
        let (directories, objects): (Vec<&Key>, Vec<&Key>) = there.partition(|key| key.is_directory());
        self.delete_objects(objects.into_iter()).await?;
        for directory in directories {
            let deleted = self.shared.bucket.delete(self.wire(directory)?, false).await;
            deleted.map_err(|error| error.about(directory))?;
        }
        Ok(())
    }

    async fn delete_objects(&self, keys: impl Iterator<Item = &Key>) -> Result<()> {
        let names = keys.map(|key| self.wire(key)).collect::<Result<Vec<_>>>()?;
        self.shared.bucket.delete_all(&names).await
    }

    /// True when an object's key is an object and a directory's is a directory. Ozone has one name for both, and deletes
    /// whatever has it: of a directory, when it is asked to delete many keys, all that is in it, too.
    async fn is_what_it_says(&self, key: &Key) -> Result<bool> {
        let found = self.shared.bucket.file_status(None, self.wire(key)?).await.map_err(|error| error.key(key))?;
        Ok(found.is_some_and(|found| (found.kind == KeyKind::Directory) == key.is_directory()))
    }
}
