//! One signed request, one answer. Nothing is retried but what the answer itself puts right: another region, a clock
//! that is off, an identity that has expired. Retries live above.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri};

use super::credentials::{Credentials, Identity};
use super::encode;
use super::error::Failure;
use super::sign::{EMPTY_SHA256, SigningKey, UNSIGNED_PAYLOAD, amz_date, sha256_hex};
use super::transport::{Reply, Transport};
use super::url::{Endpoint, Location};
use crate::error::{Error, Kind, Result};

/// How long nothing at all may move before a request is given up. What the kernel has taken counts as moved, and on a
/// slow line it takes its time to get out.
const STALL: Duration = Duration::from_secs(60);

/// The same where the server may think before it answers: completing an upload, copying.
const STALL_LONG: Duration = Duration::from_secs(300);

/// Largest reply that is not an object's content.
const DOCUMENT_BYTES_MAX: u64 = 64 << 20;

/// A clock that is off by less is not to blame; servers allow 15 minutes.
const SKEW_MIN_S: i64 = 300;

/// What is asked of the server, without what every request has.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The key as it stands in the bucket, without the prefix; none for the bucket itself.
    pub(super) key: Option<Vec<u8>>,
    /// In canonical form.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// SHA-256 of the body where it is known already.
    pub(super) sha256: Option<String>,
    pub(super) stall: Duration,
    pub(super) reply_bytes_max: u64,
}

impl Request {
    pub(super) fn new(method: Method) -> Self {
        Self {
            method,
            key: None,
            query: String::new(),
            headers: HeaderMap::with_capacity(16),
            body: Bytes::new(),
            sha256: None,
            stall: STALL,
            reply_bytes_max: DOCUMENT_BYTES_MAX,
        }
    }

    pub(super) fn key(mut self, key: Vec<u8>) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets the query; `pairs` must be sorted by name.
    pub(super) fn query(mut self, pairs: &[(&str, &str)]) -> Self {
        self.query = encode::query(pairs);
        self
    }

    /// Adds a header; a value that no header can carry is an error that names it.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Result<Self> {
        self.headers.insert(HeaderName::from_static(name), header_value(name, value)?);
        Ok(self)
    }

    pub(super) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Gives the server time to think.
    pub(super) fn patient(mut self) -> Self {
        self.stall = STALL_LONG;
        self
    }
}

/// The value as a header carries it, raw UTF-8 included.
pub(super) fn header_value(name: &str, value: &str) -> Result<HeaderValue> {
    HeaderValue::from_bytes(value.as_bytes()).map_err(|_| {
        Error::new(Kind::Unrepresentable, format!("the value of `{name}` has control characters, which S3 cannot hold"))
    })
}

/// Where requests go, for one region.
#[derive(Debug)]
struct Route {
    region: String,
    scheme: Scheme,
    authority: Authority,
    host: HeaderValue,
    /// `/bucket` in path style, else empty.
    base: String,
}

impl Route {
    fn new(location: &Location, region: &str) -> Result<Self> {
        let endpoint = location.endpoint.clone().unwrap_or_else(|| {
            let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
            Endpoint { secure: true, host: format!("s3.{region}.amazonaws.com{suffix}") }
        });
        let (host, base) = if location.path_style {
            (endpoint.host, format!("/{}", location.bucket))
        } else {
            (format!("{}.{}", location.bucket, endpoint.host), String::new())
        };
        let wrong =
            |_| Error::usage(format!("`{host}` is no host name")).hint("check endpoint= and region= in the URL");
        Ok(Self {
            region: region.to_owned(),
            scheme: if endpoint.secure { Scheme::HTTPS } else { Scheme::HTTP },
            authority: host.parse().map_err(wrong)?,
            host: header_value("host", &host)?,
            base,
        })
    }

    fn path(&self, key: Option<&[u8]>) -> String {
        let mut path = String::with_capacity(128);
        path.push_str(&self.base);
        if let Some(key) = key {
            path.push('/');
            encode::push_path(&mut path, key);
        } else if path.is_empty() {
            path.push('/');
        }
        path
    }
}

/// Speaks to one bucket.
#[derive(Debug)]
pub(super) struct Client {
    location: Location,
    route: RwLock<Arc<Route>>,
    transport: Transport,
    /// None: anonymous.
    credentials: Option<Credentials>,
    signing_key: RwLock<Option<Arc<SigningKey>>>,
    /// The server's clock minus ours.
    skew_s: AtomicI64,
    signs_payload: bool,
    requests: AtomicU64,
}

impl Client {
    pub(super) fn new(location: Location, region: &str, credentials: Option<Credentials>) -> Result<Self> {
        let route = Route::new(&location, region)?;
        let secure = route.scheme == Scheme::HTTPS;
        Ok(Self {
            transport: Transport::new(secure)?,
            signs_payload: credentials.is_some() && !location.unsigned_payload.unwrap_or(secure),
            route: RwLock::new(Arc::new(route)),
            location,
            credentials,
            signing_key: RwLock::new(None),
            skew_s: AtomicI64::new(0),
            requests: AtomicU64::new(0),
        })
    }

    /// True when every payload's SHA-256 is part of its signature.
    pub(super) fn signs_payload(&self) -> bool {
        self.signs_payload
    }

    /// Requests sent so far, repeated ones included.
    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Sends a request and reads the answer whole. Any status but 2xx is a failure.
    pub(super) async fn send(&self, request: Request) -> Result<Reply, Failure> {
        let mut corrected = Corrected::default();
        loop {
            let identity = match &self.credentials {
                Some(credentials) => Some(credentials.get().await?),
                None => None,
            };
            let route = self.route.read().unwrap_or_else(PoisonError::into_inner).clone();
            let wire = self.prepare(&request, &route, identity.as_deref())?;
            self.requests.fetch_add(1, Ordering::Relaxed);
            let reply = self.transport.exchange(wire, request.stall, request.reply_bytes_max).await?;
            if reply.status.is_success() {
                return Ok(reply);
            }
            let failure = Failure::refused(reply.status, &reply.body).by(reply.header("server"));
            if !self.correct(&failure, &reply.headers, &route, identity.as_ref(), &mut corrected)? {
                return Err(failure);
            }
        }
    }

    fn prepare(
        &self,
        request: &Request,
        route: &Route,
        identity: Option<&Identity>,
    ) -> Result<http::Request<Bytes>, Failure> {
        let path = route.path(request.key.as_deref());
        let mut headers = request.headers.clone();
        headers.insert(HOST, route.host.clone());
        if let Some(identity) = identity {
            self.sign(request, route, identity, &path, &mut headers)?;
        }
        let mut target = path;
        if !request.query.is_empty() {
            target.push('?');
            target.push_str(&request.query);
        }
        let unusable = |error: &dyn std::fmt::Display| Error::internal(format!("a request could not be made: {error}"));
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(route.scheme.clone());
        parts.authority = Some(route.authority.clone());
        let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|error| unusable(&error))?;
        parts.path_and_query = Some(target);
        let mut wire = http::Request::new(request.body.clone());
        *wire.method_mut() = request.method.clone();
        *wire.uri_mut() = Uri::from_parts(parts).map_err(|error| unusable(&error))?;
        *wire.headers_mut() = headers;
        Ok(wire)
    }

    fn sign(
        &self,
        request: &Request,
        route: &Route,
        identity: &Identity,
        path: &str,
        headers: &mut HeaderMap,
    ) -> Result<()> {
        let payload = match &request.sha256 {
            _ if request.body.is_empty() => HeaderValue::from_static(EMPTY_SHA256),
            _ if !self.signs_payload => HeaderValue::from_static(UNSIGNED_PAYLOAD),
            Some(known) => header_value("x-amz-content-sha256", known)?,
            None => header_value("x-amz-content-sha256", &sha256_hex(&request.body))?,
        };
        headers.insert("x-amz-content-sha256", payload);
        let date = amz_date(self.now());
        headers.insert("x-amz-date", header_value("x-amz-date", &date)?);
        if let Some(token) = identity.session_token() {
            let mut token = header_value("x-amz-security-token", token)?;
            token.set_sensitive(true);
            headers.insert("x-amz-security-token", token);
        }
        let key = self.signing_key(identity, &date[..8], &route.region);
        let authorization = key.authorization(&request.method, path, &request.query, headers);
        let mut authorization = header_value("authorization", &authorization)?;
        authorization.set_sensitive(true);
        headers.insert(AUTHORIZATION, authorization);
        Ok(())
    }

    fn signing_key(&self, identity: &Identity, date: &str, region: &str) -> Arc<SigningKey> {
        let kept = self.signing_key.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(key) = kept.filter(|key| key.is_for(identity, date, region)) {
            return key;
        }
        let key = Arc::new(SigningKey::derive(identity, date, region));
        *self.signing_key.write().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        key
    }

    fn now(&self) -> SystemTime {
        let skew = self.skew_s.load(Ordering::Relaxed);
        let shift = Duration::from_secs(skew.unsigned_abs());
        let now = SystemTime::now();
        if skew < 0 { now.checked_sub(shift).unwrap_or(UNIX_EPOCH) } else { now + shift }
    }

    /// Learns from a refusal what would have made the request succeed. True when it should be sent again.
    fn correct(
        &self,
        failure: &Failure,
        headers: &HeaderMap,
        route: &Route,
        identity: Option<&Arc<Identity>>,
        corrected: &mut Corrected,
    ) -> Result<bool> {
        if !corrected.region && self.learn_region(failure, headers, route)? {
            corrected.region = true;
            return Ok(true);
        }
        if !corrected.clock && self.learn_clock(failure, headers) {
            corrected.clock = true;
            return Ok(true);
        }
        if !corrected.identity
            && matches!(failure.code(), "ExpiredToken" | "TokenRefreshRequired")
            && let (Some(credentials), Some(identity)) = (&self.credentials, identity)
        {
            credentials.forget(identity);
            corrected.identity = true;
            return Ok(true);
        }
        Ok(false)
    }

    fn learn_region(&self, failure: &Failure, headers: &HeaderMap, route: &Route) -> Result<bool> {
        let redirected = matches!(
            failure.status(),
            Some(StatusCode::MOVED_PERMANENTLY | StatusCode::TEMPORARY_REDIRECT | StatusCode::BAD_REQUEST)
        );
        let header = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
        let Some(region) = header.or(failure.region()).filter(|region| redirected && *region != route.region) else {
            return Ok(false);
        };
        tracing::debug!(region, "the bucket is in another region");
        let route = Arc::new(Route::new(&self.location, region)?);
        *self.route.write().unwrap_or_else(PoisonError::into_inner) = route;
        Ok(true)
    }

    /// A HEAD's refusal has no code: its date tells.
    fn learn_clock(&self, failure: &Failure, headers: &HeaderMap) -> bool {
        if failure.status() != Some(StatusCode::FORBIDDEN) || !matches!(failure.code(), "" | "RequestTimeTooSkewed") {
            return false;
        }
        let Some(theirs) = headers.get("date").and_then(|value| http_date_s(value.to_str().ok()?)) else {
            return false;
        };
        let since = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
        if (theirs - since(self.now())).abs() < SKEW_MIN_S {
            return false;
        }
        let skew = theirs - since(SystemTime::now());
        tracing::warn!(skew_s = skew, "this machine's clock differs from the server's; signing by the server's");
        self.skew_s.store(skew, Ordering::Relaxed);
        true
    }
}

/// What has been put right for one request; each thing once.
#[derive(Default)]
struct Corrected {
    region: bool,
    clock: bool,
    identity: bool,
}

/// An HTTP date in seconds since 1970.
pub(super) fn http_date_s(text: &str) -> Option<i64> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(|timestamp| timestamp.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(url: &str, region: &str) -> Route {
        Route::new(&Location::parse(url).unwrap(), region).unwrap()
    }

    #[test]
    fn routes() {
        let aws = route("s3://b", "eu-west-1");
        assert_eq!((aws.authority.as_str(), aws.path(None).as_str()), ("b.s3.eu-west-1.amazonaws.com", "/"));
        assert_eq!(aws.path(Some(b"/lead")), "//lead");
        let china = route("s3://b.c", "cn-north-1");
        assert_eq!(china.authority.as_str(), "s3.cn-north-1.amazonaws.com.cn");
        let custom = route("s3://b?endpoint=http://h:9000", "us-east-1");
        assert_eq!((custom.authority.as_str(), custom.path(None).as_str()), ("h:9000", "/b"));
        assert_eq!(custom.path(Some(b"a//../b c")), "/b/a//../b%20c");
        let hosted = route("s3://b?endpoint=http://h:9000&path-style=false", "us-east-1");
        assert_eq!(hosted.authority.as_str(), "b.h:9000");
    }

    #[test]
    fn keys_travel_unharmed() {
        let location = Location::parse("s3://b?endpoint=http://h:9000&anonymous=true").unwrap();
        let client = Client::new(location, "us-east-1", None).unwrap();
        let route = client.route.read().unwrap().clone();
        for (key, path) in [
            ("../x", "/b/../x"),
            ("a/./b", "/b/a/./b"),
            ("/lead", "/b//lead"),
            ("%2E", "/b/%252E"),
            ("\u{1}", "/b/%01"),
        ] {
            let request = Request::new(Method::GET).key(key.into());
            let wire = client.prepare(&request, &route, None).unwrap();
            assert_eq!(wire.uri().path(), path);
            assert_eq!(wire.uri().to_string(), format!("http://h:9000{path}"));
        }
    }

    #[test]
    fn regions_and_clocks_are_learnt() {
        let client = Client::new(Location::parse("s3://b").unwrap(), "us-east-1", None).unwrap();
        let route = client.route.read().unwrap().clone();
        let mut corrected = Corrected::default();
        let mut headers = HeaderMap::new();
        let failure = Failure::refused(
            StatusCode::BAD_REQUEST,
            b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>",
        );
        assert!(client.correct(&failure, &headers, &route, None, &mut corrected).unwrap());
        let learnt = client.route.read().unwrap().clone();
        assert_eq!(learnt.authority.as_str(), "b.s3.eu-west-1.amazonaws.com");
        assert!(!client.correct(&failure, &headers, &learnt, None, &mut corrected).unwrap());

        headers.insert("date", "Fri, 24 May 2013 00:00:00 GMT".parse().unwrap());
        let failure = Failure::refused(StatusCode::FORBIDDEN, b"<Error><Code>RequestTimeTooSkewed</Code></Error>");
        assert!(client.correct(&failure, &headers, &learnt, None, &mut corrected).unwrap());
        assert!(amz_date(client.now()).starts_with("20130524T0000"));
        assert!(!client.correct(&failure, &headers, &learnt, None, &mut corrected).unwrap());
    }

    /// Answers one request per reply, each on a connection of its own.
    async fn server(replies: Vec<String>) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("s3://b?endpoint=http://{}&anonymous=true", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for reply in replies {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 4096]).await.unwrap();
                socket.write_all(reply.as_bytes()).await.unwrap();
            }
        });
        url
    }

    fn reply(status: &str, headers: &str, body: &str) -> String {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
    }

    #[tokio::test]
    async fn what_an_answer_puts_right_is_sent_again_once() {
        let skewed = || {
            let body = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
            reply("403 Forbidden", "Date: Fri, 24 May 2013 00:00:00 GMT\r\n", body)
        };
        let elsewhere = || reply("301 Moved Permanently", "x-amz-bucket-region: eu-west-1\r\n", "");
        let throttled = reply("503 Slow Down", "", "<Error><Code>SlowDown</Code></Error>");
        let ask = async |replies: Vec<String>| {
            let location = Location::parse(&server(replies).await).unwrap();
            let client = Client::new(location, "us-east-1", None).unwrap();
            client.send(Request::new(Method::GET)).await.map(|reply| reply.status).map_err(|failure| failure.kind())
        };
        assert_eq!(ask(vec![skewed(), elsewhere(), reply("200 OK", "", "")]).await, Ok(StatusCode::OK));
        assert_eq!(ask(vec![skewed(), skewed()]).await, Err(Kind::Denied));
        assert_eq!(ask(vec![elsewhere(), elsewhere()]).await, Err(Kind::Io));
        assert_eq!(ask(vec![throttled]).await, Err(Kind::Throttled));
    }
}
