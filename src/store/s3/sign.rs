//! Signature Version 4: proves who sent a request and that nothing in it was changed.
//! After "Authenticating Requests (AWS Signature Version 4)" in the Amazon S3 API reference.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderMap, Method};
use ring::{digest, hmac};

use super::credentials::Identity;

/// The SHA-256 of nothing.
pub(super) const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Said in place of the payload's hash where the transport protects the payload.
pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// The lower-case hexadecimal SHA-256.
pub(in crate::store) fn sha256_hex(data: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, data))
}

/// A moment as SigV4 writes it, `20261121T105453Z`.
pub(in crate::store) fn amz_date(at: SystemTime) -> String {
    let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    let timestamp = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let t = jiff::tz::TimeZone::UTC.to_datetime(timestamp);
    let (year, month, day, hour, minute, second) = (t.year(), t.month(), t.day(), t.hour(), t.minute(), t.second());
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// The key that signs one identity's requests to one region for one day.
pub(in crate::store) struct SigningKey {
    /// `date/region/s3/aws4_request`.
    scope: String,
    access_key: String,
    key: hmac::Key,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("scope", &self.scope).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Derives the key; `date` is eight digits.
    pub(in crate::store) fn derive(identity: &Identity, date: &str, region: &str) -> Self {
        let secret = format!("AWS4{}", identity.secret());
        let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        for part in [date, region, "s3", "aws4_request"] {
            key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
        }
        let scope = format!("{date}/{region}/s3/aws4_request");
        Self { scope, access_key: identity.access_key().to_owned(), key }
    }

    /// True when it was derived for this.
    pub(super) fn is_for(&self, identity: &Identity, date: &str, region: &str) -> bool {
        let mut parts = self.scope.split('/');
        parts.next() == Some(date) && parts.next() == Some(region) && self.access_key == identity.access_key()
    }

    /// The value of the `Authorization` header. `path` and `query` are the encoded ones that travel; `headers` holds
    /// `host`, `x-amz-date`, `x-amz-content-sha256` and whatever else is sent.
    pub(super) fn authorization(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap) -> String {
        let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap_or(""));
        let (canonical, signed) = canonical_request(method, path, query, headers, header("x-amz-content-sha256"));
        let (_, signature) = self.signature(header("x-amz-date"), &sha256_hex(&canonical));
        format!(
            "AWS4-HMAC-SHA256 Credential={}/{}, SignedHeaders={signed}, Signature={signature}",
            self.access_key, self.scope
        )
    }

    /// The string to sign for a request of this digest, made at `date` (as [`amz_date`] writes it), and its signature.
    pub(in crate::store) fn signature(&self, date: &str, digest: &str) -> (String, String) {
        let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{}\n{digest}", self.scope);
        let signature = hex::encode(hmac::sign(&self.key, to_sign.as_bytes()));
        (to_sign, signature)
    }
}

/// The canonical request and the list of the headers that it covers.
fn canonical_request(
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    payload: &str,
) -> (Vec<u8>, String) {
    let mut covered: Vec<_> = headers.iter().filter(|(name, _)| is_signed(name.as_str())).collect();
    covered.sort_unstable_by_key(|(name, _)| name.as_str());

    let mut out = Vec::with_capacity(512);
    for line in [method.as_str(), path, query] {
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
    }
    let mut signed = String::with_capacity(128);
    for (name, value) in covered {
        out.extend_from_slice(name.as_str().as_bytes());
        out.push(b':');
        push_squeezed(&mut out, value.as_bytes());
        out.push(b'\n');
        if !signed.is_empty() {
            signed.push(';');
        }
        signed.push_str(name.as_str());
    }
    out.push(b'\n');
    out.extend_from_slice(signed.as_bytes());
    out.push(b'\n');
    out.extend_from_slice(payload.as_bytes());
    (out, signed)
}

fn is_signed(name: &str) -> bool {
    name.starts_with("x-amz-") || matches!(name, "host" | "content-md5" | "range" | "date")
}

/// Appends a header's value without outer spaces and with inner runs of them made one.
fn push_squeezed(out: &mut Vec<u8>, value: &[u8]) {
    let words = value.split(|&byte| byte == b' ' || byte == b'\t').filter(|word| !word.is_empty());
    for (index, word) in words.enumerate() {
        if index > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(word);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The identity, date and bucket of the examples in "Signature Calculations for the Authorization Header".
    fn sign_example(method: Method, path: &str, query: &str, payload: &str, extra: &[(&'static str, &str)]) -> String {
        let identity = Identity::new("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY");
        let mut headers = HeaderMap::new();
        headers.insert("host", "examplebucket.s3.amazonaws.com".parse().unwrap());
        headers.insert("x-amz-date", "20130524T000000Z".parse().unwrap());
        headers.insert("x-amz-content-sha256", payload.parse().unwrap());
        for (name, value) in extra {
            headers.insert(*name, value.parse().unwrap());
        }
        let key = SigningKey::derive(&identity, "20130524", "us-east-1");
        assert!(key.is_for(&identity, "20130524", "us-east-1"));
        assert!(!key.is_for(&identity, "20130525", "us-east-1"));
        assert!(!key.is_for(&identity, "20130524", "eu-west-1"));
        key.authorization(&method, path, query, &headers)
    }

    #[test]
    fn get_object() {
        let got = sign_example(Method::GET, "/test.txt", "", EMPTY_SHA256, &[("range", "bytes=0-9")]);
        assert_eq!(
            got,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, \
             Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
    }

    #[test]
    fn put_object() {
        let payload = sha256_hex(b"Welcome to Amazon S3.");
        let extra = [("date", "Fri, 24 May 2013 00:00:00 GMT"), ("x-amz-storage-class", "REDUCED_REDUNDANCY")];
        let got = sign_example(Method::PUT, "/test%24file.text", "", &payload, &extra);
        assert!(
            got.ends_with(
                "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, \
                 Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
            ),
            "{got}"
        );
    }

    #[test]
    fn bucket_lifecycle_and_listing() {
        let got = sign_example(Method::GET, "/", "lifecycle=", EMPTY_SHA256, &[]);
        assert!(got.ends_with("Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"), "{got}");
        let got = sign_example(Method::GET, "/", "max-keys=2&prefix=J", EMPTY_SHA256, &[]);
        assert!(got.ends_with("Signature=34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"), "{got}");
    }

    #[test]
    fn dates_and_spaces() {
        let at = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        assert_eq!(amz_date(at), "20130524T000000Z");
        let mut out = Vec::new();
        push_squeezed(&mut out, b"  a   b\t c ");
        assert_eq!(out, b"a b c");
        assert_eq!(sha256_hex(b""), EMPTY_SHA256);
    }
}
