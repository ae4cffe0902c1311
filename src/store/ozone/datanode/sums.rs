//! The checksums of a chunk. Pure.

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::fault::Fault;
use super::wire::ChecksumData;
use crate::error::Kind;

/// `ChecksumType` NONE.
pub(super) const NONE: i32 = 1;

/// The sums of a chunk: one for each window of its content, the last of which may be short.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sums {
    algorithm: CrcAlgorithm,
    /// Bytes that one sum is of.
    window: u32,
    values: Box<[u32]>,
}

impl Sums {
    /// Takes over the sums of a chunk of `length` bytes; none if it was written without.
    pub(super) fn new(length: u64, data: &ChecksumData) -> Result<Option<Self>, Fault> {
        let algorithm = match data.kind {
            NONE => return Ok(None),
            2 => CrcAlgorithm::Crc32IsoHdlc,
            3 => CrcAlgorithm::Crc32Iscsi,
            kind => return Err(unsupported(format!("checksums of type {kind} are not known here"))),
        };
        let values = data.sums.iter().map(|sum| <[u8; 4]>::try_from(&sum[..]).map(u32::from_be_bytes));
        let values: Box<[u32]> =
            values.collect::<Result<_, _>>().map_err(|_| unsupported("a CRC has not four bytes".into()))?;
        if data.window == 0 || values.len() as u64 != length.div_ceil(data.window.into()) {
            let (count, window) = (values.len(), data.window);
            return Err(unsupported(format!("{count} sums of {window} bytes each do not make {length} bytes")));
        }
        Ok(Some(Self { algorithm, window: data.window, values }))
    }

    /// Bytes that one sum is of.
    pub(super) fn window(&self) -> u64 {
        self.window.into()
    }

    /// Checks content that begins at `offset` of the chunk, where a window begins, and ends where one ends.
    pub(super) fn check(&self, offset: u64, content: &[Bytes]) -> Result<(), Fault> {
        let window = self.window as usize;
        let mut values = self.values.iter().skip((offset / u64::from(self.window)) as usize).enumerate();
        let mut digest = Digest::new(self.algorithm);
        let mut missing = window;
        let mut compare = |digest: &mut Digest| {
            let found = digest.finalize_reset() as u32;
            match values.next() {
                Some((_, value)) if *value == found => Ok(()),
                Some((index, value)) => {
                    let begin = offset + (index * window) as u64;
                    let what = format!("the CRC at byte {begin} of a chunk is {found:08x} and must be {value:08x}");
                    Err(Fault::new(Kind::Damaged, what))
                }
                None => Err(Fault::nonsense("there is more content than sums")),
            }
        };
        for mut piece in content.iter().map(|piece| &piece[..]) {
            while !piece.is_empty() {
                let (head, rest) = piece.split_at(missing.min(piece.len()));
                digest.update(head);
                (piece, missing) = (rest, missing - head.len());
                if missing == 0 {
                    compare(&mut digest)?;
                    missing = window;
                }
            }
        }
        if missing < window { compare(&mut digest) } else { Ok(()) }
    }
}

fn unsupported(what: String) -> Fault {
    Fault::new(Kind::Unsupported, what)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fake::checksums;
    use super::*;

    fn content() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 1..2000)
    }

    /// Content in pieces of about this length.
    fn pieces(content: &[u8], length: usize) -> Vec<Bytes> {
        content.chunks(length).map(Bytes::copy_from_slice).collect()
    }

    #[test]
    fn known_values() {
        // The check values of CRC-32/ISO-HDLC and CRC-32/ISCSI in the CRC catalogue.
        for (kind, value) in [(2, 0xcbf4_3926_u32), (3, 0xe306_9283)] {
            let data = ChecksumData { kind, window: 16, sums: vec![Bytes::copy_from_slice(&value.to_be_bytes())] };
            let sums = Sums::new(9, &data).unwrap().unwrap();
            sums.check(0, &[Bytes::from_static(b"123456789")]).unwrap();
            assert_eq!(sums.check(0, &[Bytes::from_static(b"123456780")]).unwrap_err().kind, Kind::Damaged);
        }
        assert_eq!(Sums::new(9, &ChecksumData { kind: NONE, ..ChecksumData::default() }).unwrap(), None);
    }

    proptest! {
        #[test]
        fn what_was_written_passes_however_it_is_cut(
            content in content(), window in 1..500_usize, length in 1..700_usize, kind in 2..4, skip in 0..5_usize,
        ) {
            let sums = Sums::new(content.len() as u64, &checksums(&content, window, kind)).unwrap().unwrap();
            let offset = (skip * window).min((content.len() - 1) / window * window);
            sums.check(offset as u64, &pieces(&content[offset..], length)).map_err(|fault| TestCaseError::fail(fault.what))?;
        }

        #[test]
        fn a_flipped_bit_does_not(
            content in content(), window in 1..500_usize, length in 1..700_usize, kind in 2..4,
            at in any::<prop::sample::Index>(), bit in 0..8_u8,
        ) {
            let sums = Sums::new(content.len() as u64, &checksums(&content, window, kind)).unwrap().unwrap();
            let (mut bad, at) = (content.clone(), at.index(content.len()));
            bad[at] ^= 1_u8 << bit;
            let fault = sums.check(0, &pieces(&bad, length)).unwrap_err();
            prop_assert_eq!(fault.kind, Kind::Damaged);
            let named = format!("at byte {} ", at / window * window);
            prop_assert!(fault.what.contains(&named), "{}", fault.what);
        }

        #[test]
        fn nonsense_is_refused(length in 0..u64::MAX, kind in any::<i32>(), window in any::<u32>(), count in 0..3_usize, bytes in 0..6_usize) {
            let data = ChecksumData { kind, window, sums: vec![Bytes::from(vec![0; bytes]); count] };
            if let Ok(Some(sums)) = Sums::new(length, &data) {
                prop_assert!(bytes == 4 || count == 0);
                prop_assert_eq!(length.div_ceil(sums.window()), count as u64);
            }
        }
    }
}
