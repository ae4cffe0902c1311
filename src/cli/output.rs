//! What goes to stdout and stderr: text for people, or one JSON document for programs.

use std::cell::Cell;
use std::fmt::Display;
use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Kind, Result};

/// Where results go.
#[derive(Debug)]
pub(super) struct Output {
    json: bool,
    quiet: bool,
    printed: Cell<bool>,
}

impl Output {
    pub(super) fn new(json: bool, quiet: bool) -> Self {
        Self { json, quiet, printed: Cell::new(false) }
    }

    /// True when a program reads.
    pub(super) fn is_json(&self) -> bool {
        self.json
    }

    /// True when nobody wants to read what went well.
    pub(super) fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// The result of a command; with the error where there is one, so that a program finds both in one document.
    pub(super) fn result<T: Serialize + Display>(&self, result: &T, error: Option<&Error>) -> Result<()> {
        if !self.json {
            if !self.quiet && error.is_none() {
                self.line(&result.to_string())?;
            }
            return Ok(());
        }
        let mut document = serde_json::to_value(result)
            .map_err(|error| Error::internal("the result cannot be written as JSON").caused_by(error))?;
        if let (Value::Object(fields), Some(error)) = (&mut document, error) {
            fields.insert("error".into(), described(error));
        }
        self.document(&document)
    }

    /// A JSON document.
    pub(super) fn document(&self, document: &Value) -> Result<()> {
        self.printed.set(true);
        self.line(&document.to_string())
    }

    /// The end of a document that was printed piece by piece.
    pub(super) fn finish(&self, end: &str) -> Result<()> {
        self.printed.set(true);
        self.line(end)
    }

    /// A line on stdout. Whoever closed the pipe has seen enough.
    pub(super) fn line(&self, line: &str) -> Result<()> {
        match writeln!(std::io::stdout().lock(), "{line}") {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// The failure that ends the program.
    pub(super) fn failure(&self, error: &Error) {
        let mut text = format!("snapferry: {error}");
        if let Some(way_out) = error.way_out() {
            text.push_str(&format!("\n  what to do: {way_out}"));
        }
        let _ = writeln!(std::io::stderr().lock(), "{text}");
        if self.json && !self.printed.get() {
            let state = if error.exit_code() == 3 { "refused" } else { "failed" };
            let _ = self.document(&json!({ "state": state, "error": described(error) }));
        }
    }
}

/// An error, for programs.
pub(super) fn described(error: &Error) -> Value {
    json!({
        "kind": kind(error.kind()),
        "message": error.to_string(),
        "side": error.side().map(|side| side.to_string()),
        "key": error.failed_key(),
        "hint": error.way_out(),
        "exit_code": error.exit_code(),
    })
}

/// The kind in snake case, as programs know it.
fn kind(kind: Kind) -> String {
    let mut name = String::new();
    for c in format!("{kind:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(c.to_ascii_lowercase());
    }
    name
}
