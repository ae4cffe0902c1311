//! Between code that waits for I/O and code that blocks for it.

use futures::stream::{BoxStream, StreamExt};
use tokio::sync::mpsc;

use crate::error::{Error, Result};

/// Items that are handed over together: waking the other side costs more than an item.
const BATCH: usize = 64;

/// Batches that wait between the thread and the stream.
const WAITING_MAX: usize = 4;

/// Runs code that may block on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => Err(Error::internal("a worker thread broke off").caused_by(error)),
    }
}

/// What an iterator that may block yields, as a stream. One that broke off ends in an error.
pub(crate) fn stream<T, I>(open: impl FnOnce() -> Result<I> + Send + 'static) -> BoxStream<'static, Result<T>>
where
    T: Send + 'static,
    I: Iterator<Item = Result<T>>,
{
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        match open() {
            Ok(items) => {
                let mut items = items.peekable();
                while items.peek().is_some() {
                    let batch: Vec<_> = items.by_ref().take(BATCH).collect();
                    if sender.blocking_send(Some(batch)).is_err() {
                        return;
                    }
                }
            }
            Err(error) => drop(sender.blocking_send(Some(vec![Err(error)]))),
        }
        let _ = sender.blocking_send(None);
    });
    let batches = futures::stream::unfold(Some(receiver), |receiver| async move {
        let mut receiver = receiver?;
        match receiver.recv().await {
            Some(Some(batch)) => Some((batch, Some(receiver))),
            Some(None) => None,
            None => Some((vec![Err(Error::internal("a worker thread broke off"))], None)),
        }
    });
    batches.flat_map(futures::stream::iter).boxed()
}
