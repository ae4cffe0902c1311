//! `snapferry serve`

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::options::Common;
use crate::error::{Error, Result};
use crate::serve::{Server, router};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Answer nobody about metrics and status.
    #[arg(long)]
    no_listen: bool,
}

pub(super) async fn run(arguments: Arguments, common: &Common, cancel: CancellationToken) -> Result<()> {
    let (config, host) = (common.configuration()?, common.host()?);
    let (sender, reload) = mpsc::channel(1);
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            // One that waits already covers this one, too.
            let _ = sender.try_send(());
        }
    });
    let listen = config.listen;
    let enabled = config.policies.iter().filter(|policy| policy.next_run(host.clock.now()).is_some()).count();
    let server = Server::new(config, host, cancel.clone());
    if !arguments.no_listen {
        let listener = tokio::net::TcpListener::bind(listen).await.map_err(|error| {
            Error::from(error)
                .at(listen.to_string())
                .hint("another serve may run already; say serve.listen in the configuration, or --no-listen")
        })?;
        tracing::info!("answering at http://{}/metrics", listener.local_addr()?);
        let router = router(server.estate());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!("metrics are not served any more: {error}");
            }
        });
    }
    tracing::info!("policies that run by themselves: {enabled}");
    let file = common.clone();
    server.serve(Box::new(move || file.configuration()), reload).await;
    Ok(())
}
