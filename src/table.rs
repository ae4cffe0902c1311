//! Rows of text, aligned for people.

use std::fmt;

/// A table.
#[derive(Debug)]
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
    /// Columns whose text stands to the right.
    right: [bool; N],
}

impl<const N: usize> Table<N> {
    /// One with these headings.
    pub(crate) fn new(headings: [&str; N]) -> Self {
        Self { rows: vec![headings.map(str::to_owned)], right: [false; N] }
    }

    /// The same with this column's text to the right, as for numbers.
    pub(crate) fn right(mut self, column: usize) -> Self {
        self.right[column] = true;
        self
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, row: [impl Into<String>; N]) {
        self.rows.push(row.map(Into::into));
    }
}

impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        for (number, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = widths[column];
                let gap = if column > 0 { "  " } else { "" };
                line += &match self.right[column] {
                    true => format!("{gap}{cell:>width$}"),
                    false => format!("{gap}{cell:width$}"),
                };
            }
            write!(f, "{}{}", if number > 0 { "\n" } else { "" }, line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(["NAME", "SIZE", "STATE"]).right(1);
        table.row(["é", "1", "sealed"]);
        table.row(["a long name", "1000", ""]);
        assert_eq!(table.to_string(), "NAME         SIZE  STATE\né               1  sealed\na long name  1000");
    }
}
