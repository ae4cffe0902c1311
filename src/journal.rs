//! What a running job has landed, on this machine's disk: so that the next run does not do it again.
//!
//! An append-only file of frames: length and CRC-32 (both little endian), then a record. A frame that is cut short or
//! does not match its sum ends the journal, as after a crash it may. One thread writes; records that arrive together
//! are written together. Losing the journal costs time, never data.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::{Entry, Subtree, codec};
use crate::sort::Sorter;
use crate::store::Part;

const MAGIC: &[u8; 8] = b"sfjrnl02";

/// Records that may wait to be written.
const WAITING_MAX: usize = 4096;

/// Records that are written together.
const GROUP_MAX: usize = 512;

/// While records come, how often they are made safe from a power cut.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// Longest legal frame: an entry with the block digests of a large object.
const FRAME_BYTES_MAX: u32 = 256 << 20;

/// Memory for sorting what has landed, in bytes.
const SORT_MEMORY: usize = 16 << 20;

/// What a journal belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The source's address.
    pub source: String,
    /// The target's address.
    pub target: String,
    /// The start of the machine: what a local target landed before another start may be gone.
    pub boot: String,
}

/// One thing that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Content landed: the target's entry under its final key, with the source's pin as origin.
    Landed(Entry),
    /// The source's object had changed and was pinned again, as this entry.
    Repinned(Entry),
    /// A large object's upload began, for this source entry.
    Began {
        /// The source's entry.
        source: Entry,
        /// Where it is being written.
        at: Key,
        /// The store's name for the upload.
        upload: String,
        /// Bytes in each part but the last; 0 where that differs.
        part_bytes: u64,
    },
    /// A part landed.
    Part {
        /// The store's name for the upload.
        upload: String,
        /// The part, with the store's receipt.
        part: Part,
        /// The BLAKE3 subtree values of the blocks in it; none of a part that is known again only by reading it again.
        values: Vec<Subtree>,
    },
}

/// An upload that an earlier run left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenUpload {
    /// The source's entry.
    pub source: Entry,
    /// Where it is being written.
    pub at: Key,
    /// Bytes in each part but the last; 0 where that differs.
    pub part_bytes: u64,
    /// The parts that landed by their numbers, with the BLAKE3 subtree values of their blocks.
    pub parts: HashMap<u32, (Part, Vec<Subtree>)>,
}

/// A journal open for writing.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    sender: Option<mpsc::Sender<Event>>,
    writer: Option<JoinHandle<Result<()>>>,
}

impl Journal {
    /// Opens the journal at `path`, keeping what it holds if it belongs to `header`, else beginning anew.
    pub fn open(path: &Path, header: &Header) -> Result<Self> {
        let end = match Reader::open(path)? {
            Some(mut reader) if reader.header == *header => {
                while reader.next_event()?.is_some() {}
                Some(reader.at)
            }
            _ => None,
        };
        let mut file = File::options().create(true).truncate(false).write(true).open(path).map_err(trouble)?;
        match end {
            Some(end) => file.set_len(end).map_err(trouble)?,
            None => {
                file.set_len(0).map_err(trouble)?;
                let mut start = MAGIC.to_vec();
                let header = serde_json::to_vec(header)
                    .map_err(|error| Error::internal("a journal's header is not JSON").caused_by(error))?;
                frame(&header, &mut start);
                file.write_all(&start).map_err(trouble)?;
            }
        }
        file.seek(SeekFrom::End(0)).map_err(trouble)?;
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let writer = std::thread::Builder::new().name("journal".into()).spawn(move || write(file, receiver))?;
        Ok(Self { path: path.into(), sender: Some(sender), writer: Some(writer) })
    }

    /// Appends an event. Returns when it is queued; the wait, if any, is for a disk that is behind.
    pub async fn append(&self, event: Event) -> Result<()> {
        let sender = self.sender.as_ref().ok_or_else(|| Error::internal("the journal is closed"))?;
        sender.send(event).await.map_err(|_| {
            Error::new(Kind::Io, "the journal cannot be written")
                .at(self.path.display().to_string())
                .hint("make room in the state directory, or choose another with --state-dir")
        })
    }

    /// Writes out what is queued and makes it safe.
    pub fn close(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        drop(self.sender.take());
        match self.writer.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(Error::internal("the journal's thread broke off")),
            None => Ok(()),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!("the journal could not be closed: {error}");
        }
    }
}

fn trouble(error: std::io::Error) -> Error {
    Error::from(error).hint("check the state directory, or choose another with --state-dir")
}

fn write(mut file: File, mut receiver: mpsc::Receiver<Event>) -> Result<()> {
    let mut events = Vec::new();
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut record = Vec::new();
    let mut synced = Instant::now();
    while receiver.blocking_recv_many(&mut events, GROUP_MAX) > 0 {
        buffer.clear();
        for event in events.drain(..) {
            record.clear();
            encode(&event, &mut record);
            frame(&record, &mut buffer);
        }
        file.write_all(&buffer).map_err(trouble)?;
        if synced.elapsed() >= SYNC_INTERVAL {
            file.sync_data().map_err(trouble)?;
            synced = Instant::now();
        }
    }
    Ok(())
}

fn frame(record: &[u8], out: &mut Vec<u8>) {
    out.extend((record.len() as u32).to_le_bytes());
    out.extend(crc32fast::hash(record).to_le_bytes());
    out.extend(record);
}

/// Appends one event as a record. For fuzzing, too.
pub fn encode(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Landed(entry) => {
            out.push(1);
            codec::encode(entry, out);
        }
        Event::Repinned(entry) => {
            out.push(2);
            codec::encode(entry, out);
        }
        Event::Began { source, at, upload, part_bytes } => {
            out.push(3);
            codec::encode(source, out);
            put(at.as_bytes(), out);
            put(upload.as_bytes(), out);
            out.extend(part_bytes.to_le_bytes());
        }
        Event::Part { upload, part, values } => {
            out.push(4);
            put(upload.as_bytes(), out);
            out.extend(part.number.to_le_bytes());
            out.extend(part.offset.to_le_bytes());
            out.extend(part.size.to_le_bytes());
            put(part.etag.as_bytes(), out);
            put(part.checksum.as_bytes(), out);
            put(values.as_flattened(), out);
        }
    }
}

fn put(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

/// Reads one event back. For fuzzing, too.
pub fn decode(mut bytes: &[u8]) -> Result<Event> {
    let bytes = &mut bytes;
    let [tag] = take(bytes)?;
    let event = match tag {
        1 => Event::Landed(codec::decode(bytes)?),
        2 => Event::Repinned(codec::decode(bytes)?),
        3 => Event::Began {
            source: codec::decode(bytes)?,
            at: Key::copy_from(take_bytes(bytes)?),
            upload: take_text(bytes)?,
            part_bytes: u64::from_le_bytes(take(bytes)?),
        },
        4 => Event::Part {
            upload: take_text(bytes)?,
            part: Part {
                number: u32::from_le_bytes(take(bytes)?),
                offset: u64::from_le_bytes(take(bytes)?),
                size: u64::from_le_bytes(take(bytes)?),
                etag: take_text(bytes)?,
                checksum: take_text(bytes)?,
            },
            values: take_values(bytes)?,
        },
        _ => return Err(damaged()),
    };
    if bytes.is_empty() { Ok(event) } else { Err(damaged()) }
}

fn damaged() -> Error {
    Error::new(Kind::Damaged, "a record of the journal makes no sense")
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(*head)
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8]> {
    let len = u32::from_le_bytes(take(bytes)?) as usize;
    let (head, rest) = bytes.split_at_checked(len).ok_or_else(damaged)?;
    *bytes = rest;
    Ok(head)
}

fn take_values(bytes: &mut &[u8]) -> Result<Vec<Subtree>> {
    let (values, rest) = take_bytes(bytes)?.as_chunks();
    if rest.is_empty() { Ok(values.to_vec()) } else { Err(damaged()) }
}

fn take_text(bytes: &mut &[u8]) -> Result<String> {
    String::from_utf8(take_bytes(bytes)?.to_vec()).map_err(|_| damaged())
}

/// Reads a journal from its start.
#[derive(Debug)]
pub struct Reader {
    /// What it belongs to.
    pub header: Header,
    file: BufReader<File>,
    buffer: Vec<u8>,
    /// Where the last whole frame ended.
    at: u64,
}

impl Reader {
    /// Opens a journal; none if there is none or its start cannot be read.
    pub fn open(path: &Path) -> Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(trouble(error).at(path.display().to_string())),
        };
        let mut file = BufReader::with_capacity(64 << 10, file);
        let mut magic = [0; 8];
        if file.read_exact(&mut magic).is_err() || magic != *MAGIC {
            return Ok(None);
        }
        let header = Header { source: String::new(), target: String::new(), boot: String::new() };
        let mut reader = Self { header, file, buffer: Vec::new(), at: MAGIC.len() as u64 };
        if !reader.next_frame()? {
            return Ok(None);
        }
        match serde_json::from_slice(&reader.buffer) {
            Ok(header) => reader.header = header,
            Err(_) => return Ok(None),
        }
        Ok(Some(reader))
    }

    /// The next event; none at the end, which is where the first damaged frame begins.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let before = self.at;
        if !self.next_frame()? {
            return Ok(None);
        }
        match decode(&self.buffer) {
            Ok(event) => Ok(Some(event)),
            Err(error) => {
                tracing::warn!("the journal ends early: {error}");
                self.at = before;
                Ok(None)
            }
        }
    }

    fn next_frame(&mut self) -> Result<bool> {
        let mut head = [0; 8];
        if !fill(&mut self.file, &mut head)? {
            return Ok(false);
        }
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
        let sum = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        if len > FRAME_BYTES_MAX {
            return Ok(false);
        }
        self.buffer.clear();
        let read = (&mut self.file).take(len.into()).read_to_end(&mut self.buffer).map_err(trouble)?;
        if read != len as usize || crc32fast::hash(&self.buffer) != sum {
            return Ok(false);
        }
        self.at += 8 + u64::from(len);
        Ok(true)
    }
}

fn fill(file: &mut impl Read, buffer: &mut [u8]) -> Result<bool> {
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(trouble(error)),
    }
}

/// What a journal tells the next run.
#[derive(Debug, Default)]
pub struct Memory {
    landed: Option<Sorter>,
    repinned: Option<Sorter>,
    /// Uploads without a landed object, by the store's name for them.
    pub uploads: HashMap<String, OpenUpload>,
    /// How many objects had landed.
    pub landed_count: u64,
    /// How many objects were pinned again.
    pub repinned_count: u64,
}

impl Memory {
    /// Reads the journal at `path`, if it belongs to `header`. Sorting may use files in `folder`.
    pub fn load(path: &Path, header: &Header, folder: &Path) -> Result<Self> {
        let Some(mut reader) = Reader::open(path)?.filter(|reader| reader.header == *header) else {
            return Ok(Self::default());
        };
        let mut landed = Sorter::new(folder, SORT_MEMORY);
        let mut repinned = Sorter::new(folder, SORT_MEMORY);
        let mut memory = Self::default();
        let mut buffer = Vec::new();
        while let Some(event) = reader.next_event()? {
            buffer.clear();
            match event {
                Event::Landed(entry) => {
                    codec::encode(&entry, &mut buffer);
                    landed.push(entry.key.as_bytes(), &buffer)?;
                    memory.landed_count += 1;
                    memory.uploads.retain(|_, upload| upload.source.key != entry.key);
                }
                Event::Repinned(entry) => {
                    codec::encode(&entry, &mut buffer);
                    repinned.push(entry.key.as_bytes(), &buffer)?;
                    memory.repinned_count += 1;
                }
                Event::Began { source, at, upload, part_bytes } => {
                    memory.uploads.insert(upload, OpenUpload { source, at, part_bytes, parts: HashMap::new() });
                }
                Event::Part { upload, part, values } => {
                    if let Some(open) = memory.uploads.get_mut(&upload) {
                        open.parts.insert(part.number, (part, values));
                    }
                }
            }
        }
        memory.landed = Some(landed);
        memory.repinned = Some(repinned);
        Ok(memory)
    }

    /// What has landed, in byte order of the keys; the last word on each.
    pub fn landed(&mut self) -> Result<crate::merge::Entries<'static>> {
        latest(self.landed.take())
    }

    /// What was pinned again, in byte order of the keys; the last word on each.
    pub fn repinned(&mut self) -> Result<crate::merge::Entries<'static>> {
        latest(self.repinned.take())
    }
}

/// The last entry of each key: the sorter keeps equal keys in the order in which they came.
fn latest(sorter: Option<Sorter>) -> Result<crate::merge::Entries<'static>> {
    let Some(sorter) = sorter else { return Ok(Box::new(std::iter::empty())) };
    let mut sorted = sorter.finish()?.peekable();
    Ok(Box::new(std::iter::from_fn(move || {
        loop {
            let record = match sorted.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            let again = matches!(sorted.peek(), Some(Ok(next)) if next.key == record.key);
            if !again {
                return Some(codec::decode(&mut &record.payload[..]));
            }
        }
    })))
}
