//! The last lines of the log in memory, which the playground shows.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

/// How many lines to keep.
const LINES: usize = 500;

/// Of one line. Longer ones are cut.
const BYTES: usize = 4096;

/// The last lines of the log.
#[derive(Clone, Default)]
pub(crate) struct RecentLines(Arc<Mutex<VecDeque<String>>>);

impl RecentLines {
    pub(super) fn push(&self, line: &[u8]) {
        let line = String::from_utf8_lossy(&line[..line.len().min(BYTES)]);
        let mut lines = self.0.lock();
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line.trim_end().to_owned());
    }

    /// The lines that contain `text`, the oldest first.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock();
        let lines = lines.iter().filter(|line| line.contains(text));
        lines.cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_are_forgotten_and_long_ones_are_cut() {
        let recent = RecentLines::default();
        for number in 0..=LINES {
            recent.push(format!("line {number};\n").as_bytes());
        }
        assert_eq!(recent.lines_with("line 0;"), [""; 0]);
        assert_eq!(recent.lines_with("line 1;"), ["line 1;"]);
        assert_eq!(recent.lines_with("line").len(), LINES);
        recent.push("a".repeat(BYTES + 1).as_bytes());
        assert_eq!(recent.lines_with("aa"), ["a".repeat(BYTES)]);
    }
}
