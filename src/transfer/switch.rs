//! The switch: when all bytes are there, names change hands. Only requests on the target's own side, in the plan's order.

use std::sync::Arc;

use futures::stream::{BoxStream, TryStreamExt};

use super::{Transfer, landed_as};
use crate::blocking::stream;
use crate::error::{Error, Kind, Result, Side};
use crate::journal::Event;
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Pin};
use crate::plan::{Finish, Identity, Landing, Method, Plan, Record, Spool, TreeMove, staging_key, trash_key};
use crate::progress::Progress;
use crate::retry::may_have_happened;
use crate::store::Condition;

/// Changes of names that one task makes.
const BATCH: usize = 64;

/// Such tasks at once.
const RENAMES_AT_ONCE: usize = 8;

/// Copies at once that are made last.
const COPIES_AT_ONCE: usize = 32;

/// Delete requests at once.
const DELETES_AT_ONCE: usize = 4;

impl Transfer {
    /// Carries out what comes after the landings. `job` names the trash.
    pub async fn switch(self: &Arc<Self>, plan: &Plan, landings: &Arc<Spool<Landing>>, job: &str) -> Result<()> {
        let moves = records(landings.clone()).try_filter(|landing| std::future::ready(landing.method == Method::Move));
        let batches = moves.try_chunks(BATCH).map_err(|error| error.1);
        batches.try_for_each_concurrent(RENAMES_AT_ONCE, |batch| self.take_away_all(batch)).await?;
        self.move_trees(plan).await?;
        for clear in plan.clears.iter()? {
            self.clear(&clear?.key, job).await?;
        }
        for directory in plan.directories.iter()? {
            self.make_directory(&directory?).await?;
        }
        let staged = records(landings.clone()).try_filter(|landing| std::future::ready(landing.staged));
        let batches = staged.try_chunks(BATCH).map_err(|error| error.1);
        batches.try_for_each_concurrent(RENAMES_AT_ONCE, |batch| self.place_all(batch)).await?;
        let late = records(landings.clone()).try_filter(|landing| std::future::ready(landing.late));
        late.try_for_each_concurrent(COPIES_AT_ONCE, |landing| self.land(landing)).await?;
        self.delete_all(plan).await?;
        for finish in plan.finish.iter()? {
            self.finish_directory(&finish?).await?;
        }
        Ok(())
    }

    /// Renames content of the target to its staging name.
    async fn take_away_all(&self, batch: Vec<Landing>) -> Result<()> {
        self.lease.check()?;
        let pairs = batch.iter().map(|landing| {
            let from = landing.from.as_ref().map_or(&landing.source.key, |from| &from.key);
            (from.clone(), staging_key(&landing.source))
        });
        let renamed = self.rename_batch(pairs.collect()).await?;
        let each = futures::stream::iter(batch.into_iter().zip(renamed).map(Ok));
        each.try_for_each_concurrent(RENAMES_AT_ONCE, |(landing, renamed)| async move {
            if renamed { self.taken_away(landing).await } else { self.take_away(landing).await }
        })
        .await
    }

    async fn taken_away(&self, landing: Landing) -> Result<()> {
        let Some(from) = landing.from else { return Err(Error::internal("a move comes from nowhere")) };
        let size = landing.source.size;
        let landed = Entry {
            pin: from.pin,
            mode: from.mode,
            attributes: from.attributes,
            digest: from.digest,
            blocks: from.blocks,
            ..landed_as(&landing.source)
        };
        self.journal.append(Event::Landed(landed)).await?;
        self.finished(size, |progress| Progress::add(&progress.bytes_reused, size));
        Ok(())
    }

    async fn take_away(&self, landing: Landing) -> Result<()> {
        self.lease.check()?;
        let Some(from) = &landing.from else { return Err(Error::internal("a move comes from nowhere")) };
        let at = staging_key(&landing.source);
        let size = landing.source.size;
        match self.retrying(|| self.target.rename(&from.key, &at)).await {
            Ok(()) => self.taken_away(landing).await,
            // A try whose answer was lost, or somebody took it: the source has it all the same.
            Err(error) if error.kind() == Kind::NotFound => {
                let landing = Landing { method: Method::Read, from: None, ..landing };
                if self.adopt_staged(&landing).await? {
                    self.finished(size, |progress| Progress::add(&progress.bytes_reused, size));
                    return Ok(());
                }
                self.land(landing).await
            }
            Err(error) => Err(error.on(Side::Target)),
        }
    }

    /// Renames directories with all in them: away first, inner ones before outer ones, then to their places.
    async fn move_trees(&self, plan: &Plan) -> Result<()> {
        for tree in plan.trees.to_take_away() {
            self.rename_tree(tree, &tree.from, &tree.staging()).await?;
        }
        for tree in plan.trees.to_place() {
            self.rename_tree(tree, &tree.staging(), &tree.to).await?;
        }
        Progress::add(&self.progress.bytes_done, plan.tree_bytes);
        Progress::add(&self.progress.bytes_reused, plan.tree_bytes);
        Ok(())
    }

    async fn rename_tree(&self, tree: &TreeMove, from: &Key, to: &Key) -> Result<()> {
        self.lease.check()?;
        let Err(error) = self.retrying(|| self.target.rename(from, to)).await else { return Ok(()) };
        // A try took place whose answer was lost: then it is there, and nowhere else.
        if may_have_happened(&error) {
            let there = self.retrying(|| self.target.stat(to)).await.map_err(|error| error.on(Side::Target))?;
            if there.is_some_and(|there| Identity::of(&there.pin) == Some(tree.identity)) {
                return Ok(());
            }
        }
        let error = error.on(Side::Target).standing_for(&tree.base);
        Err(error.hint("somebody else changed the target meanwhile; run the same command again to go on"))
    }

    /// Moves aside what is in the way, and directories that go as a whole.
    async fn clear(&self, key: &Key, job: &str) -> Result<()> {
        self.lease.check()?;
        let outcome = if self.target.capabilities().rename {
            let trash = trash_key(key, job);
            self.retrying(|| self.target.rename(key, &trash)).await
        } else {
            let keys = [key.clone()];
            self.retrying(|| self.target.delete(&keys)).await
        };
        match outcome {
            Err(error) if error.kind() == Kind::NotFound => Ok(()),
            outcome => outcome.map_err(|error| error.on(Side::Target).key(key)),
        }
    }

    /// Makes a directory that can be written to; its own permission bits come when all is in it.
    async fn make_directory(&self, entry: &Entry) -> Result<()> {
        self.lease.check()?;
        let attributes = Attributes { mode: Some(entry.mode.unwrap_or(0o755) | 0o700), ..Attributes::default() };
        let written =
            self.retrying(|| self.target.write(&entry.key, bytes::Bytes::new(), &attributes, &Condition::Any)).await;
        written.map(drop).map_err(|error| error.on(Side::Target).key(&entry.key))
    }

    /// Renames staged content to its key.
    async fn place_all(&self, batch: Vec<Landing>) -> Result<()> {
        self.lease.check()?;
        let (batch, mut one_by_one): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|landing| landing.replaces.is_none() || self.target.local().is_some());
        let pairs = batch.iter().map(|landing| (staging_key(&landing.source), landing.source.key.clone()));
        let placed = self.rename_batch(pairs.collect()).await?;
        one_by_one.extend(batch.into_iter().zip(placed).filter(|(_, placed)| !placed).map(|(landing, _)| landing));
        let one_by_one = futures::stream::iter(one_by_one.into_iter().map(Ok));
        one_by_one.try_for_each_concurrent(RENAMES_AT_ONCE, |landing| self.place(landing)).await
    }

    async fn place(&self, landing: Landing) -> Result<()> {
        self.lease.check()?;
        let (at, key) = (staging_key(&landing.source), &landing.source.key);
        if self.target.capabilities().rename {
            return match self.retrying(|| self.target.rename(&at, key)).await {
                // It was found in place and adopted, or a try took place whose answer was lost. The proof looks closer.
                Err(error) if error.kind() == Kind::NotFound && self.is_in_place(&landing).await? => Ok(()),
                outcome => outcome.map_err(|error| error.on(Side::Target).standing_for(key)),
            };
        }
        let staged = self.retrying(|| self.target.stat(&at)).await.map_err(|error| error.on(Side::Target))?;
        let Some(staged) = staged else {
            // It was found in place and adopted. The proof looks closer.
            if landing.compare && self.is_in_place(&landing).await? {
                return Ok(());
            }
            return Err(Error::new(Kind::NotFound, "its staged content is gone")
                .on(Side::Target)
                .key(key)
                .hint("run the same command again to go on"));
        };
        let pin = self.put_in_place(&landing, &staged).await?;
        let landed = Entry { pin, mode: landing.source.mode, ..landed_as(&landing.source) };
        self.journal.append(Event::Landed(landed)).await?;
        let keys = [at];
        self.retrying(|| self.target.delete(&keys)).await.map_err(|error| error.on(Side::Target))
    }

    /// Copies staged content to its key, over what the plan has seen there and nothing else.
    async fn put_in_place(&self, landing: &Landing, staged: &Entry) -> Result<Pin> {
        let (source, condition) = (&landing.source, landing.undisturbed());
        let copied = self.retrying(|| self.target.copy(staged, &source.key, None, &condition)).await;
        let error = match copied {
            Ok(pin) => return Ok(pin),
            Err(error) if may_have_happened(&error) => error,
            Err(error) => return Err(error.on(Side::Target).key(&source.key)),
        };
        let known = Entry { digest: source.digest, ..staged.clone() };
        let digest = self.digest_of(&*self.target, &known, Side::Target).await?;
        match self.settle(error, &source.key, source, digest).await? {
            Some(pin) => Ok(pin),
            None => self
                .retrying(|| self.target.copy(staged, &source.key, None, &Condition::Any))
                .await
                .map_err(|error| error.on(Side::Target).key(&source.key)),
        }
    }

    async fn is_in_place(&self, landing: &Landing) -> Result<bool> {
        let source = &landing.source;
        let there = self.retrying(|| self.target.stat(&source.key)).await.map_err(|error| error.on(Side::Target))?;
        Ok(there.is_some_and(|there| (there.kind, there.size) == (source.kind, source.size)))
    }

    async fn delete_all(&self, plan: &Plan) -> Result<()> {
        let batch_max = self.target.capabilities().delete_batch_max.max(1);
        let keys = futures::stream::iter(plan.deletes.iter()?);
        keys.try_chunks(batch_max)
            .map_err(|error| error.1)
            .try_for_each_concurrent(DELETES_AT_ONCE, |keys| async move {
                self.lease.check()?;
                self.retrying(|| self.target.delete(&keys)).await.map_err(|error| error.on(Side::Target))
            })
            .await
    }

    async fn finish_directory(&self, finish: &Finish) -> Result<()> {
        self.lease.check()?;
        let outcome = match finish {
            Finish::Remove(key) => {
                let keys = [key.clone()];
                self.retrying(|| self.target.delete(&keys)).await.map_err(|error| error.key(key))
            }
            Finish::Attributes(entry) => {
                let attributes =
                    Attributes { mtime_ns: Some(entry.mtime_ns), mode: entry.mode, ..Attributes::default() };
                self.retrying(|| self.target.set_attributes(&entry.key, &attributes))
                    .await
                    .map_err(|error| error.key(&entry.key))
            }
        };
        outcome.map_err(|error| error.on(Side::Target))
    }
}

/// The records of a spool as a stream; its file is read on a thread that may block.
fn records<T: Record + Send + 'static>(spool: Arc<Spool<T>>) -> BoxStream<'static, Result<T>> {
    stream(move || spool.iter())
}
