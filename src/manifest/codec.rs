//! Entries as bytes, for files that only this machine reads: sort runs and journals.
//!
//! An entry is a varint length and a body of that length. The body is a version byte, 16 flags (little endian) that say
//! what follows, then key, size, mtime and what the flags name, in the order of [`Entry`]'s fields. Strings and bytes
//! carry a varint length; signed numbers are zigzag varints; attributes are JSON.

use bytes::Bytes;

use super::{Blocks, Digest, Entry, FileId, Kind, Pin};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;

const VERSION: u8 = 1;

/// The two low bits hold the kind.
const KIND: u16 = 0b11;
const MODE: u16 = 1 << 2;
const DIGEST: u16 = 1 << 3;
const BLOCKS: u16 = 1 << 4;
const ATTRIBUTES: u16 = 1 << 5;
const ORIGIN: u16 = 1 << 6;
/// Three flags for the pin from this bit on, and three for the origin's.
const PIN_SHIFT: u32 = 8;
const ORIGIN_SHIFT: u32 = 11;
const KNOWN: u16 = 0b0011_1111_0111_1111;

const PIN_ETAG: u16 = 1;
const PIN_VERSION: u16 = 2;
const PIN_FILE: u16 = 4;

/// Appends an entry to `out`.
pub fn encode(entry: &Entry, out: &mut Vec<u8>) {
    let mut body = Vec::with_capacity(64 + entry.key.len());
    body.push(VERSION);
    body.extend(flags(entry).to_le_bytes());
    put_bytes(&mut body, entry.key.as_bytes());
    put_varint(&mut body, entry.size);
    put_signed(&mut body, entry.mtime_ns);
    if let Some(mode) = entry.mode {
        put_varint(&mut body, mode.into());
    }
    put_pin(&mut body, &entry.pin);
    if let Some(origin) = &entry.origin {
        put_pin(&mut body, origin);
    }
    if let Some(digest) = &entry.digest {
        body.extend(digest.as_bytes());
    }
    if let Some(blocks) = &entry.blocks {
        put_bytes(&mut body, blocks.as_bytes());
    }
    if let Some(attributes) = &entry.attributes {
        put_bytes(&mut body, &super::attributes_to_json(attributes));
    }
    put_bytes(out, &body);
}

/// Takes one entry from the front of `input`. Bytes that are no entry fail with `Damaged`, and `input` stays put.
pub fn decode(input: &mut &[u8]) -> Result<Entry> {
    let mut rest = *input;
    let mut body = take_bytes(&mut rest)?;
    let entry = decode_body(&mut body)?;
    if !body.is_empty() {
        return Err(damaged("has bytes after its end").key(&entry.key));
    }
    *input = rest;
    Ok(entry)
}

fn decode_body(body: &mut &[u8]) -> Result<Entry> {
    let [version] = take(body)?;
    if version != VERSION {
        return Err(damaged(&format!("has version {version}, this program reads {VERSION}")));
    }
    let flags = u16::from_le_bytes(take(body)?);
    let origin_flags = 0b111 << ORIGIN_SHIFT;
    if flags & !KNOWN != 0 || (flags & ORIGIN == 0 && flags & origin_flags != 0) {
        return Err(damaged("has flags that this program does not know"));
    }
    let has = |flag: u16| flags & flag != 0;
    let kind = match flags & KIND {
        0 => Kind::Object,
        1 => Kind::Directory,
        2 => Kind::Link,
        _ => Kind::Special,
    };
    let key = Key::copy_from(take_bytes(body)?);
    let size = take_varint(body)?;
    let mtime_ns = take_signed(body)?;
    let mode = has(MODE).then(|| take_u32(body)).transpose()?;
    let pin = take_pin(body, flags >> PIN_SHIFT)?;
    let origin = has(ORIGIN).then(|| take_pin(body, flags >> ORIGIN_SHIFT)).transpose()?;
    let digest = has(DIGEST).then(|| take(body).map(Digest::from_bytes)).transpose()?;
    let blocks = has(BLOCKS).then(|| take_blocks(body)).transpose()?;
    let attributes = match has(ATTRIBUTES) {
        true => Some(super::attributes_from_json(take_bytes(body)?).map_err(|error| error.key(&key))?),
        false => None,
    };
    Ok(Entry { key, kind, size, mtime_ns, mode, pin, origin, digest, blocks, attributes })
}

fn flags(entry: &Entry) -> u16 {
    let kind = match entry.kind {
        Kind::Object => 0,
        Kind::Directory => 1,
        Kind::Link => 2,
        Kind::Special => 3,
    };
    let when = |present: bool, flag: u16| if present { flag } else { 0 };
    let pin = |pin: &Pin| {
        when(pin.etag.is_some(), PIN_ETAG)
            | when(pin.version.is_some(), PIN_VERSION)
            | when(pin.file.is_some(), PIN_FILE)
    };
    kind | when(entry.mode.is_some(), MODE)
        | when(entry.digest.is_some(), DIGEST)
        | when(entry.blocks.is_some(), BLOCKS)
        | when(entry.attributes.is_some(), ATTRIBUTES)
        | when(entry.origin.is_some(), ORIGIN)
        | pin(&entry.pin) << PIN_SHIFT
        | entry.origin.as_ref().map_or(0, pin) << ORIGIN_SHIFT
}

fn put_pin(out: &mut Vec<u8>, pin: &Pin) {
    for text in [&pin.etag, &pin.version].into_iter().flatten() {
        put_bytes(out, text.as_bytes());
    }
    if let Some(file) = &pin.file {
        put_varint(out, file.inode);
        put_signed(out, file.birth_ns);
        put_signed(out, file.mtime_ns);
    }
}

fn take_pin(body: &mut &[u8], flags: u16) -> Result<Pin> {
    let etag = (flags & PIN_ETAG != 0).then(|| take_text(body)).transpose()?;
    let version = (flags & PIN_VERSION != 0).then(|| take_text(body)).transpose()?;
    let file = (flags & PIN_FILE != 0).then(|| take_file(body)).transpose()?;
    Ok(Pin { etag, version, file })
}

fn take_file(body: &mut &[u8]) -> Result<FileId> {
    Ok(FileId { inode: take_varint(body)?, birth_ns: take_signed(body)?, mtime_ns: take_signed(body)? })
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N]> {
    let (&first, rest) = input.split_first_chunk().ok_or_else(cut_short)?;
    *input = rest;
    Ok(first)
}

fn take_varint(input: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let [byte] = take(input)?;
        let bits = u64::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            break;
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(damaged("has a number that is too large"))
}

fn take_u32(input: &mut &[u8]) -> Result<u32> {
    u32::try_from(take_varint(input)?).map_err(|_| damaged("has a number that is too large"))
}

fn take_signed(input: &mut &[u8]) -> Result<i64> {
    let value = take_varint(input)?;
    Ok((value >> 1) as i64 ^ -((value & 1) as i64))
}

fn take_bytes<'a>(input: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = usize::try_from(take_varint(input)?).map_err(|_| cut_short())?;
    let (first, rest) = input.split_at_checked(length).ok_or_else(cut_short)?;
    *input = rest;
    Ok(first)
}

fn take_blocks(input: &mut &[u8]) -> Result<Blocks> {
    Blocks::from_bytes(Bytes::copy_from_slice(take_bytes(input)?))
        .ok_or_else(|| damaged("has block digests that are none"))
}

fn take_text(input: &mut &[u8]) -> Result<Box<str>> {
    std::str::from_utf8(take_bytes(input)?).map(Box::from).map_err(|_| damaged("has text that is not UTF-8"))
}

fn cut_short() -> Error {
    damaged("ends early")
}

fn damaged(how: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("a stored entry {how}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::arbitrary;

    proptest! {
        #[test]
        fn entries_read_back_one_after_another(entries in proptest::collection::vec(arbitrary::entry(), 0..8)) {
            let mut bytes = Vec::new();
            for entry in &entries {
                encode(entry, &mut bytes);
            }
            let mut rest = &bytes[..];
            for entry in &entries {
                prop_assert_eq!(&decode(&mut rest).unwrap(), entry);
            }
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn any_cut_is_damage_and_takes_nothing(entry in arbitrary::entry(), at in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            encode(&entry, &mut bytes);
            let mut rest = &bytes[..at.index(bytes.len())];
            let before = rest;
            prop_assert_eq!(decode(&mut rest).unwrap_err().kind(), ErrorKind::Damaged);
            prop_assert_eq!(rest, before);
        }

        #[test]
        fn damage_is_an_error_or_another_entry(
            entry in arbitrary::entry(), at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let mut bytes = Vec::new();
            encode(&entry, &mut bytes);
            let index = at.index(bytes.len());
            bytes[index] ^= 1 << bit;
            match decode(&mut &bytes[..]) {
                // Attributes are JSON, in which another spelling may say the same.
                Ok(other) => prop_assert!(other != entry || entry.attributes.is_some()),
                Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Damaged),
            }
        }
    }

    #[test]
    fn extreme_numbers_survive() {
        for number in [0, 1, 127, 128, u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, number);
            assert_eq!(take_varint(&mut &bytes[..]).unwrap(), number);
        }
        for number in [0, -1, i64::MIN, i64::MAX] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, number);
            assert_eq!(take_signed(&mut &bytes[..]).unwrap(), number);
        }
    }
}
