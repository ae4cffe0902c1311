//! From what the Ozone Manager knows of a key to an entry.

use super::content;
use super::om::{KeyInfo, KeyKind};
use crate::key::Key;
use crate::manifest::{Attributes, Entry, FileId, Kind, Pin};
use crate::store::kind_of;
use crate::store::s3::file_attributes;

/// Metadata that Ozone keeps for itself beside what a user gave (`OzoneConsts`).
const OWN_METADATA: [&str; 4] = ["gdprFlag", "hsyncClientId", "leaseRecovery", "isDirectory"];

/// The entry of a key. `directories`: the bucket has real ones.
pub(super) fn entry(info: &KeyInfo, directories: bool) -> Entry {
    let mtime_ns = i64::try_from(info.mtime_ms).unwrap_or(i64::MAX).saturating_mul(1_000_000);
    if directories && info.kind == KeyKind::Directory {
        // The number of a directory stays the same under another name, and its time follows what is in it.
        let file = FileId { inode: info.object_id, birth_ns: 0, mtime_ns: 0 };
        let pin = Pin { file: Some(file), ..Pin::default() };
        return Entry { mtime_ns, pin, ..Entry::directory(Key::from(format!("{}/", info.name))) };
    }
    let attributes = attributes(info);
    let pin = Pin {
        etag: info.etag.as_deref().map(Into::into),
        version: Some(content::name(&info.blocks, &attributes)),
        file: None,
    };
    // A flat bucket calls some objects no files, those that were written in parts among them.
    let key = Key::from(info.name.as_str());
    Entry {
        kind: if directories { Kind::Object } else { kind_of(&key, info.size) },
        mtime_ns,
        pin,
        attributes: attributes.beyond_files().then(|| Box::new(attributes)),
        ..Entry::object(key, info.size)
    }
}

/// What travels with a key's bytes.
pub(super) fn attributes(info: &KeyInfo) -> Attributes {
    let own = |name: &str| OWN_METADATA.contains(&name);
    let metadata = info.metadata.iter().filter(|(name, _)| !own(name));
    let mut attributes = Attributes { tags: info.tags.clone(), ..Attributes::default() };
    for (name, value) in metadata {
        attributes.metadata.push((name.to_ascii_lowercase(), value.clone()));
    }
    attributes.metadata.sort_unstable();
    attributes.tags.sort_unstable();
    file_attributes(&mut attributes);
    attributes
}
