//! Tables of text: the first column to the left, numbers to the right.

use std::io::{self, Write};

/// Rows of cells, printed in columns as wide as their widest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that hold words rather than numbers, besides the first.
    words: Vec<usize>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()], words: Vec::new() }
    }

    /// Aligns column `column` to the left.
    pub fn words(mut self, column: usize) -> Self {
        self.words.push(column);
        self
    }

    /// Adds a row; missing cells are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Prints it, indented by two.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::from(" ");
            for (column, &width) in widths.iter().enumerate() {
                let cell = row.get(column).map_or("", String::as_str);
                let fill = " ".repeat(width - cell.chars().count());
                line.push_str(if column == 0 { " " } else { "  " });
                if column == 0 || self.words.contains(&column) {
                    line.extend([cell, &fill]);
                } else {
                    line.extend([&fill, cell]);
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["part", "bytes", "type"]).words(2);
        table.row(["norms".into(), "8".into(), "F16".into()]);
        table.row(["x".into(), "1,000".into(), "F32".into()]);
        let mut text = Vec::new();
        table.write(&mut text).unwrap();
        let expected = "  part   bytes  type\n  norms      8  F16\n  x      1,000  F32\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
