//! How policies stand, as metrics for Prometheus: a view of the [`Estate`].
//!
//! Labels name policies, states and phases; a key is never in one. Ages are there beside the moments, so that an alert needs
//! no arithmetic, and everything is a gauge: it says how things are, also after a restart.

use std::path::Path;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::error::{Error, Result};
use crate::estate::{Estate, Outlook, Standing};
use crate::file;
use crate::job::State;

/// The media type of the text.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    policy: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    policy: String,
    state: String,
}

type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;

/// The text for this estate and for the program that watches it.
pub fn text(estate: &Estate) -> Result<String> {
    let mut registry = of_policies(estate);
    registry.register("build", "The program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    let troubles = Gauge::<i64>::default();
    troubles.set(estate.troubles.len() as i64);
    registry.register("bucket_listing_troubles", "What went wrong when buckets were looked for", troubles);
    encoded(&registry)
}

/// What is said of each policy. Files of several policies lie beside each other and node_exporter reads them together, with a
/// parser that knows no newer kinds of metrics: so nothing is here but gauges that name their policy.
fn of_policies(estate: &Estate) -> Registry {
    let mut registry = Registry::with_prefix("snapferry");
    let mut gauge = |name: &str, help: &str, value: &dyn Fn(&Outlook) -> Option<f64>| {
        let gauges = Gauges::default();
        for outlook in &estate.policies {
            if let Some(value) = value(outlook) {
                gauges.get_or_create(&Labels { policy: outlook.policy.clone() }).set(value);
            }
        }
        registry.register(name, help, gauges);
    };
    let seconds = |moment: Timestamp| moment.as_microsecond() as f64 / 1e6;
    gauge("last_sealed_timestamp_seconds", "When the content of the newest sealed snapshot was taken", &|outlook| {
        outlook.sealed.as_ref().map(|sealed| seconds(sealed.taken))
    });
    gauge("last_sealed_age_seconds", "How old the content of the newest sealed snapshot is", &|outlook| {
        outlook.age_seconds.map(|age| age as f64)
    });
    gauge("rpo_seconds", "How old it may be", &|outlook| outlook.rpo_seconds.map(|rpo| rpo as f64));
    gauge("stale", "1 where somebody should look: too old, never sealed, or not to be reached", &|outlook| {
        Some(f64::from(u8::from(outlook.state.is_stale())))
    });
    gauge("sealed_objects", "Objects in the newest sealed snapshot", &|outlook| {
        outlook.sealed.as_ref().map(|sealed| sealed.objects as f64)
    });
    gauge("sealed_bytes", "Bytes in the newest sealed snapshot", &|outlook| {
        outlook.sealed.as_ref().map(|sealed| sealed.bytes as f64)
    });
    gauge("next_run_timestamp_seconds", "When the policy runs next by itself", &|outlook| outlook.next.map(seconds));
    gauge("running", "1 while a run is under way", &|outlook| Some(f64::from(u8::from(outlook.running.is_some()))));
    let last = |outlook: &Outlook, value: &dyn Fn(&crate::job::Shown) -> f64| outlook.last.as_ref().map(value);
    gauge("last_run_timestamp_seconds", "When the last run that ended began", &|outlook| {
        last(outlook, &|run| seconds(run.job.created))
    });
    gauge("last_run_success", "1 where it finished, 0 where it failed or was stopped", &|outlook| {
        last(outlook, &|run| f64::from(u8::from(run.job.state == State::Finished)))
    });
    gauge("last_run_duration_seconds", "How long it took", &|outlook| {
        last(outlook, &|run| run.elapsed_ms as f64 / 1000.0)
    });
    gauge("last_run_copied_objects", "Objects whose bytes crossed in it", &|outlook| {
        last(outlook, &|run| run.job.progress.objects_copied as f64)
    });
    gauge("last_run_copied_bytes", "Bytes that crossed in it", &|outlook| {
        last(outlook, &|run| run.job.progress.bytes_copied as f64)
    });
    gauge("last_run_reused_bytes", "Bytes that the target had already", &|outlook| {
        last(outlook, &|run| run.job.progress.bytes_reused as f64)
    });
    gauge("last_run_retries", "Operations that were tried again in it", &|outlook| {
        last(outlook, &|run| run.job.progress.retries as f64)
    });
    let states = Family::<StateLabels, Gauge>::default();
    for outlook in &estate.policies {
        for state in Standing::ALL {
            let labels = StateLabels { policy: outlook.policy.clone(), state: state.to_string() };
            states.get_or_create(&labels).set(i64::from(outlook.state == state));
        }
    }
    registry.register("policy_state", "1 for the state that the policy is in", states);
    registry
}

fn encoded(registry: &Registry) -> Result<String> {
    let mut text = String::new();
    encode(&mut text, registry).map_err(|error| Error::internal("metrics cannot be written").caused_by(error))?;
    Ok(text)
}

/// Writes what is said of these policies to a file at once, as the textfile collector of node_exporter wants it.
pub fn write(estate: &Estate, path: &Path) -> Result<()> {
    let text = encoded(&of_policies(estate))?;
    // Whoever collects it is another user.
    file::replace(path, text.as_bytes(), Some(0o644)).map_err(|error| Error::from(error).at(path.display().to_string()))
}
