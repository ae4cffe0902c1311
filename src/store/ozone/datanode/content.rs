//! Content on its way from an answer to the reader: measured, checked, and put together.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::fault::Fault;
use super::sums::Sums;
use super::wire::Buffers;
use crate::error::Kind;

/// From this size on content is checked off the threads that do I/O.
const OFFLOAD_BYTES_MIN: u64 = 256 << 10;

/// The pieces in which content came, in order.
pub(super) fn into_pieces(data: Option<Bytes>, buffers: Option<Buffers>) -> Vec<Bytes> {
    buffers.map_or_else(|| data.into_iter().collect(), |buffers| buffers.buffers)
}

/// What must come in one answer, and what of it is wanted.
#[derive(Debug)]
pub(super) struct Part {
    /// Where it begins in its chunk, in bytes.
    pub(super) offset: u64,
    /// Bytes that must come.
    pub(super) length: u64,
    /// The chunk's sums, if it was written with any.
    pub(super) sums: Option<Arc<Sums>>,
    /// In bytes from where it begins.
    pub(super) wanted: Range<usize>,
}

impl Part {
    /// Checks that exactly this came.
    pub(super) fn check(&self, pieces: &[Bytes]) -> Result<(), Fault> {
        let found: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        if found != self.length {
            let what = format!("{found} bytes came where {} were asked for", self.length);
            return Err(Fault::new(Kind::Damaged, what));
        }
        self.sums.as_ref().map_or(Ok(()), |sums| sums.check(self.offset, pieces))
    }

    /// Appends what is wanted, checked.
    pub(super) async fn append(self, mut target: BytesMut, pieces: Vec<Bytes>) -> Result<BytesMut, Fault> {
        if self.length < OFFLOAD_BYTES_MIN {
            self.check(&pieces)?;
            self.copy(&mut target, &pieces);
            return Ok(target);
        }
        let (sender, receiver) = tokio::sync::oneshot::channel();
        rayon::spawn(move || {
            let outcome = self.check(&pieces).map(|()| {
                self.copy(&mut target, &pieces);
                target
            });
            let _ = sender.send(outcome);
        });
        receiver.await.unwrap_or_else(|_| Err(Fault::new(Kind::Internal, "checking content broke off")))
    }

    fn copy(&self, target: &mut BytesMut, pieces: &[Bytes]) {
        let mut begin = 0;
        for piece in pieces {
            let end = begin + piece.len();
            let (from, to) = (self.wanted.start.max(begin), self.wanted.end.min(end));
            if from < to {
                target.extend_from_slice(&piece[from - begin..to - begin]);
            }
            begin = end;
        }
    }
}
