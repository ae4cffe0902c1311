//! A TOML document read field by field, so that every mistake in it is named, each with its line, and not the first one
//! only.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// What is wrong with a document.
#[derive(Debug)]
pub(super) struct Mistakes<'a> {
    text: &'a str,
    found: RefCell<Vec<(usize, String)>>,
}

impl<'a> Mistakes<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, found: RefCell::default() }
    }

    /// Notes a mistake; `at` is where in the text.
    pub(super) fn add(&self, at: usize, what: impl Display) {
        self.found.borrow_mut().push((at, what.to_string()));
    }

    /// One line for each, in the order of the text; none if all is well.
    pub(super) fn lines(self) -> Vec<String> {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(at, _)| *at);
        let line =
            |at: usize| self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|&&b| b == b'\n').count() + 1;
        found.into_iter().map(|(at, what)| format!("line {}: {what}", line(at))).collect()
    }
}

/// A value and where it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'a, 'm> {
    value: &'a DeValue<'a>,
    /// Where it begins.
    pub(super) at: usize,
    mistakes: &'m Mistakes<'a>,
}

/// A table whose fields are taken one by one; what nobody took in the end is a mistake.
#[derive(Debug)]
pub(super) struct Table<'a, 'm> {
    /// As `policy.photos`; empty for the document.
    path: String,
    /// Where it begins.
    pub(super) at: usize,
    fields: BTreeMap<&'a str, (Range<usize>, Value<'a, 'm>)>,
    /// Fields that were asked for.
    known: Vec<&'static str>,
    /// Those of them that are there.
    had: Vec<&'static str>,
    mistakes: &'m Mistakes<'a>,
}

impl<'a, 'm> Table<'a, 'm> {
    /// The document.
    pub(super) fn of(document: &'a Spanned<DeTable<'a>>, mistakes: &'m Mistakes<'a>) -> Self {
        Self::new(String::new(), document.span().start, document.get_ref(), mistakes)
    }

    fn new(path: String, at: usize, table: &'a DeTable<'a>, mistakes: &'m Mistakes<'a>) -> Self {
        let fields = table.iter().map(|(name, value)| {
            let inner = Value { value: value.get_ref(), at: value.span().start, mistakes };
            (name.get_ref().as_ref(), (name.span(), inner))
        });
        Self { path, at, fields: fields.collect(), known: Vec::new(), had: Vec::new(), mistakes }
    }

    /// A name under this table, as messages have it.
    pub(super) fn name(&self, field: &str) -> String {
        if self.path.is_empty() { field.into() } else { format!("{}.{field}", self.path) }
    }

    /// Notes a mistake in this table as a whole.
    pub(super) fn wrong(&self, what: impl Display) {
        self.mistakes.add(self.at, format_args!("{}: {what}", self.path));
    }

    /// Notes a mistake at a field that was taken.
    pub(super) fn wrong_at(&self, at: usize, field: &str, what: impl Display) {
        self.mistakes.add(at, format_args!("{}: {what}", self.name(field)));
    }

    /// Takes a field as it is.
    pub(super) fn take(&mut self, field: &'static str) -> Option<Value<'a, 'm>> {
        self.known.push(field);
        let (_, value) = self.fields.remove(field)?;
        self.had.push(field);
        Some(value)
    }

    /// Takes a field; `read` says what it means, or what is wrong with it.
    pub(super) fn read<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(Value<'a, 'm>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(field)?;
        read(value).map_err(|what| self.wrong_at(value.at, field, what)).ok()
    }

    /// Takes a field that is a text.
    pub(super) fn text<T, E: Display>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        self.read(field, |value| read(value.text()?).map_err(|error| error.to_string()))
    }

    /// Takes a field that is a whole number.
    pub(super) fn number(&mut self, field: &'static str, range: Range<u64>) -> Option<u64> {
        self.read(field, |value| value.number(range))
    }

    /// Takes a field that is `true` or `false`.
    pub(super) fn flag(&mut self, field: &'static str) -> Option<bool> {
        self.read(field, |value| match value.value {
            DeValue::Boolean(flag) => Ok(*flag),
            _ => Err(format!("is {}, not true or false", value.kind())),
        })
    }

    /// Takes a field that is a table.
    pub(super) fn table(&mut self, field: &'static str) -> Option<Table<'a, 'm>> {
        let (name, mistakes) = (self.name(field), self.mistakes);
        self.read(field, |value| match value.value {
            DeValue::Table(table) => Ok(Table::new(name, value.at, table, mistakes)),
            _ => Err(format!("is {}, not a table", value.kind())),
        })
    }

    /// Takes a field that is a list of tables.
    pub(super) fn each(&mut self, field: &'static str) -> Vec<Table<'a, 'm>> {
        let Some(value) = self.take(field) else { return Vec::new() };
        let mut tables = Vec::new();
        for value in value.list() {
            match value.value {
                DeValue::Table(table) => {
                    tables.push(Table::new(self.name(field), value.at, table, self.mistakes));
                }
                _ => {
                    self.wrong_at(value.at, field, format_args!("is {}: write [[{}]]", value.kind(), self.name(field)))
                }
            }
        }
        tables
    }

    /// True where a field that was taken is there, be it right or wrong.
    pub(super) fn had(&self, field: &str) -> bool {
        self.had.contains(&field)
    }

    /// Takes all that is left as tables, by name.
    pub(super) fn tables(mut self) -> Vec<(String, Table<'a, 'm>)> {
        let mut tables = Vec::new();
        for (name, (span, value)) in std::mem::take(&mut self.fields) {
            match value.value {
                DeValue::Table(table) => {
                    tables.push((name.to_owned(), Table::new(self.name(name), span.start, table, self.mistakes)));
                }
                _ => self.wrong_at(value.at, name, format_args!("is {}, not a table", value.kind())),
            }
        }
        tables
    }

    /// What is left is not known.
    pub(super) fn finish(self) {
        for (field, (span, _)) in &self.fields {
            let near = self.known.iter().min_by_key(|known| distance(known, field));
            let hint = match near.filter(|near| distance(near, field) <= field.len().div_ceil(3)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known are {}", self.known.join(", ")),
            };
            self.mistakes.add(span.start, format_args!("{}: there is no such field; {hint}", self.name(field)));
        }
    }
}

impl<'a> Value<'a, '_> {
    fn kind(&self) -> &'static str {
        match self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }

    /// The text that it is.
    pub(super) fn text(&self) -> Result<&'a str, String> {
        match self.value {
            DeValue::String(text) => Ok(text),
            _ => Err(format!("is {}, not a text in quotes", self.kind())),
        }
    }

    /// The whole number that it is.
    pub(super) fn number(&self, range: Range<u64>) -> Result<u64, String> {
        let DeValue::Integer(number) = self.value else { return Err(format!("is {}, not a number", self.kind())) };
        match u64::from_str_radix(&number.as_str().replace('_', ""), number.radix()) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => Err(format!("{number} is out of range: from {} to {}", range.start, range.end - 1)),
        }
    }

    /// The list that it is, or the only thing in it.
    pub(super) fn list(self) -> Vec<Self> {
        match self.value {
            DeValue::Array(values) => {
                let inner = |value: &'a Spanned<DeValue<'a>>| Value {
                    value: value.get_ref(),
                    at: value.span().start,
                    mistakes: self.mistakes,
                };
                values.iter().map(inner).collect()
            }
            _ => vec![self],
        }
    }

    /// True for a list.
    pub(super) fn is_list(&self) -> bool {
        matches!(self.value, DeValue::Array(_))
    }
}

/// How many letters are different, missing or too many (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut corner = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let cost = (corner + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            corner = row[j + 1];
            row[j + 1] = cost;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (a, b, expected) in [("", "", 0), ("schedule", "shedule", 1), ("source", "soruce", 2), ("abc", "", 3)] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
