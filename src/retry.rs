//! Trying again what may succeed a little later.

use std::future::Future;
use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};

use crate::error::{Error, Kind, Result};

/// Tries after the first.
const RETRIES_MAX: usize = 8;

/// Does `work`, again after a growing and jittered pause while its error is retryable. `failed` hears of each failure
/// that is followed by another try.
pub(crate) async fn retry<T, F, W>(work: W, failed: impl Fn(&Error)) -> Result<T>
where
    W: FnMut() -> F,
    F: Future<Output = Result<T>>,
{
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(20))
        .with_max_times(RETRIES_MAX)
        .with_jitter();
    work.retry(pauses)
        .when(Error::is_retryable)
        .notify(|error: &Error, pause: Duration| {
            tracing::debug!("trying again in {pause:?}: {error}");
            failed(error);
        })
        .await
}

/// True for failures after which a write may have happened all the same.
pub(crate) fn may_have_happened(error: &Error) -> bool {
    matches!(error.kind(), Kind::AlreadyExists | Kind::Changed | Kind::NotFound)
}
