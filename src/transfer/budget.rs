//! The bound on memory: bytes are taken before a read and given back when the write is acknowledged.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The grain of the budget, in bytes.
const GRAIN: u64 = 1024;

/// Bytes that may be in flight.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    semaphore: Arc<Semaphore>,
    grains: u32,
}

impl Budget {
    /// A budget of this many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        let grains = u32::try_from(bytes / GRAIN).unwrap_or(u32::MAX).clamp(1, Semaphore::MAX_PERMITS as u32);
        Self { semaphore: Arc::new(Semaphore::new(grains as usize)), grains }
    }

    /// Waits for room for this many bytes; more than the whole budget waits for all of it.
    pub(crate) async fn take(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let grains = u32::try_from(bytes.div_ceil(GRAIN)).unwrap_or(u32::MAX).clamp(1, self.grains);
        self.semaphore.clone().acquire_many_owned(grains).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn never_more_than_the_budget() {
        let budget = Budget::new(8 * GRAIN);
        let first = budget.take(5 * GRAIN).await.unwrap();
        let second = tokio::time::timeout(std::time::Duration::from_millis(20), budget.take(4 * GRAIN)).await;
        assert!(second.is_err(), "nine of eight grains were out");
        drop(first);
        let all = budget.take(1 << 40).await.unwrap();
        assert_eq!(all.num_permits(), 8);
    }
}
