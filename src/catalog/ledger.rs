//! Which snapshots a policy made: only those are its to prune.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Catalog, FORMAT, document_attributes, steadily};
use crate::error::{Error, Kind, Result};
use crate::key::Key;
use crate::manifest::Pin;
use crate::snapshot::Name;
use crate::store::Condition;

/// Tries to change a ledger that others change at the same moment.
const TRIES_MAX: usize = 10;

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
        for _ in 0..TRIES_MAX {
            let (before, condition) = match self.read_ledger(policy).await? {
                Some((ledger, pin)) => (ledger, Condition::Matches(pin)),
                None => (self.ledger_of_receipts(policy).await?, Condition::Absent),
            };
            let mut ledger = before.clone();
            change(&mut ledger);
            if ledger == before && condition != Condition::Absent {
                return Ok(());
            }
            let json = serde_json::to_vec_pretty(&ledger)
                .map_err(|error| Error::internal("a ledger cannot be written as JSON").caused_by(error))?;
            let (json, attributes) = (Bytes::from(json), document_attributes());
            match steadily(|| self.store.write(&key, json.clone(), &attributes, &condition)).await {
                Err(error) if matches!(error.kind(), Kind::Changed | Kind::AlreadyExists) => {}
                outcome => return outcome.map(drop),
            }
        }
        Err(Error::new(Kind::Unavailable, "others change it all the time").at(self.store.address()).key(&key))
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
