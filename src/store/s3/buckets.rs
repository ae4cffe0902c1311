//! The buckets that a server has for us.

use http::Method;

use super::client::{Client, Request};
use super::error::Failure;
use super::url::Location;
use super::{S3Store, client_of, xml};
use crate::error::{Error, Kind, Result};

impl S3Store {
    /// The name of the bucket that a URL names. Asks nobody.
    ///
    /// # Errors
    /// `Usage` for a wrong URL.
    pub fn bucket_of(url: &str) -> Result<String> {
        Ok(Location::parse(url)?.bucket)
    }

    /// The names of all buckets that are to be had where this URL's is, with the credentials that it is opened with.
    ///
    /// # Errors
    /// `Usage` for a wrong URL, `Denied` where they must not be listed, `Unavailable` where the server cannot be reached.
    pub async fn buckets(url: &str) -> Result<Vec<String>> {
        // The server itself is what is left of a path-style URL without a bucket.
        let location =
            Location { bucket: String::new(), prefix: String::new(), path_style: true, ..Location::parse(url)? };
        let place = location.endpoint.as_ref().map_or_else(|| "AWS".to_owned(), ToString::to_string);
        let client = client_of(location, None).await?;
        names(&client).await.map_err(|failure| {
            let error = Error::from(failure).at(place);
            match error.kind() {
                Kind::Denied => error.hint("allow s3:ListAllMyBuckets, or name the buckets one by one"),
                _ => error,
            }
        })
    }
}

async fn names(client: &Client) -> Result<Vec<String>, Failure> {
    let (mut names, mut token) = (Vec::new(), String::new());
    loop {
        let request = Request::new(Method::GET);
        let request = match token.as_str() {
            "" => request,
            token => request.query(&[("continuation-token", token)]),
        };
        let reply = client.send(request).await?;
        let before = std::mem::take(&mut token);
        let root = xml::walk(&reply.body, |path, text| {
            match path {
                "Buckets/Bucket/Name" => names.push(text.to_owned()),
                "ContinuationToken" => text.clone_into(&mut token),
                _ => {}
            }
            Ok(())
        })?;
        if root != "ListAllMyBucketsResult" {
            let what = format!("the server answers with `{root}` where it should list its buckets");
            return Err(Error::new(Kind::BadListing, what).into());
        }
        if token.is_empty() {
            return Ok(names);
        }
        if token == before {
            return Err(Error::new(Kind::BadListing, "the list of buckets goes on for ever").into());
        }
    }
}
