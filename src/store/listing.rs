//! A stream of what a store lists, which cannot end early unnoticed.

use tokio::sync::mpsc;

use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::Entry;

/// Batches that may wait between the lister and the reader.
const BATCHES_WAITING_MAX: usize = 4;

enum Message<T> {
    Batch(Vec<T>),
    Failed(Error),
    End,
}

/// Entries, or whatever else a store lists, in batches. It ends only when the lister said so: one that vanished is an error.
#[derive(Debug)]
pub struct Listing<T = Entry> {
    receiver: mpsc::Receiver<Message<T>>,
    ended: bool,
}

impl<T> std::fmt::Debug for Message<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Message::Batch(_) => "Batch",
            Message::Failed(_) => "Failed",
            Message::End => "End",
        })
    }
}

/// The lister's end of a [`Listing`].
#[derive(Debug)]
pub struct ListingSender<T = Entry>(mpsc::Sender<Message<T>>);

/// The reader went away: the lister may stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderGone;

impl<T> ListingSender<T> {
    /// Passes entries on; waits while the reader is behind.
    pub async fn send(&self, batch: Vec<T>) -> Result<(), ReaderGone> {
        self.0.send(Message::Batch(batch)).await.map_err(|_| ReaderGone)
    }

    /// As [`Self::send`], from a thread that may block.
    pub fn send_blocking(&self, batch: Vec<T>) -> Result<(), ReaderGone> {
        self.0.blocking_send(Message::Batch(batch)).map_err(|_| ReaderGone)
    }

    /// Ends the listing: complete, or with the error that stopped it.
    pub async fn close(self, outcome: Result<()>) {
        let _ = self.0.send(Self::last(outcome)).await;
    }

    /// As [`Self::close`], from a thread that may block.
    pub fn close_blocking(self, outcome: Result<()>) {
        let _ = self.0.blocking_send(Self::last(outcome));
    }

    fn last(outcome: Result<()>) -> Message<T> {
        match outcome {
            Ok(()) => Message::End,
            Err(error) => Message::Failed(error),
        }
    }
}

impl<T: Send> Listing<T> {
    /// Both ends of a listing.
    pub fn channel() -> (ListingSender<T>, Self) {
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
        (ListingSender(sender), Listing { receiver, ended: false })
    }

    /// The next entries; none at the end.
    pub async fn next(&mut self) -> Option<Result<Vec<T>>> {
        if self.ended {
            return None;
        }
        let message = self.receiver.recv().await;
        self.take(message)
    }

    /// As [`Self::next`], from a thread that may block.
    pub fn next_blocking(&mut self) -> Option<Result<Vec<T>>> {
        if self.ended {
            return None;
        }
        let message = self.receiver.blocking_recv();
        self.take(message)
    }

    fn take(&mut self, message: Option<Message<T>>) -> Option<Result<Vec<T>>> {
        match message {
            Some(Message::Batch(batch)) => Some(Ok(batch)),
            Some(Message::End) => {
                self.ended = true;
                None
            }
            Some(Message::Failed(error)) => {
                self.ended = true;
                Some(Err(error))
            }
            None => {
                self.ended = true;
                Some(Err(Error::new(Kind::BadListing, "the listing broke off").hint("run the command again")))
            }
        }
    }

    /// Entry by entry, from a thread that may block.
    pub fn entries(mut self) -> impl Iterator<Item = Result<T>> + Send {
        let mut batch = Vec::new().into_iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(entry) = batch.next() {
                    return Some(Ok(entry));
                }
                match self.next_blocking()? {
                    Ok(more) => batch = more.into_iter(),
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// Everything at once: for small listings.
    pub async fn collect(mut self) -> Result<Vec<T>> {
        let mut all = Vec::new();
        while let Some(batch) = self.next().await {
            all.extend(batch?);
        }
        Ok(all)
    }
}

/// Passes entries through and fails when their keys do not strictly rise.
pub fn in_order<I>(entries: I) -> impl Iterator<Item = Result<Entry>>
where
    I: Iterator<Item = Result<Entry>>,
{
    let mut last: Option<Key> = None;
    entries.map(move |entry| {
        let entry = entry?;
        if let Some(last) = &last
            && *last >= entry.key
        {
            let how = if *last == entry.key { "repeated a key" } else { "went backwards" };
            return Err(Error::new(Kind::BadListing, format!("the listing {how} after `{last}`"))
                .key(&entry.key)
                .hint("run again; if this store never lists in byte order, add `order=any` to its URL"));
        }
        last = Some(entry.key.clone());
        Ok(entry)
    })
}
