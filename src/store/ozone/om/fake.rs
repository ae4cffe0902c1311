//! An Ozone Manager on loopback that answers as it is told.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::{Grpc, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::channel::{Access, ManagerAddress, Timing};
use super::messages::{OmRequest, OmResponse};
use super::status::OK;
use super::{BucketClient, OzoneManager};

/// What it does with a request; the number counts them from 0.
pub(super) type Script = dyn Fn(usize, &OmRequest) -> Answer + Send + Sync;

/// What comes back.
pub(super) enum Answer {
    /// This.
    Reply(Box<OmResponse>),
    /// A failure of gRPC.
    Fail(Status),
    /// Nothing, ever.
    Silence,
}

impl Answer {
    pub(super) fn ok(fill: impl FnOnce(&mut OmResponse)) -> Self {
        let mut response = OmResponse { status: OK, ..OmResponse::default() };
        fill(&mut response);
        Self::Reply(Box::new(response))
    }

    pub(super) fn refused(status: i32) -> Self {
        let message = Some("as the script says".to_owned());
        Self::Reply(Box::new(OmResponse { status, message, ..OmResponse::default() }))
    }

    /// As a follower that knows the leader, or does not.
    pub(super) fn not_leader(leader: Option<&str>) -> Self {
        let class = "org.apache.hadoop.ozone.om.exceptions.OMNotLeaderException: OM:here is not the leader.";
        Self::Fail(Status::internal(match leader {
            Some(node) => format!("{class} Suggested leader is OM:{node}[host/10.0.0.1]."),
            None => format!("{class} Could not determine the leader node."),
        }))
    }
}

/// One that runs until it is dropped.
pub(super) struct Fake {
    pub(super) manager: ManagerAddress,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Fake {
    pub(super) async fn start(
        node: &str,
        script: impl Fn(usize, &OmRequest) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let handler = Handler { script: Arc::new(script), asked: asked.clone() };
        let task = tokio::spawn(async move {
            let incoming = TcpIncoming::from(listener);
            Server::builder().serve_with_incoming(handler, incoming).await.unwrap();
        });
        Self { manager: ManagerAddress { node: Some(node.to_owned()), authority }, asked, task }
    }

    /// Accepts connections and hangs up on whatever comes.
    pub(super) async fn dying() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                drop(stream);
            }
        });
        Self { manager: ManagerAddress { node: None, authority }, asked, task }
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Where nobody listens.
pub(super) async fn nobody() -> ManagerAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ManagerAddress { node: None, authority: listener.local_addr().unwrap().to_string() }
}

/// A client of these with little patience.
pub(super) fn client(managers: &[&ManagerAddress]) -> OzoneManager {
    let timing = Timing {
        attempt: Duration::from_millis(250),
        deadline: Duration::from_millis(1500),
        pause: Duration::from_millis(5),
        pause_max: Duration::from_millis(50),
    };
    let managers: Vec<_> = managers.iter().map(|manager| (*manager).clone()).collect();
    OzoneManager::new("test", &managers, Access { timing, ..Access::default() }).unwrap()
}

/// A bucket of one fake.
pub(super) fn bucket(fake: &Fake) -> BucketClient {
    client(&[&fake.manager]).at("vol1", "photos")
}

#[derive(Clone)]
struct Handler {
    script: Arc<Script>,
    asked: Arc<AtomicUsize>,
}

type Answering<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl Service<http::Request<Body>> for Handler {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/hadoop.ozone.OzoneManagerService/submitRequest");
        let handler = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::<OmResponse, OmRequest>::default());
            Ok(grpc.unary(handler, request).await)
        })
    }
}

impl UnaryService<OmRequest> for Handler {
    type Response = OmResponse;
    type Future = Answering<Response<OmResponse>, Status>;

    fn call(&mut self, request: Request<OmRequest>) -> Self::Future {
        let answer = (self.script)(self.asked.fetch_add(1, Ordering::Relaxed), request.get_ref());
        Box::pin(async move {
            match answer {
                Answer::Reply(response) => Ok(Response::new(*response)),
                Answer::Fail(status) => Err(status),
                Answer::Silence => pending().await,
            }
        })
    }
}
