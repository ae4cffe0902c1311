//! Who asks, where the cluster wants to know: signed as the S3 Gateway passes it on.

use std::time::SystemTime;

use super::messages::S3Authentication;
use crate::error::Result;
use crate::store::s3::credentials::Credentials;
use crate::store::s3::sign::{SigningKey, amz_date, sha256_hex};

/// Stands in the signature's scope; the Ozone Manager takes any.
const REGION: &str = "us-east-1";

/// Signs requests with an S3 access key of the cluster.
#[derive(Debug)]
pub(crate) struct Signer(Credentials);

impl Signer {
    /// From AWS's standard chain: the environment, or this profile.
    pub(crate) async fn chain(profile: Option<&str>) -> Result<Self> {
        Ok(Self(Credentials::chain(profile, REGION).await?))
    }

    /// What shows who we are. The Ozone Manager checks the signature over the text that it is given, not what the text
    /// is of: the digest in it is that of the moment.
    pub(super) async fn sign(&self, now: SystemTime) -> Result<S3Authentication> {
        let identity = self.0.get().await?;
        let date = amz_date(now);
        let key = SigningKey::derive(&identity, &date[..8], REGION);
        let (string_to_sign, signature) = key.signature(&date, &sha256_hex(date.as_bytes()));
        Ok(S3Authentication {
            string_to_sign: Some(string_to_sign),
            signature: Some(signature),
            access_id: Some(identity.access_key().to_owned()),
        })
    }
}
