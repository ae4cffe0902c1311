//! The fields of hooks.

use std::time::Duration;

use http::Uri;

use super::reader::{Table, Value};
use crate::hook::{Action, Hook, On};
use crate::units;

/// How long telling a hook may take where nothing is said.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Reads the `hook` tables in a table.
pub(super) fn hooks(table: &mut Table<'_, '_>) -> Vec<Hook> {
    table.each("hook").into_iter().filter_map(hook).collect()
}

fn hook(mut table: Table<'_, '_>) -> Option<Hook> {
    let on = table.read("on", events);
    let command = table.read("command", command);
    let url = table.text("url", webhook);
    let timeout = table.text("timeout", units::duration).unwrap_or(TIMEOUT);
    let action = match (command, url) {
        (Some(command), None) => Some(Action::Command(command)),
        (None, Some(url)) => Some(Action::Webhook(url)),
        (Some(_), Some(_)) => {
            table.wrong("has both `command` and `url`; make two hooks of it");
            None
        }
        (None, None) => {
            if !table.had("command") && !table.had("url") {
                table.wrong("has neither `command` nor `url`");
            }
            None
        }
    };
    table.finish();
    Some(Hook { on: on.unwrap_or_else(|| On::ALL.to_vec()), action: action?, timeout })
}

fn events(value: Value<'_, '_>) -> Result<Vec<On>, String> {
    let mut events = Vec::new();
    for value in value.list() {
        let text = value.text()?;
        let found = On::ALL.into_iter().find(|on| on.to_string() == text);
        events.push(found.ok_or_else(|| format!("`{text}` is not one of success, failure, stale, partial"))?);
    }
    if events.is_empty() { Err("is empty: leave it out to hear of everything".into()) } else { Ok(events) }
}

/// A program and its arguments; no shell is between.
fn command(value: Value<'_, '_>) -> Result<Vec<String>, String> {
    if !value.is_list() {
        return Err("is not a list: write [\"program\", \"argument\"]; no shell reads it".into());
    }
    let words: Result<Vec<String>, String> = value.list().iter().map(|word| word.text().map(str::to_owned)).collect();
    match words? {
        words if words.first().is_none_or(String::is_empty) => Err("names no program".into()),
        words => Ok(words),
    }
}

fn webhook(text: &str) -> Result<Uri, String> {
    match text.parse::<Uri>() {
        Ok(uri) if uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")) => Ok(uri),
        // Whoever knows a webhook's URL can use it, so it is not repeated.
        _ => Err("is no URL that begins with https:// or http://".into()),
    }
}
