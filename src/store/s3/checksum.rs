//! Checksums that travel with what is written, so that the server proves it got the same bytes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use md5::{Digest, Md5};

use super::sign::sha256_hex;
use super::url::Checksum;
use crate::checksum::Sum;
use crate::error::{Error, Result};

/// From this size on a body is hashed off the threads that do I/O.
const OFFLOAD_BYTES_MIN: usize = 256 << 10;

/// What was computed over one body.
#[derive(Debug)]
pub(super) struct Sums {
    /// For the signature, where payloads are signed.
    pub(super) sha256: Option<String>,
    pub(super) check: Check,
}

/// A body's checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    Crc64Nvme(Sum),
    Md5([u8; 16]),
}

impl Check {
    /// The header's name and value.
    pub(super) fn header(&self) -> (&'static str, String) {
        match self {
            Self::Crc64Nvme(sum) => ("x-amz-checksum-crc64nvme", sum.text()),
            Self::Md5(md5) => ("content-md5", STANDARD.encode(md5)),
        }
    }

    /// The name of the header in which the server repeats it; MD5 is not repeated.
    pub(super) fn echo(&self) -> Option<&'static str> {
        matches!(self, Self::Crc64Nvme(_)).then_some("x-amz-checksum-crc64nvme")
    }
}

/// Computes over a body what the signature and the server need.
pub(super) async fn sums(body: &Bytes, sha256: bool, checksum: Checksum) -> Result<Sums> {
    let compute = move |body: &[u8]| Sums {
        sha256: sha256.then(|| sha256_hex(body)),
        check: match checksum {
            Checksum::Crc64Nvme => Check::Crc64Nvme(Sum::of(body)),
            Checksum::Md5 => Check::Md5(Md5::digest(body).into()),
        },
    };
    if body.len() < OFFLOAD_BYTES_MIN {
        return Ok(compute(body));
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let body = body.clone();
    rayon::spawn(move || {
        let _ = sender.send(compute(&body));
    });
    receiver.await.map_err(|error| Error::internal("hashing broke off").caused_by(error))
}

/// `Content-MD5` of a document.
pub(super) fn content_md5(body: &[u8]) -> String {
    STANDARD.encode(Md5::digest(body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn known_values() {
        // The check value of CRC-64/NVME in the CRC catalogue.
        let sums = sums(&Bytes::from_static(b"123456789"), true, Checksum::Crc64Nvme).await.unwrap();
        assert_eq!(sums.check, Check::Crc64Nvme(Sum { crc64nvme: 0xae8b_1486_0a79_9888, size: 9 }));
        assert_eq!(sums.check.header().1, "rosUhgp5mIg=");
        assert_eq!(sums.sha256.unwrap(), "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225");
        assert_eq!(content_md5(b""), "1B2M2Y8AsgTpgAmY7PhCfg==");
    }

    #[tokio::test]
    async fn large_bodies_come_out_the_same() {
        let body = Bytes::from(vec![7; OFFLOAD_BYTES_MIN]);
        let large = sums(&body, false, Checksum::Crc64Nvme).await.unwrap();
        assert_eq!(large.check, Check::Crc64Nvme(Sum::of(&body)));
        assert_eq!(large.sha256, None);
    }
}
