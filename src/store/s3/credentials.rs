//! Who asks: AWS's standard chain (environment, profile, web identity, container, instance), kept until shortly
//! before it expires.

use std::error::Error as StdError;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::ProvideRegion;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_smithy_http_client::tls;

use crate::error::{Error, Kind, Result};

/// The region where none is configured; AWS redirects from there to the right one.
const REGION_DEFAULT: &str = "us-east-1";

/// How long the whole chain may take. Its last link, the instance's metadata, answers nowhere but on an instance.
const CHAIN_TIMEOUT: Duration = Duration::from_secs(15);

/// An identity this close to its end is asked for anew.
const EXPIRY_MARGIN: Duration = Duration::from_secs(120);

/// An access key with its secret. Neither is ever printed.
pub(in crate::store) struct Identity {
    access_key: String,
    secret: String,
    session_token: Option<String>,
    expires: Option<SystemTime>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("expires", &self.expires).finish_non_exhaustive()
    }
}

impl Identity {
    /// An identity for ever.
    #[cfg(test)]
    pub(super) fn new(access_key: &str, secret: &str) -> Self {
        Self { access_key: access_key.into(), secret: secret.into(), session_token: None, expires: None }
    }

    pub(in crate::store) fn access_key(&self) -> &str {
        &self.access_key
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    pub(super) fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }

    fn is_fresh(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now + EXPIRY_MARGIN < expires)
    }
}

/// Identities from the chain, one at a time.
pub(in crate::store) struct Credentials {
    provider: SharedCredentialsProvider,
    current: RwLock<Option<Arc<Identity>>>,
    asking: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// The standard chain for this profile and region. Asks nobody yet.
    pub(in crate::store) async fn chain(profile: Option<&str>, region: &str) -> Result<Self> {
        let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        let http = aws_smithy_http_client::Builder::new().tls_provider(ring).build_https();
        let mut loader =
            aws_config::defaults(BehaviorVersion::latest()).http_client(http).region(Region::new(region.to_owned()));
        if let Some(profile) = profile {
            loader = loader.profile_name(profile);
        }
        let provider = loader.load().await.credentials_provider().ok_or_else(missing)?;
        Ok(Self { provider, current: RwLock::new(None), asking: tokio::sync::Mutex::new(()) })
    }

    /// Always this name, with a secret that nobody checks: for servers that want a signature but know no secrets.
    pub(super) fn unchecked(name: &str) -> Self {
        let provider = aws_credential_types::Credentials::new(name, name, None, None, "unchecked");
        let provider = SharedCredentialsProvider::new(provider);
        Self { provider, current: RwLock::new(None), asking: tokio::sync::Mutex::new(()) }
    }

    /// The identity to sign with now.
    pub(in crate::store) async fn get(&self) -> Result<Arc<Identity>> {
        if let Some(identity) = self.current() {
            return Ok(identity);
        }
        // One caller asks; the others wait for what it gets.
        let _asking = self.asking.lock().await;
        if let Some(identity) = self.current() {
            return Ok(identity);
        }
        let answer = tokio::time::timeout(CHAIN_TIMEOUT, self.provider.provide_credentials())
            .await
            .map_err(|_| missing().caused_by("the credential chain did not answer in time"))?
            .map_err(|error| missing().caused_by(reasons(&error)))?;
        let identity = Arc::new(Identity {
            access_key: answer.access_key_id().to_owned(),
            secret: answer.secret_access_key().to_owned(),
            session_token: answer.session_token().map(str::to_owned),
            expires: answer.expiry(),
        });
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(identity.clone());
        Ok(identity)
    }

    /// Forgets an identity that the server called expired, unless another has taken its place.
    pub(super) fn forget(&self, expired: &Arc<Identity>) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|identity| Arc::ptr_eq(identity, expired)) {
            *current = None;
        }
    }

    fn current(&self) -> Option<Arc<Identity>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|identity| identity.is_fresh(SystemTime::now())).cloned()
    }
}

/// The region from the environment or the profile. The instance's metadata is not asked: it would hold up every run
/// that is not on an instance, and a wrong region is put right by the server's redirect.
pub(super) async fn configured_region(profile: Option<&str>) -> String {
    if let Some(region) = EnvironmentVariableRegionProvider::new().region().await {
        return region.to_string();
    }
    let mut file = ProfileFileRegionProvider::builder();
    if let Some(profile) = profile {
        file = file.profile_name(profile);
    }
    file.build().region().await.map_or_else(|| REGION_DEFAULT.to_owned(), |region| region.to_string())
}

/// What an error and its causes say. The error itself is not kept: printed for debugging it shows whole replies.
fn reasons(error: &dyn StdError) -> String {
    let mut reasons = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        reasons.push_str(": ");
        reasons.push_str(&error.to_string());
        cause = error.source();
    }
    reasons
}

fn missing() -> Error {
    Error::new(Kind::Denied, "no credentials were found").hint(
        "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile with &profile=, or add &anonymous=true for a \
         public bucket",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(provider: impl ProvideCredentials + 'static) -> Credentials {
        Credentials {
            provider: SharedCredentialsProvider::new(provider),
            current: RwLock::new(None),
            asking: tokio::sync::Mutex::new(()),
        }
    }

    fn answer(expires_in: Option<u64>) -> aws_credential_types::Credentials {
        let expires = expires_in.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
        aws_credential_types::Credentials::new("AKID", "hidden", Some("token".into()), expires, "test")
    }

    #[tokio::test]
    async fn kept_until_they_expire_or_are_refused() {
        let lasting = credentials(answer(None));
        let first = lasting.get().await.unwrap();
        assert!(Arc::ptr_eq(&first, &lasting.get().await.unwrap()));
        assert_eq!((first.access_key(), first.session_token()), ("AKID", Some("token")));
        lasting.forget(&first);
        assert!(!Arc::ptr_eq(&first, &lasting.get().await.unwrap()));

        let short = credentials(answer(Some(60)));
        let first = short.get().await.unwrap();
        assert!(!Arc::ptr_eq(&first, &short.get().await.unwrap()));
    }

    #[tokio::test]
    async fn secrets_are_not_printed() {
        let credentials = credentials(answer(None));
        let identity = credentials.get().await.unwrap();
        let printed = format!("{identity:?} {credentials:?}");
        assert!(!printed.contains("hidden") && !printed.contains("AKID") && !printed.contains("token"), "{printed}");
    }
}
