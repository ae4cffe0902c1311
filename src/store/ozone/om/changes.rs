//! Renaming and deleting keys, and making directories.

use super::BucketClient;
use std::collections::HashSet;

use super::messages::{
    DeleteKeysArgs, DeleteKeysRequest, KeyArgs, KeyRequest, OmRequest, RenameKeyRequest, RenameKeysArgs,
    RenameKeysRequest, RenamePair, command,
};
use super::status::{DIRECTORY_ALREADY_EXISTS, PARTIAL_DELETE, Refusal};
use crate::error::{Error, Kind, Result};
use crate::key::Key;

impl BucketClient {
    /// Renames a key, or a directory with all that it holds. It does not replace what is at `to`, and the parent of `to`
    /// must be there. Where `to` is a directory already, Ozone moves `from` into it: see first that it is not.
    ///
    /// # Errors
    /// `NotFound` where there is nothing at `from`, `AlreadyExists` where there is something at `to`.
    pub(crate) async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let request = OmRequest {
            rename_key: Some(RenameKeyRequest { from: self.key_args(from), to: to.to_owned() }),
            ..OmRequest::of(command::RENAME_KEY)
        };
        let reply = self.call(request).await?;
        match reply.outcome {
            Ok(_) => Ok(()),
            Err(refusal) if reply.repeated && (refusal.is_no_key() || refusal.is_taken()) => {
                if self.was_renamed(from, to).await? { Ok(()) } else { Err(self.failed(from)(refusal)) }
            }
            Err(refusal) => Err(self.failed(from)(refusal)),
        }
    }

    /// Renames many keys in one request, where there are no directories. Those that could be renamed are, also when it
    /// fails: the error names the first that could not.
    ///
    /// Nothing may be at any of the new names: Ozone 2.2.0 says that it did not rename onto a key, and loses the source.
    /// So no name may stand in two places either.
    pub(crate) async fn rename_all(&self, pairs: &[(&str, &str)]) -> Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let mut named = HashSet::with_capacity(2 * pairs.len());
        if let Some(twice) = pairs.iter().flat_map(|&(from, to)| [from, to]).find(|name| !named.insert(*name)) {
            return Err(Error::internal("it stands twice in one batch of renames")
                .at(self.place())
                .key(&Key::from(twice)));
        }
        let wire = |&(from, to): &(&str, &str)| RenamePair { from: from.to_owned(), to: to.to_owned() };
        let args = RenameKeysArgs {
            volume: self.volume.to_string(),
            bucket: self.bucket.to_string(),
            pairs: pairs.iter().map(wire).collect(),
        };
        let request =
            OmRequest { rename_keys: Some(RenameKeysRequest { args }), ..OmRequest::of(command::RENAME_KEYS) };
        let reply = self.call(request).await?;
        let mut refusal = match reply.outcome {
            Ok(_) => return Ok(()),
            Err(refusal) => refusal,
        };
        let left = refusal.answer.rename_keys.take().unwrap_or_default().left;
        for RenamePair { from, to } in &left {
            if !(reply.repeated && self.was_renamed(from, to).await?) {
                let count = left.len();
                let what = format!("could not be renamed to `{to}`, as the first of {count} of {}", pairs.len());
                return Err(self
                    .left_over(Kind::NotFound, what, from)
                    .hint("there is nothing of that name, or something has the new name already"));
            }
        }
        // A refusal that names nobody.
        if left.is_empty() { Err(self.failed(pairs[0].0)(refusal)) } else { Ok(()) }
    }

    /// True when nothing is at `from` and something is at `to`: a rename happened, though its answer was lost.
    async fn was_renamed(&self, from: &str, to: &str) -> Result<bool> {
        Ok(self.is_there(to).await? && !self.is_there(from).await?)
    }

    async fn is_there(&self, key: &str) -> Result<bool> {
        Ok(self.file_status(None, key).await?.is_some())
    }

    /// Deletes a key, or a directory: an empty one, or with all that it holds where `recursive`. False where there was
    /// nothing.
    ///
    /// # Errors
    /// `DIRECTORY_NOT_EMPTY` is of kind `Io`.
    pub(crate) async fn delete(&self, key: &str, recursive: bool) -> Result<bool> {
        let args = KeyArgs { recursive: Some(recursive), ..self.key_args(key) };
        let request = OmRequest { delete_key: Some(KeyRequest { key: args }), ..OmRequest::of(command::DELETE_KEY) };
        let reply = self.call(request).await?;
        match reply.outcome {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is_no_key() => Ok(reply.repeated),
            Err(refusal) => Err(self.failed(key)(refusal)),
        }
    }

    /// Deletes many keys in one request. What is gone already is no error; one that stayed is, and is named.
    /// A directory goes with all that it holds, unlike in [`BucketClient::delete`].
    pub(crate) async fn delete_all<K: AsRef<str>>(&self, keys: &[K]) -> Result<()> {
        let Some(first) = keys.first() else { return Ok(()) };
        let args = DeleteKeysArgs {
            volume: self.volume.to_string(),
            bucket: self.bucket.to_string(),
            keys: keys.iter().map(|key| key.as_ref().to_owned()).collect(),
        };
        let request = OmRequest {
            delete_keys: Some(DeleteKeysRequest { args: Some(args) }),
            ..OmRequest::of(command::DELETE_KEYS)
        };
        let mut refusal = match self.call(request).await?.outcome {
            Ok(_) => return Ok(()),
            Err(refusal) if refusal.status == PARTIAL_DELETE => refusal,
            Err(refusal) if refusal.is_no_key() && keys.len() == 1 => return Ok(()),
            Err(refusal) => return Err(self.failed(first.as_ref())(refusal)),
        };
        let answer = refusal.answer.delete_keys.take().unwrap_or_default();
        if let Some(error) = answer.errors.iter().find(|error| !is_missing(error.code.as_deref())) {
            let code = error.code.as_deref().unwrap_or("no reason");
            let message = error.message.as_deref().unwrap_or("");
            let kind = if code.contains("DENIED") || code.contains("ACL") { Kind::Denied } else { Kind::Io };
            return Err(self.left_over(
                kind,
                format!("could not be deleted: {code}: {message}"),
                error.key.as_deref().unwrap_or(""),
            ));
        }
        // Each key that stayed must have been called missing.
        let left = answer.left.unwrap_or_default().keys;
        let missing = |key: &String| answer.errors.iter().any(|error| error.key.as_ref() == Some(key));
        match left.iter().find(|key| !missing(key)) {
            Some(key) if self.is_there(key).await? => Err(self.failed(key)(refusal)),
            _ => Ok(()),
        }
    }

    /// Makes a directory and its parents; one that is there already is fine.
    ///
    /// # Errors
    /// `AlreadyExists` where there is a file of that name, or of a parent's.
    pub(crate) async fn create_directory(&self, key: &str) -> Result<()> {
        let args = KeyArgs { owner: self.channels.user().map(str::to_owned), ..self.key_args(key) };
        let request =
            OmRequest { create_directory: Some(KeyRequest { key: args }), ..OmRequest::of(command::CREATE_DIRECTORY) };
        match self.call(request).await?.outcome {
            Ok(_) => Ok(()),
            Err(Refusal { status: DIRECTORY_ALREADY_EXISTS, .. }) => Ok(()),
            Err(refusal) => Err(self.failed(key)(refusal)),
        }
    }

    fn left_over(&self, kind: Kind, what: String, key: &str) -> Error {
        Error::new(kind, what).at(self.place()).key(&Key::from(key))
    }
}

/// What is gone already, in the words of a `DeleteKeyError`.
fn is_missing(code: Option<&str>) -> bool {
    matches!(code, Some("KEY_NOT_FOUND" | "FILE_NOT_FOUND" | "DIRECTORY_NOT_FOUND"))
}
