//! `snapferry status`

use serde_json::Value;

use super::options::Common;
use super::output::Output;
use crate::error::{Error, Kind, Result};
use crate::estate::Estate;

pub(super) async fn run(common: &Common, output: &Output) -> Result<()> {
    let (config, host) = (common.configuration()?, common.host()?);
    let estate = Estate::survey(&config.policies, &host).await;
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
    let names: Vec<&str> = stale.map(|outlook| outlook.policy.as_str()).collect();
    Err(Error::new(Kind::Unavailable, format!("somebody should look at {}", names.join(", ")))
        .hint("`snapferry job list --policy NAME` shows what its runs came to, `snapferry run NAME` runs it now"))
}
