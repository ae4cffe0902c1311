//! Sorted files and their merge.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::Record;
use crate::error::{Error, Kind, Result};

/// Bytes that are read from or written to a run at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// A sorted file.
#[derive(Debug)]
pub(super) struct Run {
    file: File,
    bytes: u64,
    /// How often its records were merged.
    pub(super) level: u32,
}

/// Writes a run: for each record the two lengths (little endian, 4 bytes each), the key and the payload.
pub(super) struct RunWriter<'a> {
    directory: &'a Path,
    file: BufWriter<File>,
    bytes: u64,
    level: u32,
}

impl<'a> RunWriter<'a> {
    pub(super) fn create(directory: &'a Path, level: u32) -> Result<Self> {
        let file = tempfile::tempfile_in(directory).map_err(|error| failed(directory, error))?;
        Ok(Self { directory, file: BufWriter::with_capacity(BUFFER_BYTES, file), bytes: 0, level })
    }

    pub(super) fn write(&mut self, key: &[u8], payload: &[u8]) -> Result<()> {
        let mut write = || {
            self.file.write_all(&(key.len() as u32).to_le_bytes())?;
            self.file.write_all(&(payload.len() as u32).to_le_bytes())?;
            self.file.write_all(key)?;
            self.file.write_all(payload)
        };
        write().map_err(|error| failed(self.directory, error))?;
        self.bytes += (8 + key.len() + payload.len()) as u64;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Run> {
        let rewound = self.file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|mut file| {
            file.rewind()?;
            Ok(file)
        });
        let file = rewound.map_err(|error| failed(self.directory, error))?;
        Ok(Run { file, bytes: self.bytes, level: self.level })
    }
}

/// Reads a run back.
#[derive(Debug)]
struct RunReader {
    file: BufReader<File>,
    bytes_left: u64,
}

impl RunReader {
    fn next(&mut self) -> std::io::Result<Option<Record>> {
        if self.bytes_left == 0 {
            return Ok(None);
        }
        let mut lengths = [[0; 4]; 2];
        self.file.read_exact(lengths.as_flattened_mut())?;
        let [key_len, payload_len] = lengths.map(|length| u32::from_le_bytes(length) as usize);
        let taken = 8 + key_len as u64 + payload_len as u64;
        let left = self.bytes_left.checked_sub(taken);
        self.bytes_left = left.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        let mut bytes = vec![0; key_len + payload_len];
        self.file.read_exact(&mut bytes)?;
        let mut key = Bytes::from(bytes);
        let payload = key.split_off(key_len);
        Ok(Some(Record { key, payload }))
    }
}

/// Runs that are read side by side; of equal keys the one from the earlier run comes first.
#[derive(Debug)]
pub(super) struct Merge {
    directory: PathBuf,
    readers: Vec<RunReader>,
    /// The next record of each run that has one: key, run, payload.
    heads: BinaryHeap<Reverse<(Bytes, usize, Bytes)>>,
}

impl Merge {
    /// Merges runs, from the oldest to the newest.
    pub(super) fn open(runs: Vec<Run>, directory: &Path) -> Result<Self> {
        let reader =
            |run: Run| RunReader { file: BufReader::with_capacity(BUFFER_BYTES, run.file), bytes_left: run.bytes };
        let readers: Vec<_> = runs.into_iter().map(reader).collect();
        let mut merge =
            Self { directory: directory.to_owned(), heads: BinaryHeap::with_capacity(readers.len()), readers };
        for run in 0..merge.readers.len() {
            merge.advance(run)?;
        }
        Ok(merge)
    }

    fn advance(&mut self, run: usize) -> Result<()> {
        let next = self.readers[run].next().map_err(|error| failed(&self.directory, error))?;
        if let Some(Record { key, payload }) = next {
            self.heads.push(Reverse((key, run, payload)));
        }
        Ok(())
    }
}

impl Iterator for Merge {
    type Item = Result<Record>;

    fn next(&mut self) -> Option<Self::Item> {
        let Reverse((key, run, payload)) = self.heads.pop()?;
        if let Err(error) = self.advance(run) {
            self.heads.clear();
            return Some(Err(error));
        }
        Some(Ok(Record { key, payload }))
    }
}

fn failed(directory: &Path, error: std::io::Error) -> Error {
    let error = Error::from(error).at(directory.display().to_string());
    match error.kind() {
        Kind::Full => error.hint("make room there, or choose another directory with --state-dir"),
        _ => error.hint("sorting needs a directory that can be written to; choose another one with --state-dir"),
    }
}
