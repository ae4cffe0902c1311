//! Entries to Parquet.

use std::io::Write;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::ColumnPath;

use super::{DIRECTORY, OBJECT, SCHEMA};
use crate::error::{Error, Result};
use crate::manifest::{Entry, Kind, Pin, attributes_to_json};

static PROPERTIES: LazyLock<WriterPropertiesPtr> = LazyLock::new(|| {
    let mut properties = WriterProperties::builder()
        .set_created_by("snapferry manifest 1".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("1 is a level of zstd")))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true);
    for few_values in ["kind", "mode"] {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(few_values), true);
    }
    // A query for a key, a size or a time skips whole files by these.
    for searched in ["key", "size", "mtime"] {
        properties = properties.set_column_statistics_enabled(ColumnPath::from(searched), EnabledStatistics::Chunk);
    }
    // Neighbouring keys share their beginnings.
    properties = properties.set_column_encoding(ColumnPath::from("key"), Encoding::DELTA_BYTE_ARRAY);
    Arc::new(properties.build())
});

/// The bytes of a Parquet file with these entries, which are sorted objects and directories; another kind is an error.
/// Equal entries give equal bytes. An origin that pins nothing reads back as none.
pub fn encode(entries: &[Entry]) -> Result<Bytes> {
    if let Some(entry) = entries.iter().find(|entry| !entry.is_content()) {
        return Err(Error::internal("a manifest holds objects and directories only").key(&entry.key));
    }
    write_file(entries).map_err(|error| Error::internal("a manifest segment could not be encoded").caused_by(error))
}

fn write_file(entries: &[Entry]) -> Result<Bytes, ParquetError> {
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, SCHEMA.clone(), PROPERTIES.clone())?;
    let mut group = writer.next_row_group()?;
    let columns = &mut group;
    put::<ByteArrayType>(columns, entries, |entry| Some(entry.key.as_bytes().into()))?;
    put::<ByteArrayType>(columns, entries, |entry| Some(kind_name(entry.kind).into()))?;
    put::<Int64Type>(columns, entries, |entry| Some(entry.size.cast_signed()))?;
    put::<Int64Type>(columns, entries, |entry| Some(entry.mtime_ns))?;
    put::<Int32Type>(columns, entries, |entry| entry.mode.map(u32::cast_signed))?;
    put_pin(columns, entries, |entry| Some(&entry.pin))?;
    put_pin(columns, entries, |entry| entry.origin.as_ref())?;
    put::<FixedLenByteArrayType>(columns, entries, |entry| Some(entry.digest?.as_bytes().to_vec().into()))?;
    put::<ByteArrayType>(columns, entries, |entry| Some(entry.blocks.as_ref()?.as_bytes().clone().into()))?;
    put::<ByteArrayType>(columns, entries, |entry| entry.attributes.as_deref().map(|a| attributes_to_json(a).into()))?;
    group.close()?;
    writer.close()?;
    Ok(file.into())
}

/// The five columns of a pin.
fn put_pin(
    columns: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    entries: &[Entry],
    pin: impl Fn(&Entry) -> Option<&Pin>,
) -> Result<(), ParquetError> {
    put::<ByteArrayType>(columns, entries, |entry| pin(entry)?.etag.as_deref().map(ByteArray::from))?;
    put::<ByteArrayType>(columns, entries, |entry| pin(entry)?.version.as_deref().map(ByteArray::from))?;
    put::<Int64Type>(columns, entries, |entry| Some(pin(entry)?.file.as_ref()?.inode.cast_signed()))?;
    put::<Int64Type>(columns, entries, |entry| Some(pin(entry)?.file.as_ref()?.birth_ns))?;
    put::<Int64Type>(columns, entries, |entry| Some(pin(entry)?.file.as_ref()?.mtime_ns))
}

/// The next column of the schema.
fn put<T: DataType>(
    columns: &mut SerializedRowGroupWriter<'_, impl Write + Send>,
    entries: &[Entry],
    value: impl Fn(&Entry) -> Option<T::T>,
) -> Result<(), ParquetError> {
    let mut column =
        columns.next_column()?.ok_or_else(|| ParquetError::General("more columns than the schema has".to_owned()))?;
    let mut values = Vec::with_capacity(entries.len());
    let mut present = Vec::with_capacity(entries.len());
    for entry in entries {
        let value = value(entry);
        present.push(i16::from(value.is_some()));
        values.extend(value);
    }
    // A required column ignores which values are present.
    column.typed::<T>().write_batch(&values, Some(&present), None)?;
    column.close()
}

fn kind_name(kind: Kind) -> &'static [u8] {
    match kind {
        Kind::Directory => DIRECTORY,
        _ => OBJECT,
    }
}
