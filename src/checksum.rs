//! CRC64NVME of content, put together from its parts without their bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crc_fast::CrcAlgorithm;

/// The CRC64NVME of a stretch of content, with its length. The default is that of no bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sum {
    /// CRC-64/NVME, as in the CRC catalogue.
    pub crc64nvme: u64,
    /// Bytes that it is over.
    pub size: u64,
}

impl Sum {
    /// Computes it.
    pub fn of(data: &[u8]) -> Self {
        Self { crc64nvme: crc_fast::checksum(CrcAlgorithm::Crc64Nvme, data), size: data.len() as u64 }
    }

    /// That of this stretch and the one that follows it.
    #[must_use]
    pub fn then(self, next: Self) -> Self {
        let crc64nvme = crc_fast::checksum_combine(CrcAlgorithm::Crc64Nvme, self.crc64nvme, next.crc64nvme, next.size);
        Self { crc64nvme, size: self.size.saturating_add(next.size) }
    }

    /// Reads the text of [`Self::text`]; none if it is no such text.
    pub fn parse(text: &str, size: u64) -> Option<Self> {
        let bytes: [u8; 8] = STANDARD.decode(text).ok()?.try_into().ok()?;
        Some(Self { crc64nvme: u64::from_be_bytes(bytes), size })
    }

    /// The checksum as S3 writes it: base64 of its bytes, the highest first ("Checking object integrity in Amazon S3").
    pub fn text(&self) -> String {
        STANDARD.encode(self.crc64nvme.to_be_bytes())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stretches_make_up_the_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..6)) {
            let whole = pieces.iter().map(|piece| Sum::of(piece)).fold(Sum::default(), Sum::then);
            prop_assert_eq!(whole, Sum::of(&pieces.concat()));
        }

        #[test]
        fn its_text_comes_back(crc64nvme: u64, size: u64) {
            let sum = Sum { crc64nvme, size };
            prop_assert_eq!(Sum::parse(&sum.text(), size), Some(sum));
        }

        #[test]
        fn other_text_is_none(text in "[A-Za-z0-9+/=]{0,16}") {
            if let Some(sum) = Sum::parse(&text, 1) {
                prop_assert_eq!(sum.text(), text);
            }
        }
    }

    #[test]
    fn known_values() {
        // The check value of CRC-64/NVME in the CRC catalogue.
        let sum = Sum::of(b"123456789");
        assert_eq!((sum.crc64nvme, sum.size), (0xae8b_1486_0a79_9888, 9));
        assert_eq!(sum.text(), "rosUhgp5mIg=");
        assert_eq!(Sum::of(b""), Sum::default());
    }
}
