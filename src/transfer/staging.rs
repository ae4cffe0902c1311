//! The staging folder: where content waits for its name, and what is moved aside.

use crate::catalog::Lease;
use crate::error::{Kind, Result};
use crate::key::{Key, RESERVED};
use crate::retry::retry;
use crate::store::{Store, remove_all};

/// Empties the staging folder of a bucket whose lease is held: of the trash, and of what nothing will ask for any more.
/// Where the store keeps versions, none of what was there stays: it would be the whole content once more, and no snapshot
/// refers to it.
pub(crate) async fn empty_staging(store: &dyn Store, lease: &Lease) -> Result<()> {
    let folder = Key::from(format!("{RESERVED}staging/"));
    lease.check()?;
    remove_all(store, &folder).await?;
    if !store.capabilities().versions {
        return Ok(());
    }
    match remove_versions(store, &folder, lease).await {
        Err(error) if matches!(error.kind(), Kind::Denied | Kind::Unsupported) => {
            tracing::warn!("older versions of what was staged stay and cost room: {error}");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Removes every version, and every removal, of the keys in a folder. Which goes first does not matter: what comes to light
/// when a removal goes is staged content, and goes as well.
async fn remove_versions(store: &dyn Store, folder: &Key, lease: &Lease) -> Result<()> {
    let mut listing = store.list_versions(folder).await?;
    while let Some(batch) = listing.next().await {
        let versions: Vec<_> = batch?.into_iter().map(|version| (version.key, version.id)).collect();
        for versions in versions.chunks(store.capabilities().delete_batch_max.max(1)) {
            lease.check()?;
            retry(|| store.delete_versions(versions), |_| {}).await?;
        }
    }
    Ok(())
}
