//! `snapferry status`

use serde_json::Value;

use super::options::Common;
use super::output::Output;
use crate::error::{Error, Kind, Result};
use crate::estate::Estate;

pub(super) async fn run(common: &Common, output: &Output) -> Result<()> {
    let ((config, troubles), host) = (common.policies(&[]).await?, common.host()?);
    let estate = Estate::survey(&config.policies, &host).await.with_troubles(&troubles);
    if output.is_json() {
        let document = serde_json::to_value(&estate).unwrap_or(Value::Null);
        output.document(&document)?;
    } else if !output.is_quiet() {
        output.line(&estate.to_string())?;
    }
    if !estate.stale {
        return Ok(());
    }
    let stale = estate.policies.iter().filter(|outlook| outlook.state.is_stale());
    let mut names: Vec<&str> = stale.map(|outlook| outlook.policy.as_str()).collect();
    if !estate.troubles.is_empty() {
        names.push("the list of buckets");
    }
    Err(Error::new(Kind::Unavailable, format!("somebody should look at {}", names.join(", ")))
        .hint("`snapferry job list --policy NAME` shows what its runs came to, `snapferry run NAME` runs it now"))
}
