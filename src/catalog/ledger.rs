//! Which snapshots a policy made: only those are its to prune.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{CHANGES_MAX, Catalog, FORMAT, steadily};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::Pin;
use crate::snapshot::Name;

/// What is written of a policy, with its target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The documents' format.
    pub format: u32,
    /// The policy.
    pub policy: String,
    /// The snapshots that it took at the source, until neither side has them.
    pub made: BTreeSet<Name>,
}

impl Catalog {
    /// The ledger of a policy. One that is not there is made out from the receipts, as far as they go.
    pub async fn ledger(&self, policy: &str) -> Result<Ledger> {
        match self.read_ledger(policy).await? {
            Some((ledger, _)) => Ok(ledger),
            None => self.ledger_of_receipts(policy).await,
        }
    }

    /// Changes the ledger of a policy, in spite of others that do so at the same moment.
    pub async fn change_ledger(&self, policy: &str, change: impl Fn(&mut Ledger)) -> Result<()> {
        let key = self.ledger_key(policy);
        for _ in 0..CHANGES_MAX {
            let found = self.read_ledger(policy).await?;
            let mut ledger = match &found {
                Some((ledger, _)) => ledger.clone(),
                None => self.ledger_of_receipts(policy).await?,
            };
            change(&mut ledger);
            if Box::pin(self.replace(&key, found, &ledger)).await? {
                return Ok(());
            }
        }
        Err(self.contended(&key))
    }

    fn ledger_key(&self, policy: &str) -> Key {
        self.key(&format!("policies/{policy}.json"))
    }

    async fn read_ledger(&self, policy: &str) -> Result<Option<(Ledger, Pin)>> {
        let key = self.ledger_key(policy);
        let Some((json, pin)) = steadily(|| self.store.fetch(&key)).await? else { return Ok(None) };
        let ledger = serde_json::from_slice(&json).map_err(|error| {
            Error::new(Kind::Damaged, "the policy's ledger cannot be read")
                .at(self.store.address())
                .key(&key)
                .hint("delete it: it is made anew from the receipts, and what they do not tell is never pruned")
                .caused_by(error)
        })?;
        Ok(Some((ledger, pin)))
    }

    async fn ledger_of_receipts(&self, policy: &str) -> Result<Ledger> {
        let mut made = BTreeSet::new();
        for (name, _) in self.names().await? {
            let receipt = self.receipt(&name).await?;
            if receipt.is_some_and(|receipt| receipt.policy.as_deref() == Some(policy)) {
                made.insert(name);
            }
        }
        Ok(Ledger { format: FORMAT, policy: policy.into(), made })
    }
}
