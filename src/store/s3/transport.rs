//! HTTP/1.1 with kept connections, given up only when nothing moves.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::error::Failure;
use crate::error::{Error, Kind, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Shorter than the idle time after which common servers hang up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);

/// Pieces in which a body is handed over, so that progress shows.
const PIECE_BYTES: usize = 256 << 10;

/// Most memory that is reserved on a server's word.
const RESERVE_BYTES_MAX: u64 = 64 << 20;

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    /// A header's text, if it is there and is UTF-8.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok())
    }
}

/// A pool of connections.
#[derive(Debug)]
pub(super) struct Transport(Client<HttpsConnector<HttpConnector>, Payload>);

impl Transport {
    /// `secure`: https, trusting the system's certificates.
    pub(super) fn new(secure: bool) -> Result<Self> {
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_nodelay(true);
        http.enforce_http(false);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::internal("TLS could not be set up").caused_by(error))?;
        let tls = if secure {
            tls.with_native_roots()
                .map_err(|error| {
                    Error::new(Kind::Io, "the system's certificates could not be read")
                        .caused_by(error)
                        .hint("install the ca-certificates package, or set SSL_CERT_FILE")
                })?
                .with_no_client_auth()
        } else {
            tls.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
        };
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a request and reads its answer to the end; fails when nothing moves for `stall` (noticed within twice
    /// that), and when the body is longer than `bytes_max`.
    pub(super) async fn exchange(
        &self,
        request: http::Request<Bytes>,
        stall: Duration,
        bytes_max: u64,
    ) -> Result<Reply, Failure> {
        let moved = Arc::new(AtomicU64::new(0));
        let head = *request.method() == http::Method::HEAD;
        let request = request.map(|body| Payload { body, moved: moved.clone() });
        let exchange = async {
            let answer = self.0.request(request).await.map_err(lost)?;
            let (parts, body) = answer.into_parts();
            // An error's body is never as long as the content that was asked for.
            let bytes_max = if parts.status.is_success() { bytes_max } else { bytes_max.max(1 << 20) };
            let body = if head { Bytes::new() } else { read(body, bytes_max, &moved).await? };
            Ok(Reply { status: parts.status, headers: parts.headers, body })
        };
        let mut exchange = pin!(exchange);
        let mut seen = moved.load(Ordering::Relaxed);
        loop {
            if let Ok(outcome) = tokio::time::timeout(stall, &mut exchange).await {
                return outcome;
            }
            let now = moved.load(Ordering::Relaxed);
            if now == seen {
                return Err(Failure::lost("the server stopped answering", format!("nothing moved for {stall:?}")));
            }
            seen = now;
        }
    }
}

/// A request that got no answer. Trying again helps, unless it is the server's certificate.
fn lost(error: hyper_util::client::legacy::Error) -> Failure {
    if let Some(reason) = distrust(&error) {
        return Error::new(Kind::Denied, format!("the server's certificate is not trusted: {reason}"))
            .hint("name the file of the authority that signed it in SSL_CERT_FILE")
            .into();
    }
    if error.is_connect() {
        return Error::new(Kind::Unavailable, "the server could not be reached")
            .caused_by(error)
            .hint("check endpoint= in the URL and that the server is running")
            .into();
    }
    Failure::lost("the request was lost", error)
}

/// Why a certificate was refused, if that is what went wrong.
fn distrust<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    if let Some(tls @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return Some(tls);
    }
    // An I/O error names as its source not what it wraps, but the source of that.
    let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    match wrapped {
        Some(wrapped) => distrust(wrapped),
        None => distrust(error.source()?),
    }
}

async fn read(mut body: Incoming, bytes_max: u64, moved: &AtomicU64) -> Result<Bytes, Failure> {
    let too_long = || Failure::lost("the reply is too long", format!("more than {bytes_max} bytes"));
    let announced = body.size_hint().lower();
    if announced > bytes_max {
        return Err(too_long());
    }
    let mut whole = BytesMut::with_capacity(announced.min(RESERVE_BYTES_MAX) as usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Failure::lost("the reply broke off", error))?;
        if let Ok(data) = frame.into_data() {
            if (whole.len() + data.len()) as u64 > bytes_max {
                return Err(too_long());
            }
            whole.extend_from_slice(&data);
        }
        moved.fetch_add(1, Ordering::Relaxed);
    }
    Ok(whole.freeze())
}

/// A request's body, which counts the pieces that were taken of it.
#[derive(Debug)]
struct Payload {
    body: Bytes,
    moved: Arc<AtomicU64>,
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.body.is_empty() {
            return Poll::Ready(None);
        }
        self.moved.fetch_add(1, Ordering::Relaxed);
        let piece = PIECE_BYTES.min(self.body.len());
        Poll::Ready(Some(Ok(Frame::data(self.body.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.body.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with these bytes, then says nothing more; hangs up if told so.
    async fn server(answer: &'static [u8], hang_up: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = socket.read(&mut buffer).await.unwrap();
            socket.write_all(answer).await.unwrap();
            if !hang_up {
                std::future::pending::<()>().await;
            }
        });
        address
    }

    async fn ask(url: String, bytes_max: u64) -> Result<Reply, Error> {
        let request = http::Request::get(url).body(Bytes::new()).unwrap();
        let stall = Duration::from_millis(100);
        Transport::new(false).unwrap().exchange(request, stall, bytes_max).await.map_err(Error::from)
    }

    #[tokio::test]
    async fn whole_replies_only() {
        let whole = ask(server(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", true).await, 3).await.unwrap();
        assert_eq!(&whole.body[..], b"abc");
        let cut = ask(server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", true).await, 9).await.unwrap_err();
        assert!(cut.is_retryable(), "{cut}");
        let stalled =
            ask(server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", false).await, 9).await.unwrap_err();
        assert!(stalled.is_retryable() && stalled.to_string().contains("stopped"), "{stalled}");
        let long = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\nabc";
        assert!(ask(server(long, false).await, 9).await.unwrap_err().to_string().contains("too long"));
    }

    #[test]
    fn distrust_is_found_wherever_it_is_wrapped() {
        let cause = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let wrapped = std::io::Error::other(std::io::Error::other(cause.clone()));
        assert_eq!(distrust(&wrapped), Some(&cause));
        assert_eq!(distrust(&std::io::Error::other("refused")), None);
    }

    #[tokio::test]
    async fn nobody_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let error = ask(url, 1).await.unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("could not be reached"), "{error}");
    }
}
