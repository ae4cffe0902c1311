//! A store that fails as told: by a plan or by a seed, before or after the effect. Without a clock, so that a run
//! with faults can be repeated exactly.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

pub use super::record::Op;
use super::{
    Capabilities, Condition, ListOptions, Listing, ListingSender, Object, Part, Piece, Store, Upload, Version,
};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, Pin};

/// Which of the calls that a rule is for it strikes. They are counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// This one only.
    Nth(u64),
    /// This one and all that follow, as if the program had been killed.
    From(u64),
    /// Every so many.
    Every(u64),
    /// One in so many, chosen by the seed, the method, the key and how often that key was tried: whatever the order
    /// in which calls happen to come, the same ones fail.
    Seed {
        /// Another seed strikes others.
        seed: u64,
        /// 1 strikes all.
        one_in: u64,
    },
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// The call fails and has no effect.
    Before(ErrorKind),
    /// The call has its effect, but its answer is lost: it fails.
    After(ErrorKind),
    /// One bit of what is read, written or copied into a part is wrong; other calls are left alone.
    Corrupt,
    /// The call never returns and has no effect.
    Stall,
    /// A listing fails after this many entries.
    ListFails(u64, ErrorKind),
    /// A listing breaks off after this many entries, its sender gone.
    ListBreaks(u64),
    /// A listing ends after this many entries as if it were complete.
    ListEnds(u64),
    /// A listing gives its entry of this number, from 1, twice.
    ListRepeats(u64),
    /// A listing swaps its entry of this number, from 1, with the next.
    ListSwaps(u64),
}

/// A rule: which calls, and what becomes of them.
#[derive(Debug)]
pub struct Rule {
    op: Option<Op>,
    key: Option<Key>,
    when: When,
    effect: Effect,
    calls: AtomicU64,
    tries: Mutex<HashMap<(Op, Key), u64>>,
}

impl Rule {
    /// A rule for one method, or for all.
    pub fn new(op: impl Into<Option<Op>>, when: When, effect: Effect) -> Self {
        Self { op: op.into(), key: None, when, effect, calls: AtomicU64::new(0), tries: Mutex::default() }
    }

    /// Only for calls with this key (of a rename or copy: the one it is from).
    #[must_use]
    pub fn key(mut self, key: impl Into<Key>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Counts a call; true if it is struck.
    fn strikes(&self, op: Op, key: &Key) -> bool {
        if self.op.is_some_and(|wanted| wanted != op) || self.key.as_ref().is_some_and(|wanted| wanted != key) {
            return false;
        }
        let call = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        match self.when {
            When::Nth(n) => call == n,
            When::From(n) => call >= n,
            When::Every(k) => call.is_multiple_of(k.max(1)),
            When::Seed { seed, one_in } => {
                let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
                let tries = tries.entry((op, key.clone())).or_default();
                *tries += 1;
                let mut hasher = DefaultHasher::new();
                (seed, op, key, *tries).hash(&mut hasher);
                hasher.finish().is_multiple_of(one_in.max(1))
            }
        }
    }
}

/// Wraps a store and lets its calls fail by rules.
#[derive(Debug)]
pub struct Fault {
    inner: Arc<dyn Store>,
    rules: Vec<Rule>,
    injected: AtomicU64,
}

impl Fault {
    /// Wraps a store; the first rule that strikes a call decides, and every rule counts it.
    pub fn new(inner: Arc<dyn Store>, rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { inner, rules: rules.into_iter().collect(), injected: AtomicU64::new(0) }
    }

    /// How many calls were struck so far.
    pub fn injected(&self) -> u64 {
        self.injected.load(Ordering::Relaxed)
    }

    fn decide(&self, op: Op, key: &Key) -> Option<Effect> {
        let mut effect = None;
        for rule in &self.rules {
            if rule.strikes(op, key) {
                effect.get_or_insert(rule.effect);
            }
        }
        self.injected.fetch_add(effect.is_some().into(), Ordering::Relaxed);
        effect
    }

    fn error(&self, kind: ErrorKind, when: &str, op: Op, key: &Key) -> Error {
        Error::new(kind, format!("injected {when} {op:?}")).at(self.address()).key(key)
    }

    /// Makes a call, or does not, as the effect says.
    async fn call<T>(
        &self,
        effect: Option<Effect>,
        op: Op,
        key: &Key,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        match effect {
            Some(Effect::Before(kind)) => Err(self.error(kind, "before", op, key)),
            Some(Effect::Stall) => std::future::pending().await,
            Some(Effect::After(kind)) => {
                call.await?;
                Err(self.error(kind, "after", op, key))
            }
            _ => call.await,
        }
    }

    async fn simple<T>(&self, op: Op, key: &Key, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.call(self.decide(op, key), op, key, call).await
    }
}

/// The bytes with their first bit turned, if that is the effect.
fn corrupt(effect: Option<Effect>, data: Bytes) -> Bytes {
    if effect != Some(Effect::Corrupt) || data.is_empty() {
        return data;
    }
    let mut wrong = data.to_vec();
    wrong[0] ^= 1;
    wrong.into()
}

/// Passes a listing on with its fault.
async fn pass_on<T: Clone + Send>(mut listing: Listing<T>, effect: Effect, sender: ListingSender<T>) {
    let mut count = 0;
    let mut held: Option<T> = None;
    while let Some(batch) = listing.next().await {
        let entries = match batch {
            Ok(entries) => entries,
            Err(error) => return sender.close(Err(error)).await,
        };
        let mut passed = Vec::with_capacity(entries.len() + 1);
        let mut stopped = false;
        for entry in entries {
            if matches!(effect, Effect::ListFails(n, _) | Effect::ListBreaks(n) | Effect::ListEnds(n) if n == count) {
                stopped = true;
                break;
            }
            count += 1;
            match effect {
                Effect::ListSwaps(n) if n == count => {
                    held = Some(entry);
                    continue;
                }
                Effect::ListRepeats(n) if n == count => passed.push(entry.clone()),
                _ => {}
            }
            passed.push(entry);
            passed.extend(held.take());
        }
        if sender.send(passed).await.is_err() {
            return;
        }
        if stopped {
            return match effect {
                Effect::ListFails(_, kind) => {
                    sender.close(Err(Error::new(kind, "injected into the listing"))).await;
                }
                Effect::ListEnds(_) => sender.close(Ok(())).await,
                _ => drop(sender),
            };
        }
    }
    if let Some(held) = held
        && sender.send(vec![held]).await.is_err()
    {
        return;
    }
    sender.close(Ok(())).await;
}

#[async_trait]
impl Store for Fault {
    fn address(&self) -> &str {
        self.inner.address()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn accepts(&self, key: &Key) -> Result<()> {
        self.inner.accepts(key)
    }

    async fn list(&self, options: ListOptions) -> Result<Listing> {
        let prefix = options.prefix.clone();
        let effect = self.decide(Op::List, &prefix);
        let listing = self.call(effect, Op::List, &prefix, self.inner.list(options)).await?;
        let Some(effect) = effect else { return Ok(listing) };
        let (sender, faulty) = Listing::channel();
        tokio::spawn(pass_on(listing, effect, sender));
        Ok(faulty)
    }

    async fn read(&self, entry: &Entry, range: Option<Range<u64>>) -> Result<Object> {
        let effect = self.decide(Op::Read, &entry.key);
        let object = self.call(effect, Op::Read, &entry.key, self.inner.read(entry, range)).await?;
        Ok(Object { data: corrupt(effect, object.data), ..object })
    }

    async fn fetch(&self, key: &Key) -> Result<Option<(Bytes, Pin)>> {
        let effect = self.decide(Op::Fetch, key);
        let document = self.call(effect, Op::Fetch, key, self.inner.fetch(key)).await?;
        Ok(document.map(|(data, pin)| (corrupt(effect, data), pin)))
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.simple(Op::Stat, key, self.inner.stat(key)).await
    }

    async fn write(&self, key: &Key, data: Bytes, attributes: &Attributes, condition: &Condition) -> Result<Pin> {
        let effect = self.decide(Op::Write, key);
        let write = self.inner.write(key, corrupt(effect, data), attributes, condition);
        self.call(effect, Op::Write, key, write).await
    }

    async fn begin(&self, key: &Key, size: u64, attributes: &Attributes) -> Result<Upload> {
        self.simple(Op::Begin, key, self.inner.begin(key, size, attributes)).await
    }

    async fn write_part(&self, upload: &Upload, number: u32, offset: u64, data: Bytes) -> Result<Part> {
        let effect = self.decide(Op::WritePart, &upload.key);
        let write = self.inner.write_part(upload, number, offset, corrupt(effect, data));
        self.call(effect, Op::WritePart, &upload.key, write).await
    }

    async fn copy_part(
        &self,
        upload: &Upload,
        number: u32,
        offset: u64,
        from: &Entry,
        range: Range<u64>,
    ) -> Result<Part> {
        let effect = self.decide(Op::CopyPart, &from.key);
        let copy = async {
            if effect != Some(Effect::Corrupt) {
                return self.inner.copy_part(upload, number, offset, from, range).await;
            }
            let wrong = corrupt(effect, self.inner.read(from, Some(range)).await?.data);
            self.inner.write_part(upload, number, offset, wrong).await
        };
        self.call(effect, Op::CopyPart, &from.key, copy).await
    }

    async fn finish(
        &self,
        upload: &Upload,
        parts: &[Part],
        attributes: &Attributes,
        condition: &Condition,
    ) -> Result<Pin> {
        self.simple(Op::Finish, &upload.key, self.inner.finish(upload, parts, attributes, condition)).await
    }

    async fn abort(&self, upload: &Upload) -> Result<()> {
        self.simple(Op::Abort, &upload.key, self.inner.abort(upload)).await
    }

    async fn open_uploads(&self, key: &Key) -> Result<Vec<Upload>> {
        self.inner.open_uploads(key).await
    }

    async fn pieces(&self, entry: &Entry) -> Result<Option<Vec<Piece>>> {
        self.simple(Op::Pieces, &entry.key, self.inner.pieces(entry)).await
    }

    async fn copy(
        &self,
        from: &Entry,
        to: &Key,
        attributes: Option<&Attributes>,
        condition: &Condition,
    ) -> Result<Pin> {
        self.simple(Op::Copy, &from.key, self.inner.copy(from, to, attributes, condition)).await
    }

    async fn rename(&self, from: &Key, to: &Key) -> Result<()> {
        self.simple(Op::Rename, from, self.inner.rename(from, to)).await
    }

    async fn set_attributes(&self, key: &Key, attributes: &Attributes) -> Result<()> {
        self.simple(Op::SetAttributes, key, self.inner.set_attributes(key, attributes)).await
    }

    async fn delete(&self, keys: &[Key]) -> Result<()> {
        let first = keys.first().cloned().unwrap_or_default();
        self.simple(Op::Delete, &first, self.inner.delete(keys)).await
    }

    async fn list_versions(&self, prefix: &Key) -> Result<Listing<Version>> {
        let effect = self.decide(Op::ListVersions, prefix);
        let listing = self.call(effect, Op::ListVersions, prefix, self.inner.list_versions(prefix)).await?;
        let Some(effect) = effect else { return Ok(listing) };
        let (sender, faulty) = Listing::channel();
        tokio::spawn(pass_on(listing, effect, sender));
        Ok(faulty)
    }

    async fn delete_versions(&self, versions: &[(Key, Box<str>)]) -> Result<()> {
        let first = versions.first().map(|(key, _)| key.clone()).unwrap_or_default();
        self.simple(Op::DeleteVersions, &first, self.inner.delete_versions(versions)).await
    }

    async fn remove_tree(&self, key: &Key) -> Result<()> {
        self.simple(Op::RemoveTree, key, self.inner.remove_tree(key)).await
    }

    async fn sync(&self) -> Result<()> {
        self.simple(Op::Sync, &Key::default(), self.inner.sync()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::listing::in_order;
    use crate::store::memory::MemoryStore;

    async fn put(store: &dyn Store, key: &str) -> Result<Pin> {
        store.write(&key.into(), "data".into(), &Attributes::default(), &Condition::Any).await
    }

    #[tokio::test]
    async fn before_after_and_from() {
        let memory = Arc::new(MemoryStore::objects("a"));
        let rules = [
            Rule::new(Op::Write, When::Nth(1), Effect::Before(ErrorKind::Unavailable)),
            Rule::new(Op::Write, When::Nth(2), Effect::After(ErrorKind::Throttled)),
            Rule::new(None, When::From(4), Effect::Before(ErrorKind::Cancelled)),
        ];
        let fault = Fault::new(memory.clone(), rules);
        assert_eq!(put(&fault, "a").await.unwrap_err().kind(), ErrorKind::Unavailable);
        assert_eq!(memory.stat(&"a".into()).await.unwrap(), None);
        assert_eq!(put(&fault, "b").await.unwrap_err().kind(), ErrorKind::Throttled);
        assert!(memory.stat(&"b".into()).await.unwrap().is_some());
        put(&fault, "c").await.unwrap();
        assert_eq!(put(&fault, "d").await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(fault.sync().await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(fault.injected(), 4);
    }

    #[tokio::test]
    async fn a_seed_strikes_the_same_calls_in_any_order() {
        let mut keys: Vec<String> = (0..200).map(|i| format!("key-{i}")).collect();
        let mut struck = Vec::new();
        for _ in 0..2 {
            let when = When::Seed { seed: 7, one_in: 4 };
            let rule = Rule::new(Op::Write, when, Effect::Before(ErrorKind::Unavailable));
            let fault = Fault::new(Arc::new(MemoryStore::objects("a")), [rule]);
            let mut failed = Vec::new();
            for key in &keys {
                if put(&fault, key).await.is_err() {
                    failed.push(key.clone());
                }
            }
            failed.sort();
            struck.push(failed);
            keys.reverse();
        }
        assert_eq!(struck[0], struck[1]);
        assert!((20..90).contains(&struck[0].len()), "{}", struck[0].len());
    }

    #[tokio::test]
    async fn wrong_bytes_and_stalls() {
        let rules = [
            Rule::new(Op::Read, When::Every(2), Effect::Corrupt),
            Rule::new(Op::Stat, When::Nth(2), Effect::Stall).key("a"),
        ];
        let fault = Fault::new(Arc::new(MemoryStore::objects("a")), rules);
        put(&fault, "a").await.unwrap();
        let entry = fault.stat(&"a".into()).await.unwrap().unwrap();
        assert_eq!(fault.read(&entry, None).await.unwrap().data, "data");
        assert_eq!(fault.read(&entry, None).await.unwrap().data, "eata");
        fault.stat(&"b".into()).await.unwrap();
        assert!(futures::poll!(fault.stat(&"a".into())).is_pending());
    }

    #[tokio::test]
    async fn wrong_bytes_are_copied_and_it_is_a_success() {
        let rule = Rule::new(Op::CopyPart, When::Nth(2), Effect::Corrupt);
        let fault = Fault::new(Arc::new(MemoryStore::objects("a")), [rule]);
        put(&fault, "a").await.unwrap();
        let (entry, none) = (fault.stat(&"a".into()).await.unwrap().unwrap(), Attributes::default());
        let upload = fault.begin(&"b".into(), 6, &none).await.unwrap();
        let mut parts = Vec::new();
        for number in [1, 2] {
            let offset = u64::from(number - 1) * 3;
            parts.push(fault.copy_part(&upload, number, offset, &entry, 0..3).await.unwrap());
        }
        fault.finish(&upload, &parts, &none, &Condition::Any).await.unwrap();
        assert_eq!(fault.fetch(&"b".into()).await.unwrap().unwrap().0, "dateat");
    }

    #[tokio::test]
    async fn listings() {
        let memory = Arc::new(MemoryStore::objects("a"));
        for key in ["a", "b", "c", "d"] {
            put(&*memory, key).await.unwrap();
        }
        let list = async |effect| {
            let fault = Fault::new(memory.clone(), [Rule::new(Op::List, When::Nth(1), effect)]);
            let listing = fault.list(ListOptions::default()).await.unwrap();
            let entries = tokio::task::spawn_blocking(|| in_order(listing.entries()).collect::<Result<Vec<_>>>());
            let entries = entries.await.unwrap();
            entries.map(|entries| entries.len()).map_err(|error| error.kind())
        };
        assert_eq!(list(Effect::ListEnds(3)).await, Ok(3));
        assert_eq!(list(Effect::ListFails(3, ErrorKind::Denied)).await, Err(ErrorKind::Denied));
        for effect in [Effect::ListBreaks(3), Effect::ListBreaks(0), Effect::ListRepeats(4), Effect::ListSwaps(2)] {
            assert_eq!(list(effect).await, Err(ErrorKind::BadListing), "{effect:?}");
        }
    }
}
