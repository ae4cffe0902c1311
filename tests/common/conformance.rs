//! What every store promises, tested by what it says it can do. The store must be empty and not used by others;
//! what the suite writes it deletes again.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use snapferry::checksum::Sum;
use snapferry::error::{Error, Kind as ErrorKind};
use snapferry::key::Key;
use snapferry::manifest::{Attributes, Entry, Kind, Pin};
use snapferry::store::{Condition, ListOptions, Object, Part, Store, Upload, Version};

/// More than two pages of any store that lists a thousand at a time.
const MANY: usize = 2100;

/// How long a listing that may lag is given to show the last changes.
const SETTLING: Duration = Duration::from_millis(300);

/// Writes that wait for an answer at the same time.
const WIDTH: usize = 32;

pub(crate) type Shared = Arc<dyn Store>;

/// Tests every promise of the trait that the store's capabilities let it keep.
pub(crate) async fn run(store: Shared) {
    assert_eq!(keys(&list(&store, ListOptions::default()).await), Vec::<Key>::new(), "the store must be empty");
    listing_pages(&store).await;
    listing_options(&store).await;
    awkward_names(&store).await;
    refused_names(&store).await;
    reading(&store).await;
    guarded_reading(&store).await;
    old_versions(&store).await;
    versions(&store).await;
    conditions(&store).await;
    parts(&store).await;
    conditional_parts(&store).await;
    aborting(&store).await;
    copying(&store).await;
    ranges(&store, true).await;
    renaming_objects(&store).await;
    renaming_directories(&store).await;
    trees(&store).await;
    directories(&store).await;
    deleting(&store).await;
    deleting_directories(&store).await;
    attributes(&store).await;
    reserved(&store).await;
    store.sync().await.unwrap();
    assert_eq!(keys(&list(&store, ListOptions::default()).await), Vec::<Key>::new(), "something was left behind");
}

/// Tests what the trait promises of ranges that are copied. `pinned`: the server heeds a condition on what is copied.
pub(crate) async fn ranges(store: &Shared, pinned: bool) {
    copying_ranges(store).await;
    if pinned {
        refused_ranges(store).await;
    }
    receipts(store).await;
    pieces(store).await;
}

/// A bucket or root that does not exist is an error, never an empty listing.
pub(crate) async fn missing_bucket(store: Shared) {
    let error = match store.list(ListOptions::default()).await {
        Err(error) => error,
        Ok(listing) => listing.collect().await.expect_err("a missing bucket was listed"),
    };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

fn keys(entries: &[Entry]) -> Vec<Key> {
    entries.iter().map(|entry| entry.key.clone()).collect()
}

/// Lists, in byte order also where the store has another.
async fn list(store: &Shared, options: ListOptions) -> Vec<Entry> {
    if !store.capabilities().steady {
        tokio::time::sleep(SETTLING).await;
    }
    let mut entries = store.list(options).await.unwrap().collect().await.unwrap();
    if !store.capabilities().ordered {
        entries.sort_by(|a, b| a.key.cmp(&b.key));
    }
    entries
}

async fn list_under(store: &Shared, prefix: &str) -> Vec<Entry> {
    list(store, ListOptions { prefix: prefix.into(), ..ListOptions::default() }).await
}

/// The entry of a key as a listing gives it, pinned as well as the store can.
async fn listed(store: &Shared, key: &Key) -> Option<Entry> {
    let versions = store.capabilities().versions;
    let options = ListOptions { prefix: key.clone(), versions, ..ListOptions::default() };
    list(store, options).await.into_iter().find(|entry| entry.key == *key)
}

async fn put(store: &Shared, key: &Key, data: &[u8]) -> Pin {
    let data = Bytes::copy_from_slice(data);
    let mut tries = 0;
    loop {
        match store.write(key, data.clone(), &Attributes::default(), &Condition::Any).await {
            Err(error) if error.is_retryable() && tries < 10 => tries += 1,
            outcome => return outcome.unwrap(),
        }
        tokio::time::sleep(SETTLING).await;
    }
}

async fn get(store: &Shared, key: &Key) -> Vec<u8> {
    let entry = listed(store, key).await.unwrap_or_else(|| panic!("`{key}` is not listed"));
    store.read(&entry, None).await.unwrap().data.to_vec()
}

/// Deletes these keys, children before their directories, in batches that the store takes.
async fn clear(store: &Shared, keys: &[Key]) {
    let mut keys = keys.to_vec();
    keys.sort();
    keys.reverse();
    for batch in keys.chunks(store.capabilities().delete_batch_max) {
        store.delete(batch).await.unwrap();
    }
}

/// Deletes everything under a prefix.
async fn clear_under(store: &Shared, prefix: &str) {
    clear(store, &keys(&list_under(store, prefix).await)).await;
    assert_eq!(list_under(store, prefix).await, []);
}

#[track_caller]
fn failed<T: std::fmt::Debug>(result: Result<T, Error>, kind: ErrorKind, key: &Key) {
    let error = result.expect_err("this should have failed");
    assert_eq!(error.kind(), kind, "{error}");
    assert_eq!(error.failed_key(), Some(key), "{error}");
    assert!(error.to_string().contains(&key.to_string()), "{error}");
}

fn pattern(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 31 + i / 251) as u8).collect()
}

async fn listing_pages(store: &Shared) {
    let mut expected: Vec<Key> = (0..MANY).map(|i| Key::from(format!("pages/{:05}", i * 7919 % 100_003))).collect();
    for chunk in expected.chunks(WIDTH) {
        let writes = chunk.iter().map(|key| put(store, key, key.as_bytes()));
        futures::future::join_all(writes).await;
    }
    if store.capabilities().directories {
        expected.push("pages/".into());
    }
    expected.sort();
    let entries = list_under(store, "pages/").await;
    assert_eq!(keys(&entries), expected);
    for entry in &entries {
        let is_directory = entry.key.is_directory();
        assert_eq!(entry.kind, if is_directory { Kind::Directory } else { Kind::Object });
        assert_eq!(entry.size, if is_directory { 0 } else { 11 });
        assert!(entry.mtime_ns > 0, "{entry:?}");
    }
    let after = &expected[MANY / 2];
    let options = ListOptions { prefix: "pages/".into(), after: Some(after.clone()), ..ListOptions::default() };
    assert_eq!(keys(&list(store, options).await), expected[MANY / 2 + 1..]);
    clear_under(store, "pages/").await;
}

async fn listing_options(store: &Shared) {
    // `-` < `/` < `0`: a directory's content lies between names that share its beginning.
    let written = ["o-", "o-/x", "o/a", "o/a.b", "o/a/b", "o/a/b0", "o/a0", "o0", "oo"];
    let has_directories = store.capabilities().directories;
    let mut expected = Vec::new();
    for name in written {
        // Where `a` and `a/b` exclude each other, only one of them is written.
        let excluded = has_directories && written.iter().any(|w| Key::from(*w).is_under(&name.into()));
        if !excluded {
            put(store, &name.into(), b"x").await;
            expected.push(Key::from(name));
        }
    }
    if has_directories {
        expected.extend(["o-/", "o/", "o/a/"].map(Key::from));
    }
    expected.sort();
    assert_eq!(keys(&list_under(store, "o").await), expected);
    let mut afters: Vec<Key> = expected.clone();
    afters.extend(["", "o", "o-.", "o/", "o/a/", "o/a/a", "o/a/b/c", "o/zz", "p", "o\u{7f}"].map(Key::from));
    for prefix in ["", "o", "o/", "o/a", "o/a/", "o/a/b", "o/a.b", "o0", "none", "o/none/", "o/a.b/"] {
        for after in &afters {
            let options = ListOptions { prefix: prefix.into(), after: Some(after.clone()), ..ListOptions::default() };
            let wanted = expected.iter().filter(|key| key.starts_with(prefix.as_bytes()) && *key > after);
            let wanted: Vec<Key> = wanted.cloned().collect();
            assert_eq!(keys(&list(store, options).await), wanted, "prefix `{prefix}` after `{after}`");
        }
    }
    clear_under(store, "o").await;
}

async fn awkward_names(store: &Shared) {
    let mut names: Vec<Vec<u8>> = [
        "a#1",
        "a b",
        " lead",
        "trail ",
        "a\nb",
        "a\tb",
        "\u{e9}",
        "e\u{301}",
        "%2E",
        "%2E%2E",
        "a%2Fb",
        "+",
        "a+b",
        "a&b=c",
        "a?b",
        "a;b",
        "a:b",
        "*",
        "'",
        "\"",
        "\\",
        "<a>",
        "~",
        "...",
        ".a",
        "a.",
        "$",
        "@",
        "{}",
        "\u{1F980}",
        "\u{1}",
        "\u{7f}",
        "a/ /b",
        "A",
        "a",
        "-",
        "_",
        "(a)",
        "|",
        "^",
        "`",
        "!",
        ",",
        "=",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.push(vec![b'n'; 255]);
    names.push(b"not \xff\xfe UTF-8".to_vec());
    let mut expected = Vec::new();
    for name in names {
        let key = Key::new([b"awkward/", name.as_slice()].concat());
        match store.accepts(&key) {
            Ok(()) if key.as_bytes() == b"awkward/a" && store.capabilities().directories => {}
            Ok(()) => {
                put(store, &key, key.as_bytes()).await;
                expected.push(key);
            }
            Err(error) => failed::<()>(Err(error), ErrorKind::Unrepresentable, &key),
        }
    }
    assert!(expected.len() > 20, "a store must take more names than these: {expected:?}");
    expected.sort();
    let objects: Vec<Entry> =
        list_under(store, "awkward/").await.into_iter().filter(|entry| entry.kind == Kind::Object).collect();
    assert_eq!(keys(&objects), expected);
    for key in &expected {
        assert_eq!(get(store, key).await, key.as_bytes(), "{key}");
        assert_eq!(store.stat(key).await.unwrap().unwrap().key, *key);
    }
    clear_under(store, "awkward/").await;
}

async fn refused_names(store: &Shared) {
    failed(store.accepts(&Key::default()), ErrorKind::Unrepresentable, &Key::default());
    for name in ["../up", "a/../b", "a/./b", "/lead", "a//b", "a\0b"] {
        let key = Key::from(name);
        if let Err(error) = store.accepts(&key) {
            failed::<()>(Err(error), ErrorKind::Unrepresentable, &key);
            let write = store.write(&key, Bytes::new(), &Attributes::default(), &Condition::Any).await;
            failed(write, ErrorKind::Unrepresentable, &key);
        } else {
            put(store, &key, name.as_bytes()).await;
            assert_eq!(get(store, &key).await, name.as_bytes());
            clear(store, &[key]).await;
        }
    }
}

async fn reading(store: &Shared) {
    let (key, empty, gone) = (Key::from("read/a"), Key::from("read/empty"), Key::from("read/gone"));
    let data = pattern(100_000);
    put(store, &key, &data).await;
    put(store, &empty, b"").await;
    let entry = listed(store, &key).await.unwrap();
    assert_eq!(entry.size, 100_000);
    let whole = store.read(&entry, None).await.unwrap();
    assert_eq!(whole.data, data);
    let ranges: [Range<u64>; 4] = [0..100_000, 0..1, 99_999..100_000, 4096..70_001];
    for range in ranges {
        let part = store.read(&entry, Some(range.clone())).await.unwrap();
        assert_eq!(part.data, data[range.start as usize..range.end as usize], "{range:?}");
        assert_eq!(part.attributes, whole.attributes);
    }
    let nothing = listed(store, &empty).await.unwrap();
    assert_eq!((nothing.size, nothing.kind), (0, Kind::Object));
    assert_eq!(store.read(&nothing, None).await.unwrap().data.len(), 0);

    let (fetched, pin) = store.fetch(&key).await.unwrap().unwrap();
    assert_eq!(fetched, data);
    assert!(pin.matches(&entry.pin), "{pin:?} {:?}", entry.pin);
    assert!(store.fetch(&gone).await.unwrap().is_none());
    assert_eq!(store.stat(&gone).await.unwrap(), None);
    let stat = store.stat(&key).await.unwrap().unwrap();
    assert_eq!((&stat.key, stat.kind, stat.size, stat.mtime_ns), (&key, entry.kind, entry.size, entry.mtime_ns));
    assert!(stat.pin.matches(&entry.pin));
    clear_under(store, "read/").await;
    if !store.capabilities().versions {
        nothing_else(store.read(&entry, None).await, &data, ErrorKind::NotFound, &key);
    }
}

/// A pinned read of what is there no more fails; where blocks outlive the names of what they hold, it may give just that.
#[track_caller]
fn nothing_else(read: Result<Object, Error>, data: &[u8], kind: ErrorKind, key: &Key) {
    match read {
        Ok(object) => assert_eq!(object.data, data),
        Err(_) => failed(read, kind, key),
    }
}

async fn guarded_reading(store: &Shared) {
    let key = Key::from("guard/a");
    let written = put(store, &key, b"the first").await;
    let entry = listed(store, &key).await.unwrap();
    assert!(written.matches(&entry.pin), "{written:?} {:?}", entry.pin);
    put(store, &key, b"not first").await;
    if store.capabilities().versions {
        assert_eq!(store.read(&entry, None).await.unwrap().data, "the first");
        let unversioned = Entry { pin: Pin { version: None, ..entry.pin.clone() }, ..entry.clone() };
        failed(store.read(&unversioned, None).await, ErrorKind::Changed, &key);
    } else {
        nothing_else(store.read(&entry, None).await, b"the first", ErrorKind::Changed, &key);
        nothing_else(store.read(&entry, Some(0..3)).await, b"the", ErrorKind::Changed, &key);
    }
    assert_eq!(get(store, &key).await, b"not first");
    clear_under(store, "guard/").await;
}

async fn old_versions(store: &Shared) {
    if !store.capabilities().versions {
        return;
    }
    let key = Key::from("versions/a");
    let mut entries = Vec::new();
    for content in ["one", "two", "two", "three"] {
        put(store, &key, content.as_bytes()).await;
        entries.push((listed(store, &key).await.unwrap(), content));
    }
    clear(store, std::slice::from_ref(&key)).await;
    assert_eq!(listed(store, &key).await, None);
    put(store, &key, b"four").await;
    for (entry, content) in &entries {
        assert!(entry.pin.version.is_some(), "{entry:?}");
        assert_eq!(store.read(entry, None).await.unwrap().data, content.as_bytes());
        assert_eq!(store.read(entry, Some(1..3)).await.unwrap().data, content.as_bytes()[1..3]);
    }
    clear_under(store, "versions/").await;
}

/// What is known of the versions under a prefix: key, id, current, removal and size, sorted.
async fn versions_under(store: &Shared, prefix: &str) -> Vec<(Key, Box<str>, bool, bool, u64)> {
    let versions = store.list_versions(&prefix.into()).await.unwrap().collect().await.unwrap();
    assert!(versions.iter().all(|version| version.mtime_ns > 0), "{versions:?}");
    let tuple = |version: Version| (version.key, version.id, version.current, version.removal, version.size);
    let mut versions: Vec<_> = versions.into_iter().map(tuple).collect();
    versions.sort();
    versions
}

/// Every version and every removal is listed, and goes for good when it is deleted.
pub(crate) async fn versions(store: &Shared) {
    if !store.capabilities().versions {
        let error = store.list_versions(&"old/".into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(store.delete_versions(&[]).await.unwrap_err().kind(), ErrorKind::Unsupported);
        return;
    }
    let [twice, once, gone] = ["old/a twice", "old/b&<once>", "old/c gone"].map(Key::from);
    let [first, second] = [put(store, &twice, b"1").await, put(store, &twice, b"22").await];
    let only = put(store, &once, b"333").await;
    put(store, &gone, b"4444").await;
    store.delete(std::slice::from_ref(&gone)).await.unwrap();
    put(store, &".snapferry/versions/x".into(), b"x").await;
    let id = |pin: &Pin| pin.version.clone().expect("a version");
    let all = versions_under(store, "old/").await;
    let [removal] = &all.iter().filter(|one| one.3).collect::<Vec<_>>()[..] else { panic!("one removal: {all:?}") };
    let mut expected = vec![
        (twice.clone(), id(&first), false, false, 1),
        (twice.clone(), id(&second), true, false, 2),
        (once.clone(), id(&only), true, false, 3),
    ];
    expected.sort();
    assert_eq!(all[..3], expected);
    assert_eq!((&removal.0, removal.2, removal.4), (&gone, true, 0));
    assert_eq!((&all[3].0, all.len()), (&gone, 5));
    let reserved = versions_under(store, "").await;
    assert!(reserved.iter().all(|one| !one.0.is_reserved()) && reserved.len() >= 5, "{reserved:?}");
    let mine = versions_under(store, ".snapferry/versions/").await;
    assert_eq!(mine.len(), 1);
    store.delete_versions(&[(mine[0].0.clone(), mine[0].1.clone())]).await.unwrap();
    assert_eq!(versions_under(store, ".snapferry/versions/").await, []);

    // An older one goes: what is there now is left alone. Deleting it again is no error.
    for _ in 0..2 {
        store.delete_versions(&[(twice.clone(), id(&first))]).await.unwrap();
        assert_eq!(get(store, &twice).await, b"22");
    }
    let old = Entry { pin: first, ..Entry::object(twice.clone(), 1) };
    failed(store.read(&old, None).await, ErrorKind::NotFound, &twice);
    // The content of a removed key goes, and then its removal: nothing is left of it.
    let content = all.iter().find(|one| one.0 == gone && !one.3).unwrap();
    store.delete_versions(&[(gone.clone(), content.1.clone())]).await.unwrap();
    assert_eq!(listed(store, &gone).await, None);
    store.delete_versions(&[(gone.clone(), removal.1.clone())]).await.unwrap();
    assert_eq!(versions_under(store, "old/c").await, []);
    // A current one goes: what was before it is there again.
    let third = put(store, &twice, b"333").await;
    store.delete_versions(&[(twice.clone(), id(&third))]).await.unwrap();
    assert_eq!(get(store, &twice).await, b"22");

    // More than two pages, many of one key among them, and deleted in whole batches.
    for chunk in (0..MANY).collect::<Vec<_>>().chunks(WIDTH) {
        // Not two of one key at once: what a server makes of that is not what is tried here.
        let keys: Vec<Key> = chunk.iter().map(|i| Key::from(format!("old/many/{:04}", i % 700))).collect();
        futures::future::join_all(keys.iter().map(|key| put(store, key, b"many"))).await;
    }
    let many = versions_under(store, "old/").await;
    assert_eq!(many.len(), MANY + 2);
    assert_eq!(many.iter().filter(|one| one.2).count(), 702);
    let doomed: Vec<_> = many.iter().map(|one| (one.0.clone(), one.1.clone())).collect();
    for batch in doomed.chunks(store.capabilities().delete_batch_max) {
        store.delete_versions(batch).await.unwrap();
    }
    assert_eq!(versions_under(store, "old/").await, []);
    assert_eq!(list_under(store, "old/").await, []);
}

async fn conditions(store: &Shared) {
    if !store.capabilities().conditional {
        return;
    }
    let key = Key::from("conditions/a");
    let write = async |content: &'static str, condition: Condition| {
        store.write(&key, content.into(), &Attributes::default(), &condition).await
    };
    let first = write("first", Condition::Absent).await.unwrap();
    failed(write("other", Condition::Absent).await, ErrorKind::AlreadyExists, &key);
    assert_eq!(get(store, &key).await, b"first");
    let second = write("second", Condition::Matches(first.clone())).await.unwrap();
    assert!(!second.matches(&first));
    failed(write("third", Condition::Matches(first)).await, ErrorKind::Changed, &key);
    assert_eq!(get(store, &key).await, b"second");
    clear(store, std::slice::from_ref(&key)).await;
    failed(write("third", Condition::Matches(second)).await, ErrorKind::Changed, &key);
    assert_eq!(listed(store, &key).await, None);
    write("fourth", Condition::Absent).await.unwrap();
    clear_under(store, "conditions/").await;
}

/// The size of a part that any number of parts may have.
fn part_size(store: &Shared) -> usize {
    store.capabilities().part_bytes_min.max(1000) as usize
}

/// Writes these numbers' parts of `data`, in this order.
async fn write_parts(store: &Shared, upload: &Upload, data: &[u8], numbers: &[u32]) -> Vec<Part> {
    let size = part_size(store);
    let mut parts = Vec::new();
    for &number in numbers {
        let start = (number as usize - 1) * size;
        let chunk = Bytes::copy_from_slice(&data[start..data.len().min(start + size)]);
        let part = store.write_part(upload, number, start as u64, chunk.clone()).await.unwrap();
        assert_eq!((part.number, part.offset, part.size), (number, start as u64, chunk.len() as u64));
        parts.push(part);
    }
    parts.sort_by_key(|part| part.number);
    parts
}

async fn parts(store: &Shared) {
    let key = Key::from("parts/deep/a");
    let none = Attributes::default();
    let data = pattern(2 * part_size(store) + 777);
    let upload = store.begin(&key, data.len() as u64, &none).await.unwrap();
    let wrong: Vec<u8> = data.iter().map(|byte| !byte).collect();
    write_parts(store, &upload, &wrong, &[2, 3]).await;
    let parts = write_parts(store, &upload, &data, &[3, 1, 2]).await;
    assert_eq!(listed(store, &key).await, None, "nothing may be seen before the end");
    let pin = store.finish(&upload, &parts, &none, &Condition::Any).await.unwrap();
    let entry = listed(store, &key).await.unwrap();
    assert_eq!(entry.size, data.len() as u64);
    assert!(pin.matches(&entry.pin), "{pin:?} {:?}", entry.pin);
    assert!(store.read(&entry, None).await.unwrap().data == data);
    let middle = part_size(store) as u64 - 5..part_size(store) as u64 + 5;
    let read = store.read(&entry, Some(middle.clone())).await.unwrap().data;
    assert_eq!(read, data[middle.start as usize..middle.end as usize]);

    // One part, over an object that is there already, while another upload of the same key is under way.
    let (a, b) = (b"the other content".as_slice(), b"never seen".as_slice());
    let upload = store.begin(&key, a.len() as u64, &none).await.unwrap();
    let dropped = store.begin(&key, b.len() as u64, &none).await.unwrap();
    assert_ne!(upload, dropped);
    write_parts(store, &dropped, b, &[1]).await;
    let parts = write_parts(store, &upload, a, &[1]).await;
    assert!(get(store, &key).await == data, "the old object stays until the new one is whole");
    store.finish(&upload, &parts, &none, &Condition::Any).await.unwrap();
    store.abort(&dropped).await.unwrap();
    assert_eq!(get(store, &key).await, a);
    clear_under(store, "parts/").await;
}

async fn conditional_parts(store: &Shared) {
    if !store.capabilities().conditional_parts {
        return;
    }
    let key = Key::from("parts/conditional");
    let none = Attributes::default();
    let first = put(store, &key, b"first").await;
    let second = put(store, &key, b"second").await;
    for (condition, kind) in
        [(Condition::Absent, ErrorKind::AlreadyExists), (Condition::Matches(first), ErrorKind::Changed)]
    {
        let upload = store.begin(&key, 5, &none).await.unwrap();
        let parts = write_parts(store, &upload, b"third", &[1]).await;
        failed(store.finish(&upload, &parts, &none, &condition).await, kind, &key);
        store.abort(&upload).await.unwrap();
        assert_eq!(get(store, &key).await, b"second");
    }
    let upload = store.begin(&key, 5, &none).await.unwrap();
    let parts = write_parts(store, &upload, b"third", &[1]).await;
    store.finish(&upload, &parts, &none, &Condition::Matches(second)).await.unwrap();
    assert_eq!(get(store, &key).await, b"third");
    clear_under(store, "parts/").await;
}

async fn aborting(store: &Shared) {
    let key = Key::from("abort/a");
    let none = Attributes::default();
    let upload = store.begin(&key, 4, &none).await.unwrap();
    let parts = write_parts(store, &upload, b"data", &[1]).await;
    store.abort(&upload).await.unwrap();
    store.abort(&upload).await.unwrap();
    failed(store.finish(&upload, &parts, &none, &Condition::Any).await, ErrorKind::NotFound, &key);
    failed(store.write_part(&upload, 1, 0, "data".into()).await, ErrorKind::NotFound, &key);
    assert_eq!(listed(store, &key).await, None);
    clear_under(store, "abort/").await;
}

async fn copying(store: &Shared) {
    if !store.capabilities().copy {
        return;
    }
    let (from, to) = (Key::from("copy/from #1"), Key::from("copy/deep/to +"));
    let data = pattern(70_000);
    put(store, &from, &data).await;
    let entry = listed(store, &from).await.unwrap();
    let pin = store.copy(&entry, &to, None, &Condition::Absent).await.unwrap();
    let copied = listed(store, &to).await.unwrap();
    assert!(pin.matches(&copied.pin), "{pin:?} {:?}", copied.pin);
    assert!(get(store, &from).await == data && get(store, &to).await == data);
    if store.capabilities().conditional {
        failed(store.copy(&entry, &to, None, &Condition::Absent).await, ErrorKind::AlreadyExists, &to);
    }
    put(store, &from, b"newer").await;
    assert!(get(store, &to).await == data, "a copy must not change with what it was copied from");
    if !store.capabilities().versions {
        failed(store.copy(&entry, &to, None, &Condition::Any).await, ErrorKind::Changed, &from);
    }
    let entry = listed(store, &from).await.unwrap();
    store.copy(&entry, &to, None, &Condition::Any).await.unwrap();
    assert_eq!(get(store, &to).await, b"newer");
    clear_under(store, "copy/").await;
}

/// An object is put together from ranges of the one that it replaces, and from new bytes.
async fn copying_ranges(store: &Shared) {
    let (key, none) = (Key::from("ranges/a b +"), Attributes::default());
    let size = part_size(store);
    let data = pattern(3 * size + 777);
    put(store, &key, &data).await;
    let old = listed(store, &key).await.unwrap();
    let fresh: Vec<u8> = data[..size].iter().map(|byte| !byte).collect();
    let (odd, end) = (13..13 + size, 3 * size - 4..data.len());
    let expected = [&data[odd.clone()], &fresh, &data[end.clone()]].concat();
    let upload = store.begin(&key, expected.len() as u64, &none).await.unwrap();
    if !store.capabilities().copy_ranges {
        failed(store.copy_part(&upload, 1, 0, &old, 0..size as u64).await, ErrorKind::Unsupported, &key);
        store.abort(&upload).await.unwrap();
        return clear_under(store, "ranges/").await;
    }
    let copy = async |number: u32, range: Range<usize>| {
        let (offset, range) = ((number as usize - 1) * size, range.start as u64..range.end as u64);
        let part = store.copy_part(&upload, number, offset as u64, &old, range.clone()).await.unwrap();
        assert_eq!((part.number, part.offset, part.size), (number, offset as u64, range.end - range.start));
        part
    };
    copy(1, 0..size).await;
    let last = copy(3, end).await;
    let middle = store.write_part(&upload, 2, size as u64, fresh.into()).await.unwrap();
    let first = copy(1, odd).await;
    assert!(get(store, &key).await == data, "the old object stays until the new one is whole");
    let pin = store.finish(&upload, &[first, middle, last], &none, &Condition::Any).await.unwrap();
    let new = listed(store, &key).await.unwrap();
    assert!(pin.matches(&new.pin), "{pin:?} {:?}", new.pin);
    assert_eq!(new.size, expected.len() as u64);
    assert!(store.read(&new, None).await.unwrap().data == expected);
    if store.capabilities().versions {
        assert!(store.read(&old, None).await.unwrap().data == data);
    }

    // All of another object, and what an upload holds already.
    let whole = store.begin(&"ranges/whole".into(), new.size, &none).await.unwrap();
    store.write_part(&whole, 1, 0, data[..size].to_vec().into()).await.unwrap();
    let part = store.copy_part(&whole, 1, 0, &new, 0..new.size).await.unwrap();
    store.finish(&whole, &[part], &none, &Condition::Any).await.unwrap();
    assert!(get(store, &"ranges/whole".into()).await == expected);
    clear_under(store, "ranges/").await;
}

/// What is not the pinned content is not copied.
async fn refused_ranges(store: &Shared) {
    if !store.capabilities().copy_ranges {
        return;
    }
    let (key, gone, none) = (Key::from("ranges/a"), Key::from("ranges/gone"), Attributes::default());
    let data = pattern(part_size(store) + 1);
    let (all, some) = (0..data.len() as u64, 1..data.len() as u64);
    put(store, &key, &data).await;
    put(store, &gone, &data).await;
    let old = listed(store, &key).await.unwrap();
    let deleted = listed(store, &gone).await.unwrap();
    let other: Vec<u8> = data.iter().map(|byte| !byte).collect();
    put(store, &key, &other).await;
    clear(store, std::slice::from_ref(&gone)).await;
    let current = listed(store, &key).await.unwrap();
    let upload = store.begin(&key, all.end, &none).await.unwrap();
    for range in [all.clone(), some] {
        if store.capabilities().versions {
            for entry in [&old, &deleted] {
                store.copy_part(&upload, 1, 0, entry, range.clone()).await.unwrap();
            }
        }
        let unversioned = |entry: &Entry| match store.capabilities().versions {
            true => Entry { pin: Pin { version: None, ..entry.pin.clone() }, ..entry.clone() },
            false => entry.clone(),
        };
        let copy = async |entry: &Entry| store.copy_part(&upload, 1, 0, entry, range.clone()).await;
        failed(copy(&unversioned(&old)).await, ErrorKind::Changed, &key);
        // versitygw still copies the version under a removal, which is what was asked for.
        let copy = copy(&unversioned(&deleted)).await;
        if !store.capabilities().versions || copy.is_err() {
            failed(copy, ErrorKind::NotFound, &gone);
        }
    }
    for range in [0..0, 5..all.end + 1, all.end..all.end + 1] {
        store.copy_part(&upload, 1, 0, &current, range.clone()).await.expect_err("this is no range of it");
    }
    store.abort(&upload).await.unwrap();
    failed(store.copy_part(&upload, 1, 0, &current, all).await, ErrorKind::NotFound, &key);
    assert!(get(store, &key).await == other);
    assert_eq!(listed(store, &gone).await, None);
    clear_under(store, "ranges/").await;
}

/// What a store says of a part that it copied is true, and where it proves the whole, a wrong claim comes out.
async fn receipts(store: &Shared) {
    if !store.capabilities().copy_ranges {
        return;
    }
    let (key, to, none) = (Key::from("ranges/a"), Key::from("ranges/to"), Attributes::default());
    let size = part_size(store);
    let data = pattern(2 * size + 20);
    put(store, &key, &data).await;
    let entry = listed(store, &key).await.unwrap();
    let copied = &data[20..20 + size];
    let (right, wrong) = (Sum::of(copied), Sum::of(&data[..size]));
    for claimed in [wrong, right] {
        let upload = store.begin(&to, size as u64 + 4, &none).await.unwrap();
        let mut part = store.copy_part(&upload, 1, 0, &entry, 20..20 + size as u64).await.unwrap();
        let tail = store.write_part(&upload, 2, size as u64, "tail".into()).await.unwrap();
        assert_ne!(part.proves(&right), Some(false), "{part:?}");
        assert_ne!(part.proves(&wrong), Some(true), "{part:?}");
        assert_eq!(part.proves(&Sum { size: 1, ..right }), Some(false));
        let said = part.sum();
        part.claim(&claimed);
        assert_eq!(part.sum(), said.or(Some(claimed)), "what the store said is kept");
        // What the store said itself is not claimed otherwise but by a lie.
        part.checksum = if tail.checksum.is_empty() { String::new() } else { claimed.text() };
        let finished = store.finish(&upload, &[part, tail], &none, &Condition::Any).await;
        if store.capabilities().proves_whole && claimed == wrong {
            failed(finished, ErrorKind::Damaged, &to);
            store.abort(&upload).await.unwrap();
        } else {
            finished.unwrap();
            assert!(get(store, &to).await == [copied, b"tail"].concat());
        }
    }
    clear_under(store, "ranges/").await;
}

/// What a store knows of an object's pieces is all of the object, and equal only where the bytes are.
async fn pieces(store: &Shared) {
    let (key, none) = (Key::from("pieces/a"), Attributes::default());
    let size = part_size(store);
    let mut data = pattern(2 * size + 777);
    let mut known = Vec::new();
    for _ in 0..2 {
        let upload = store.begin(&key, data.len() as u64, &none).await.unwrap();
        let parts = write_parts(store, &upload, &data, &[1, 2, 3]).await;
        store.finish(&upload, &parts, &none, &Condition::Any).await.unwrap();
        let entry = listed(store, &key).await.unwrap();
        known.push((entry.clone(), data.clone(), store.pieces(&entry).await.unwrap()));
        data[size + 5] ^= 1;
    }
    // The first content is there no longer, or only under its version.
    let (old, data, before) = known[0].clone();
    let again = store.pieces(&old).await.unwrap();
    known.push((old, data, again.clone()));
    assert!(again.is_none() || again == before, "{again:?} {before:?}");
    for (a, b) in known.iter().flat_map(|a| known.iter().map(move |b| (a, b))) {
        let (Some(pieces), Some(others)) = (&a.2, &b.2) else { continue };
        assert_eq!(pieces.iter().map(|piece| piece.size).sum::<u64>(), a.0.size);
        let mut offset = 0;
        for (piece, other) in pieces.iter().zip(others).take_while(|(piece, other)| piece.size == other.size) {
            let range = offset..offset + piece.size as usize;
            assert!(piece != other || a.1[range.clone()] == b.1[range.clone()], "{range:?} {piece:?}");
            offset = range.end;
        }
    }
    clear_under(store, "pieces/").await;
}

async fn renaming_objects(store: &Shared) {
    if !store.capabilities().rename {
        return;
    }
    let [a, b, far] = ["rename/a", "rename/b", "rename/new/deep/c"].map(Key::from);
    let pin = put(store, &a, b"of a").await;
    put(store, &b, b"of b").await;
    store.rename(&a, &b).await.unwrap();
    assert_eq!(get(store, &b).await, b"of a");
    assert_eq!(listed(store, &a).await, None);
    failed(store.rename(&a, &b).await, ErrorKind::NotFound, &a);
    store.rename(&b, &far).await.unwrap();
    assert!(listed(store, &far).await.unwrap().pin.matches(&pin), "a rename keeps the pin");
    // Nothing of that name and kind.
    for (from, to) in
        [("rename/new/deep/c/d", "rename/x"), ("rename/new/deep/c/", "rename/x/"), ("rename/new/deep", "rename/x")]
    {
        failed(store.rename(&from.into(), &to.into()).await, ErrorKind::NotFound, &from.into());
    }
    assert_eq!(get(store, &far).await, b"of a");
    clear_under(store, "rename/").await;
}

async fn renaming_directories(store: &Shared) {
    if !store.capabilities().rename || !store.capabilities().directories {
        return;
    }
    let written = ["dirs/a/1", "dirs/a/sub/2", "dirs/a/sub/3", "dirs/a-/4"].map(Key::from);
    for key in &written {
        put(store, key, key.as_bytes()).await;
    }
    let before = listed(store, &written[1]).await.unwrap();
    store.rename(&"dirs/a/".into(), &"dirs/new/b/".into()).await.unwrap();
    let expected = ["", "a-/", "a-/4", "new/", "new/b/", "new/b/1", "new/b/sub/", "new/b/sub/2", "new/b/sub/3"];
    assert_eq!(keys(&list_under(store, "dirs/").await), expected.map(|name| Key::from(format!("dirs/{name}"))));
    let renamed = listed(store, &"dirs/new/b/sub/2".into()).await.unwrap();
    assert!(renamed.pin.matches(&before.pin), "what is in a renamed directory keeps its pin");
    assert_eq!(store.read(&renamed, None).await.unwrap().data, "dirs/a/sub/2");
    failed(store.rename(&"dirs/a/".into(), &"dirs/c/".into()).await, ErrorKind::NotFound, &"dirs/a/".into());
    // The name that was freed is free indeed, for a file too.
    put(store, &"dirs/a".into(), b"a file now").await;
    let onto_full = store.rename(&"dirs/new/b/".into(), &"dirs/a-/".into()).await;
    assert!(onto_full.is_err(), "a full directory is not replaced");
    assert_eq!(get(store, &"dirs/a-/4".into()).await, b"dirs/a-/4");
    clear_under(store, "dirs/").await;
}

async fn trees(store: &Shared) {
    let [old, new, gone] = ["trees/old/", "trees/far/new/", "trees/gone/"].map(Key::from);
    if !store.capabilities().trees {
        failed(store.remove_tree(&gone).await, ErrorKind::Unsupported, &gone);
        return;
    }
    for key in ["trees/old/1", "trees/old/sub/2", "trees/old-/3", "trees/gone/4", "trees/gone/sub/5", "trees/gone-"] {
        put(store, &key.into(), key.as_bytes()).await;
    }
    let identity = async |key: &str| {
        let entry = listed(store, &key.into()).await.unwrap_or_else(|| panic!("`{key}` is not listed"));
        let file = entry.pin.file.unwrap_or_else(|| panic!("`{key}` has no identity"));
        (file.inode, file.birth_ns)
    };
    let (outer, inner) = (identity("trees/old/").await, identity("trees/old/sub/").await);
    let all = [outer, inner, identity("trees/old-/").await, identity("trees/").await];
    assert!((1..4).all(|i| !all[..i].contains(&all[i])), "directories share an identity: {all:?}");
    let stat = store.stat(&old).await.unwrap().unwrap().pin.file.unwrap();
    assert_eq!((stat.inode, stat.birth_ns), outer);
    store.rename(&old, &new).await.unwrap();
    assert_eq!((identity("trees/far/new/").await, identity("trees/far/new/sub/").await), (outer, inner));
    store.write(&old, Bytes::new(), &Attributes::default(), &Condition::Any).await.unwrap();
    assert_ne!(identity("trees/old/").await, outer, "a new directory has a new identity");
    for _ in 0..2 {
        store.remove_tree(&gone).await.unwrap();
    }
    store.remove_tree(&"trees/never/was/".into()).await.unwrap();
    let left =
        ["", "far/", "far/new/", "far/new/1", "far/new/sub/", "far/new/sub/2", "gone-", "old-/", "old-/3", "old/"];
    assert_eq!(keys(&list_under(store, "trees/").await), left.map(|name| Key::from(format!("trees/{name}"))));
    store.remove_tree(&"trees/".into()).await.unwrap();
    assert_eq!(list_under(store, "trees/").await, []);
}

async fn directories(store: &Shared) {
    let (directory, none) = (Key::from("dir/"), Attributes::default());
    for _ in 0..2 {
        store.write(&directory, Bytes::new(), &none, &Condition::Any).await.unwrap();
    }
    let entry = listed(store, &directory).await.unwrap();
    assert_eq!((entry.kind, entry.size), (Kind::Directory, 0));
    assert_eq!(store.stat(&directory).await.unwrap().unwrap().kind, Kind::Directory);
    assert_eq!(store.read(&entry, None).await.unwrap().data.len(), 0);
    let (outer, inner) = (Key::from("dir/x"), Key::from("dir/x/y"));
    put(store, &outer, b"outer").await;
    if store.capabilities().directories {
        assert_eq!(store.stat(&Key::from("dir")).await.unwrap(), None, "`dir/` is no object `dir`");
        assert_eq!(store.stat(&Key::from("dir/x/")).await.unwrap(), None, "an object `x` is no directory `x/`");
        for key in [Key::from("dir"), inner, Key::from("dir/x/")] {
            let error = store.write(&key, Bytes::new(), &none, &Condition::Any).await.unwrap_err();
            assert_eq!(error.failed_key(), Some(&key), "{error}");
        }
    } else {
        put(store, &inner, b"inner").await;
        put(store, &Key::from("dir"), b"beside").await;
        assert_eq!(get(store, &inner).await, b"inner");
        clear(store, &[inner, Key::from("dir")]).await;
    }
    assert_eq!(get(store, &outer).await, b"outer");
    assert!(listed(store, &directory).await.is_some());
    clear_under(store, "dir/").await;
}

async fn deleting(store: &Shared) {
    let [a, b, odd, gone] = ["delete/a", "delete/b", "delete/\u{e9} &<>\"'%2F", "delete/gone"].map(Key::from);
    for key in [&a, &b, &odd] {
        put(store, key, b"x").await;
    }
    let delete = async |keys: &[&Key]| {
        for batch in keys.chunks(store.capabilities().delete_batch_max) {
            store.delete(&batch.iter().map(|&key| key.clone()).collect::<Vec<_>>()).await.unwrap();
        }
    };
    store.delete(&[]).await.unwrap();
    delete(&[&gone]).await;
    delete(&[&"no/such/directory/x".into()]).await;
    delete(&[&a, &gone, &odd]).await;
    delete(&[&a, &gone, &odd]).await;
    let mut left = keys(&list_under(store, "delete/").await);
    left.retain(|key| !key.is_directory());
    assert_eq!(left, [b]);
    clear_under(store, "delete/").await;
}

async fn deleting_directories(store: &Shared) {
    let [directory, object, file] = ["gone/d/", "gone/d/x", "gone/f"].map(Key::from);
    store.write(&directory, Bytes::new(), &Attributes::default(), &Condition::Any).await.unwrap();
    put(store, &object, b"x").await;
    put(store, &file, b"f").await;
    // Neither kind is deleted by the other's name.
    for other in ["gone/d", "gone/f/", "gone/f/x"] {
        store.delete(&[other.into()]).await.unwrap();
    }
    assert!(listed(store, &directory).await.is_some() && listed(store, &file).await.is_some());
    if store.capabilities().directories {
        let error = store.delete(std::slice::from_ref(&directory)).await.unwrap_err();
        assert_eq!(error.failed_key(), Some(&directory), "{error}");
    } else {
        store.delete(std::slice::from_ref(&directory)).await.unwrap();
        assert_eq!(listed(store, &directory).await, None);
    }
    assert_eq!(get(store, &object).await, b"x", "what is in a directory is not deleted with it");
    clear_under(store, "gone/").await;
}

async fn attributes(store: &Shared) {
    let key = Key::from("attributes/a");
    let files = store.capabilities().file_attributes;
    let mut given = Attributes::default();
    if files {
        (given.mtime_ns, given.mode) = (Some(1_234_567_890_123_456_789), Some(0o640));
    } else {
        given.headers = vec![("content-type".into(), "text/x-test".into())];
        given.metadata = vec![("colour".into(), "blue".into())];
    }
    store.write(&key, "data".into(), &given, &Condition::Any).await.unwrap();
    let entry = check_attributes(store, &key, &given).await;
    let (parts_key, copy) = (Key::from("attributes/parts"), Key::from("attributes/copy"));
    let upload = store.begin(&parts_key, 4, &given).await.unwrap();
    let parts = write_parts(store, &upload, b"data", &[1]).await;
    store.finish(&upload, &parts, &given, &Condition::Any).await.unwrap();
    check_attributes(store, &parts_key, &given).await;
    if store.capabilities().copy {
        store.copy(&entry, &copy, None, &Condition::Any).await.unwrap();
        check_attributes(store, &copy, &given).await;
    }
    if files {
        let later = Attributes { mtime_ns: Some(1_300_000_000_000_000_001), mode: Some(0o600), ..given.clone() };
        store.set_attributes(&key, &later).await.unwrap();
        check_attributes(store, &key, &later).await;
        let of_directory = Attributes { mode: Some(0o700), ..later.clone() };
        store.set_attributes(&"attributes/".into(), &of_directory).await.unwrap();
        let directory = listed(store, &"attributes/".into()).await.unwrap();
        assert_eq!((Some(directory.mtime_ns), directory.mode), (of_directory.mtime_ns, of_directory.mode));
        let gone = Key::from("attributes/gone");
        failed(store.set_attributes(&gone, &later).await, ErrorKind::NotFound, &gone);
    }
    clear_under(store, "attributes/").await;
}

async fn check_attributes(store: &Shared, key: &Key, given: &Attributes) -> Entry {
    let entry = listed(store, key).await.unwrap();
    let read = store.read(&entry, Some(0..2)).await.unwrap().attributes;
    if store.capabilities().file_attributes {
        assert_eq!((Some(entry.mtime_ns), entry.mode), (given.mtime_ns, given.mode), "{key}");
        assert_eq!((read.mtime_ns, read.mode), (given.mtime_ns, given.mode), "{key}");
    } else {
        let headers = given.headers.iter().filter(|_| store.capabilities().headers);
        assert!(headers.clone().all(|header| read.headers.contains(header)), "{key}: {read:?}");
        assert!(given.metadata.iter().all(|pair| read.metadata.contains(pair)), "{key}: {read:?}");
    }
    entry
}

async fn reserved(store: &Shared) {
    let key = Key::from(".snapferry/conformance/a");
    put(store, &key, b"one").await;
    put(store, &key, b"two").await;
    put(store, &".snapferries".into(), b"of the user").await;
    assert_eq!(keys(&list(store, ListOptions::default()).await), [Key::from(".snapferries")]);
    assert_eq!(keys(&list_under(store, ".snap").await), [Key::from(".snapferries")]);
    assert_eq!(get(store, &key).await, b"two");
    assert_eq!(store.fetch(&key).await.unwrap().unwrap().0, "two");
    clear_under(store, ".snapferry/conformance/").await;
    clear_under(store, ".snapferries").await;
}
