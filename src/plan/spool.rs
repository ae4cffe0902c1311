//! Records in a temporary file: written once, read as often as needed. What keeps plans out of memory.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::marker::PhantomData;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// A record that a [`Spool`] can hold.
pub trait Record: Sized {
    /// Appends the record's bytes.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads back what [`Record::encode`] wrote.
    fn decode(bytes: &mut &[u8]) -> Result<Self>;
}

/// Records being written.
#[derive(Debug)]
pub struct SpoolWriter<T> {
    file: BufWriter<File>,
    buffer: Vec<u8>,
    len: u64,
    records: PhantomData<fn(T)>,
}

/// Records to be read, in the order they were written.
#[derive(Debug)]
pub struct Spool<T> {
    file: File,
    len: u64,
    records: PhantomData<fn() -> T>,
}

fn trouble(error: std::io::Error) -> Error {
    Error::from(error).hint("make room in the state directory, or choose another with --state-dir")
}

impl<T: Record> SpoolWriter<T> {
    /// A spool in an unnamed file in `folder`.
    pub fn new(folder: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(trouble)?;
        Ok(Self { file: BufWriter::with_capacity(64 << 10, file), buffer: Vec::new(), len: 0, records: PhantomData })
    }

    /// Appends a record.
    pub fn push(&mut self, record: &T) -> Result<()> {
        self.buffer.clear();
        record.encode(&mut self.buffer);
        let len = u32::try_from(self.buffer.len()).map_err(|_| Error::internal("a record of a plan is over 4 GiB"))?;
        self.file.write_all(&len.to_le_bytes()).map_err(trouble)?;
        self.file.write_all(&self.buffer).map_err(trouble)?;
        self.len += 1;
        Ok(())
    }

    /// Ends the writing.
    pub fn finish(self) -> Result<Spool<T>> {
        let file = self.file.into_inner().map_err(|error| trouble(error.into_error()))?;
        Ok(Spool { file, len: self.len, records: PhantomData })
    }
}

impl<T: Record> Spool<T> {
    /// A spool with nothing in it.
    pub fn empty(folder: &Path) -> Result<Self> {
        SpoolWriter::new(folder)?.finish()
    }

    /// How many records there are.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads them from the start. Several readers do not disturb each other.
    pub fn iter(&self) -> Result<SpoolReader<T>> {
        let file = FileAt { file: self.file.try_clone().map_err(trouble)?, at: 0 };
        let file = BufReader::with_capacity(64 << 10, file);
        Ok(SpoolReader { file, buffer: Vec::new(), left: self.len, records: PhantomData })
    }
}

/// Reads a file by its own position, so that clones of one descriptor stay apart.
#[derive(Debug)]
struct FileAt {
    file: File,
    at: u64,
}

impl Read for FileAt {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(&self.file, buffer, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// The records of a [`Spool`].
#[derive(Debug)]
pub struct SpoolReader<T> {
    file: BufReader<FileAt>,
    buffer: Vec<u8>,
    left: u64,
    records: PhantomData<fn() -> T>,
}

impl<T: Record> SpoolReader<T> {
    fn read(&mut self) -> Result<T> {
        let mut len = [0; 4];
        self.file.read_exact(&mut len).map_err(trouble)?;
        self.buffer.resize(u32::from_le_bytes(len) as usize, 0);
        self.file.read_exact(&mut self.buffer).map_err(trouble)?;
        let mut bytes = &self.buffer[..];
        let record = T::decode(&mut bytes)?;
        if !bytes.is_empty() {
            return Err(Error::new(Kind::Damaged, "a record of a plan has bytes to spare"));
        }
        Ok(record)
    }
}

impl<T: Record> Iterator for SpoolReader<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            self.left = 0;
        }
        Some(record)
    }
}
