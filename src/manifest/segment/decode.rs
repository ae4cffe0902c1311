//! Parquet to entries, trusting nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use parquet::column::reader::{ColumnReaderImpl, get_typed_column_reader};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::schema::types::SchemaDescriptor;

use super::{DIRECTORY, ENTRIES_MAX, OBJECT, SCHEMA, flaw};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::key::Key;
use crate::manifest::{Blocks, Digest, Entry, FileId, Kind, Pin, attributes_from_json};

/// Most bytes that a file's columns may claim to have when they are unpacked.
const UNPACKED_BYTES_MAX: i64 = 1 << 30;

/// Entries that are decoded at a time.
const BATCH: usize = 1024;

/// All entries of a segment's file. What is not a sound one fails with `Damaged`.
pub fn decode(file: Bytes) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for batch in Batches::open(file)? {
        entries.append(&mut batch?);
    }
    Ok(entries)
}

/// The entries of a segment's file, a batch at a time, so that no more than a page of each column is unpacked.
///
/// Sound entries in order, or an error of kind `Damaged`, after which there is nothing more.
pub struct Batches {
    columns: Columns,
    left: usize,
    last: Option<Key>,
}

impl std::fmt::Debug for Batches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batches").field("left", &self.left).field("last", &self.last).finish_non_exhaustive()
    }
}

impl Batches {
    /// Reads the file's metadata.
    pub fn open(file: Bytes) -> Result<Self> {
        let (columns, left) = guarded(|| Columns::open(file))?;
        Ok(Self { columns, left, last: None })
    }

    /// Entries that are still to come.
    pub fn entries_left(&self) -> usize {
        self.left
    }

    fn read(&mut self) -> Result<Vec<Entry>> {
        let wanted = self.left.min(BATCH);
        let batch = guarded(|| self.columns.read(wanted))?;
        for entry in &batch {
            if let Some(flaw) = flaw(entry, self.last.as_ref()) {
                return Err(damaged(flaw).key(&entry.key));
            }
            self.last = Some(entry.key.clone());
        }
        self.left -= wanted;
        Ok(batch)
    }
}

impl Iterator for Batches {
    type Item = Result<Vec<Entry>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        let batch = self.read();
        if batch.is_err() {
            self.left = 0;
        }
        Some(batch)
    }
}

/// Runs the decoder of a format that was made for trusted files: also its panics become errors.
fn guarded<T>(decode: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(decode)).unwrap_or_else(|_| Err(damaged("makes no sense to the Parquet decoder")))
}

fn damaged(how: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("a manifest segment is damaged: it {how}"))
}

fn unreadable(error: ParquetError) -> Error {
    damaged("cannot be read as Parquet").caused_by(error)
}

/// One reader for each column of the schema, in its order.
struct Columns {
    key: Column<ByteArrayType>,
    kind: Column<ByteArrayType>,
    size: Column<Int64Type>,
    mtime: Column<Int64Type>,
    mode: Column<Int32Type>,
    pin: PinColumns,
    origin: PinColumns,
    digest: Column<FixedLenByteArrayType>,
    blocks: Column<ByteArrayType>,
    attributes: Column<ByteArrayType>,
}

struct PinColumns {
    etag: Column<ByteArrayType>,
    version: Column<ByteArrayType>,
    inode: Column<Int64Type>,
    birth_ns: Column<Int64Type>,
    mtime_ns: Column<Int64Type>,
}

struct Column<T: DataType> {
    reader: ColumnReaderImpl<T>,
    optional: bool,
}

impl Columns {
    /// The columns and how many entries they hold.
    fn open(file: Bytes) -> Result<(Self, usize)> {
        let file = SerializedFileReader::new(file).map_err(unreadable)?;
        if file.num_row_groups() != 1 {
            return Err(damaged("has not one row group"));
        }
        let group = file.get_row_group(0).map_err(unreadable)?;
        let metadata = group.metadata();
        check_schema(file.metadata().file_metadata().schema_descr())?;
        let rows = usize::try_from(metadata.num_rows()).unwrap_or(usize::MAX);
        let unpacked = metadata.columns().iter().map(|column| column.uncompressed_size()).max().unwrap_or(0);
        if rows > ENTRIES_MAX || !(0..=UNPACKED_BYTES_MAX).contains(&unpacked) {
            return Err(damaged("claims to be larger than any segment is"));
        }
        let mut next = 0..metadata.num_columns();
        let next = &mut next;
        let columns = Self {
            key: Column::open(&*group, next)?,
            kind: Column::open(&*group, next)?,
            size: Column::open(&*group, next)?,
            mtime: Column::open(&*group, next)?,
            mode: Column::open(&*group, next)?,
            pin: PinColumns::open(&*group, next)?,
            origin: PinColumns::open(&*group, next)?,
            digest: Column::open(&*group, next)?,
            blocks: Column::open(&*group, next)?,
            attributes: Column::open(&*group, next)?,
        };
        Ok((columns, rows))
    }

    fn read(&mut self, count: usize) -> Result<Vec<Entry>> {
        let mut kinds = self.kind.read(count)?;
        let mut sizes = self.size.read(count)?;
        let mut mtimes = self.mtime.read(count)?;
        let mut modes = self.mode.read(count)?;
        let mut pins = self.pin.read(count)?;
        let mut origins = self.origin.read(count)?;
        let mut digests = self.digest.read(count)?;
        let mut blocks = self.blocks.read(count)?;
        let mut attributes = self.attributes.read(count)?;
        let mut entries = Vec::with_capacity(count);
        for key in self.key.read(count)? {
            let key = Key::copy_from(required(key)?.data());
            let size =
                u64::try_from(required(one(&mut sizes)?)?).map_err(|_| damaged("has a negative size").key(&key))?;
            let attributes = one(&mut attributes)?.map(|json| attributes_from_json(json.data()));
            entries.push(Entry {
                kind: kind_of(required(one(&mut kinds)?)?.data())
                    .ok_or_else(|| damaged("has an unknown kind").key(&key))?,
                size,
                mtime_ns: required(one(&mut mtimes)?)?,
                mode: one(&mut modes)?.map(i32::cast_unsigned),
                pin: one(&mut pins)?,
                origin: Some(one(&mut origins)?).filter(|origin| *origin != Pin::default()),
                digest: one(&mut digests)?
                    .map(|digest| Digest::from_slice(digest.data()))
                    .transpose()
                    .map_err(|error| damaged("has a digest of another length").caused_by(error))?,
                blocks: one(&mut blocks)?
                    .map(|blocks| {
                        Blocks::from_bytes(Bytes::copy_from_slice(blocks.data()))
                            .ok_or_else(|| damaged("has block digests that are none").key(&key))
                    })
                    .transpose()?,
                attributes: attributes.transpose().map_err(|error| error.key(&key))?,
                key,
            });
        }
        Ok(entries)
    }
}

impl PinColumns {
    fn open(group: &dyn RowGroupReader, next: &mut impl Iterator<Item = usize>) -> Result<Self> {
        Ok(Self {
            etag: Column::open(group, next)?,
            version: Column::open(group, next)?,
            inode: Column::open(group, next)?,
            birth_ns: Column::open(group, next)?,
            mtime_ns: Column::open(group, next)?,
        })
    }

    fn read(&mut self, count: usize) -> Result<std::vec::IntoIter<Pin>> {
        let mut versions = self.version.read(count)?;
        let mut inodes = self.inode.read(count)?;
        let mut births = self.birth_ns.read(count)?;
        let mut mtimes = self.mtime_ns.read(count)?;
        let mut pins = Vec::with_capacity(count);
        for etag in self.etag.read(count)? {
            let file = match (one(&mut inodes)?, one(&mut births)?, one(&mut mtimes)?) {
                (Some(inode), Some(birth_ns), Some(mtime_ns)) => {
                    Some(FileId { inode: inode.cast_unsigned(), birth_ns, mtime_ns })
                }
                (None, None, None) => None,
                _ => return Err(damaged("has half a file's identity")),
            };
            pins.push(Pin {
                etag: etag.map(text).transpose()?,
                version: one(&mut versions)?.map(text).transpose()?,
                file,
            });
        }
        Ok(pins.into_iter())
    }
}

impl<T: DataType> Column<T> {
    fn open(group: &dyn RowGroupReader, next: &mut impl Iterator<Item = usize>) -> Result<Self> {
        let index = next.next().ok_or_else(|| damaged("has too few columns"))?;
        let optional = group.metadata().schema_descr().column(index).max_def_level() > 0;
        let reader = get_typed_column_reader(group.get_column_reader(index).map_err(unreadable)?);
        Ok(Self { reader, optional })
    }

    /// The next `count` values, or an error where there are fewer.
    fn read(&mut self, count: usize) -> Result<std::vec::IntoIter<Option<T::T>>> {
        let mut values = Vec::with_capacity(count);
        let mut present = Vec::with_capacity(count);
        let (rows, ..) = self.reader.read_records(count, Some(&mut present), None, &mut values).map_err(unreadable)?;
        if !self.optional {
            present = vec![1; values.len()];
        }
        let all_there = present.iter().filter(|&&level| level > 0).count() == values.len();
        if rows != count || present.len() != count || !all_there {
            return Err(damaged("has columns of different lengths"));
        }
        let mut values = values.into_iter();
        let cells: Vec<_> = present.into_iter().map(|level| if level > 0 { values.next() } else { None }).collect();
        Ok(cells.into_iter())
    }
}

fn check_schema(schema: &SchemaDescriptor) -> Result<()> {
    let expected = SchemaDescriptor::new(SCHEMA.clone());
    let same = schema.num_columns() == expected.num_columns()
        && schema.columns().iter().zip(expected.columns()).all(|(a, b)| {
            a.path() == b.path()
                && a.physical_type() == b.physical_type()
                && a.type_length() == b.type_length()
                && a.max_def_level() == b.max_def_level()
                && a.max_rep_level() == b.max_rep_level()
        });
    if same { Ok(()) } else { Err(damaged("has other columns than a manifest")) }
}

fn one<T>(column: &mut std::vec::IntoIter<T>) -> Result<T> {
    column.next().ok_or_else(|| damaged("has columns of different lengths"))
}

fn required<T>(value: Option<T>) -> Result<T> {
    value.ok_or_else(|| damaged("lacks a value that every entry has"))
}

fn text(bytes: ByteArray) -> Result<Box<str>> {
    std::str::from_utf8(bytes.data()).map(Box::from).map_err(|_| damaged("has text that is not UTF-8"))
}

fn kind_of(name: &[u8]) -> Option<Kind> {
    match name {
        OBJECT => Some(Kind::Object),
        DIRECTORY => Some(Kind::Directory),
        _ => None,
    }
}
