//! Progress on a terminal: objects, bytes, rate, time left. Nothing in a pipe.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::progress::Progress;

/// How often the numbers are drawn.
const INTERVAL: Duration = Duration::from_millis(200);

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// Writes a log line above the bars.
#[derive(Debug)]
pub(super) struct Above;

impl Write for Above {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| std::io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().lock().flush()
    }
}

/// Where logs are written.
pub(super) fn writer() -> Above {
    Above
}

/// Bars that follow a job's progress until this is dropped.
#[derive(Debug)]
pub(super) struct Bars {
    _stop: Option<DropGuard>,
}

impl Bars {
    /// Bars on the terminal, if stderr is one and nobody asked for quiet.
    pub(super) fn follow(progress: &Arc<Progress>, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self { _stop: None };
        }
        let bar = BARS.add(ProgressBar::new(0));
        let style = ProgressStyle::with_template(
            "{msg:12} {bar:24} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left  {prefix}",
        );
        if let Ok(style) = style {
            bar.set_style(style);
        }
        let (progress, stop) = (progress.clone(), CancellationToken::new());
        let stopped = stop.clone();
        tokio::spawn(async move {
            loop {
                bar.set_message(progress.phase().to_string().to_lowercase());
                bar.set_length(Progress::read(&progress.bytes_planned));
                bar.set_position(Progress::read(&progress.bytes_done));
                let (done, planned) = (&progress.objects_done, &progress.objects_planned);
                let slowest = progress.slowest().map(|key| format!("  {key}")).unwrap_or_default();
                bar.set_prefix(format!("{}/{} objects{slowest}", Progress::read(done), Progress::read(planned)));
                if stopped.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                    break;
                }
            }
            bar.finish_and_clear();
        });
        Self { _stop: Some(stop.drop_guard()) }
    }
}
