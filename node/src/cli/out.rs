//! What goes to stdout: tables for people, one JSON document for programs.

use std::io::{self, Write};

use serde::Serialize;

use super::args::Format;
use super::exit::{Exit, Failure};

/// Prints `value` as JSON, or what `table` makes of it.
pub fn show<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    match format {
        Format::Table => print(&table(value)),
        Format::Json => {
            let text = serde_json::to_string(value).map_err(|e| Failure::new(Exit::Error, e.to_string()))?;
            print(&format!("{text}\n"))
        }
    }
}

/// Writes `text` as it is. A reader that has gone away (`| head`) is no error.
pub fn print(text: &str) -> Result<(), Failure> {
    write(text.as_bytes())
}

/// As [`print`], for what need not be text.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Tells the person something, on stderr.
pub fn say(text: &str) {
    // With stderr gone there is nobody left to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks before something that cannot be taken back. A program, which cannot be asked, has
/// decided already.
pub fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    use std::io::IsTerminal as _;
    if yes || !io::stdin().is_terminal() {
        return Ok(());
    }
    let mut stderr = io::stderr().lock();
    write!(stderr, "{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Failure::new(Exit::Error, "nothing was changed"))
    }
}

/// Columns as wide as their widest cell, two spaces apart.
pub fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.into_iter().map(|row| row.map(|cell| printable(&cell))));
    let widths: Vec<usize> =
        (0..N).map(|i| lines.iter().map(|line| line[i].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for line in lines {
        let mut text = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
        }
        out.push_str(text.trim_end());
        out.push('\n');
    }
    out
}

/// A cell: what is empty would shift the columns for whoever counts words.
pub fn printable(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { escaped(text) }
}

/// Names and payloads come from clients: nothing in them may move the cursor or end a line.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_cells_stay_on_their_line() {
        let rows = [
            ["a\u{1b}[2J".to_owned(), "ü".to_owned(), "z".to_owned()],
            ["long".to_owned(), String::new(), "x".to_owned()],
        ];
        let text = table(["NAME", "B", "C"], rows);
        assert_eq!(text, "NAME        B  C\na\\u{1b}[2J  ü  z\nlong        -  x\n");
    }
}
